"""Read the MCP message of an HTTP request strictly, so that every reader reads the same.

A guard in front of a server decides on the message as the guard parses it, and the server acts on
the message as the server parses it. So nothing is repaired or guessed here: a body that two parsers
could read as two different messages is refused, and every spelling under which a server could look
up a name has to be permitted.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import anyio
from starlette.types import Message, Receive

from toolguard.errors import MalformedMessageError, ToolGuardError
from toolguard.parsing.lookalikes import resembles
from toolguard.parsing.spellings import spellings, uri_spellings
from toolguard.parsing.strict_json import strict_object
from toolguard.parts.threads import in_own_thread
from toolguard.policies.operations import METHODS, OperationCall, named_operations

__all__ = [
    "HEADER_MISMATCH",
    "MAX_BODY",
    "MAX_SECONDS",
    "Held",
    "HeldBody",
    "MCPMessage",
    "MessageTooLargeError",
    "MessageTooSlowError",
    "OverloadedError",
    "held_body",
    "name_spellings",
    "parse_message",
    "read_message",
    "receive_message",
    "spelled_out",
]

#: The maximum size of a message in bytes: 4 MiB, the limit of the official SDKs.
MAX_BODY = 4 * 1024 * 1024

#: The maximum time in which it must arrive, in seconds.
MAX_SECONDS = 30.0

# From this size on, parsing a body takes long enough to delay other requests.
_LARGE = 64 * 1024
# What a value in a body takes up at least, once it is parsed: an empty list, and its place.
_BYTES_OF_VALUE = 64
_MAX_VALUES = 24 * 1024 * 1024
# The spellings of a name of this length take a few milliseconds.
_LONG = 256

_PARSE_ERROR = -32700
_INVALID_PARAMS = -32602
#: MCP 2026-07-28: HeaderMismatch.
HEADER_MISMATCH = -32020

_ENVELOPE = ("jsonrpc", "id", "method", "params", "result", "error")
# All existing methods, and no character that HTTP, a URL or a terminal could misread.
_METHOD = re.compile(r"[A-Za-z0-9_.:/$-]{1,256}")

_HEADERS = frozenset(
    (
        *(b"mcp-method", b"mcp-name", b"mcp-protocol-version", b"mcp-session-id"),
        *(b"content-type", b"content-encoding", b"transfer-encoding"),
    )
)
_MIRRORED = b"mcp-param-"
_JSON = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset="?utf-?8"?)?', re.IGNORECASE)
# MCP 2026-07-28, transports: the encoding of Mcp-Name for values that a header cannot hold.
_ENCODED = re.compile(rb"=\?base64\?(.*)\?=")
_HEADER_TEXT = re.compile(rb"[\x20-\x7e]*")


class MessageTooLargeError(MalformedMessageError):
    """The body of the request is larger than a message may be."""

    status = 413


class MessageTooSlowError(MalformedMessageError):
    """The body of the request takes too long to arrive."""

    status = 408


class OverloadedError(ToolGuardError):
    """Too much is being read, or open, at once; ``retry_after`` is in seconds."""

    status = 503
    error = "temporarily_unavailable"
    retry_after = 5


@dataclass(frozen=True)
class MCPMessage:
    """One JSON-RPC message from a client.

    Args:
        method: the method; None for a response to a request of the server's.
        params: the parameters; only the members that name operations are validated.
        id: the id of a request; None for other messages.
        mirrored: the headers that repeat arguments, by the end of their names; None for a value
            that is ambiguous.

    Attributes:
        asked: the operations that it names, as sent; empty for a message about the server.

    Raises:
        MalformedMessageError: if the method needs a name and the parameters have no usable name.

    >>> MCPMessage("resources/read", {"uri": "NOTES://work/1"}).asked
    (OperationCall(kind='resource', name='NOTES://work/1'),)
    """

    method: str | None
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    id: str | int | None = None
    mirrored: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    asked: tuple[OperationCall, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "asked", named_operations(self.method or "", self.params))


def name_spellings(asked: OperationCall) -> tuple[str, ...]:
    """Return every spelling under which a server could look up an operation, the sent one first.

    Match each of them with the rules separately, and permit the message only if all of them are
    permitted; the default applies to a spelling that no rule matches. Patterns have spellings too:
    the rule for ``createEvent`` is also the one for ``createevent``.

    Raises:
        MalformedMessageError: if the name is not valid.

    >>> name_spellings(OperationCall("resource", "NOTES://work/1"))
    ('NOTES://work/1', 'notes://work/1')
    """
    try:
        respell = uri_spellings if asked.kind == "resource" else spellings
        return respell(asked.name)
    except ValueError as error:
        raise MalformedMessageError(f"This is not a name: {error}", code=_INVALID_PARAMS) from None


def read_message(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> MCPMessage:
    """Parse the message in ``body``, which must have exactly one reading.

    Args:
        body: the whole body of the request.
        headers: the raw headers of the request.

    Raises:
        MalformedMessageError: if the body is not a JSON-RPC 2.0 message in I-JSON (RFC 7493), or
            is a batch; if the headers state an encoding, or name another operation than the body;
            if it has members or names that a lenient reader takes for others; if its operation
            has no name.
    """
    headers = tuple(headers)
    sent = _sent(headers)
    _check_format(sent)
    if body.lstrip(b" \t\r\n").startswith(b"["):
        raise MalformedMessageError("Send one message per request: batches are not supported")
    envelope = strict_object(body)
    if envelope is None:
        raise MalformedMessageError(
            "The body must be one JSON object in UTF-8 that names no member twice",
            code=_PARSE_ERROR,
        )
    message = _message(envelope)
    mirrored = _mirrored_arguments(headers)
    if mirrored:  # otherwise the operations would be named a second time for nothing
        message = replace(message, mirrored=mirrored)
    _check_mirrored(sent, message)
    return message


# --- headers


def _sent(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return the headers that determine how the body is read, by name."""
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        # RFC 3875 §4.1.18: with CGI and its successors "_" and "-" are the same.
        plain = name.lower().replace(b"_", b"-")
        if plain in sent:
            raise MalformedMessageError(f"Send the header {plain.decode('ascii')} once")
        if plain in _HEADERS:
            sent[plain] = value.strip(b" \t")
    return sent


def _check_format(sent: Mapping[bytes, bytes]) -> None:
    if (
        sent.get(b"content-encoding", b"").lower() not in (b"", b"identity")
        # RFC 9112 §6.1: the server has decoded this one, and may not be able to decode others.
        or sent.get(b"transfer-encoding", b"").lower() not in (b"", b"chunked")
    ):
        raise MalformedMessageError("Send the body as it is, without a content encoding")
    if not _JSON.fullmatch(sent.get(b"content-type", b"application/json")):
        raise MalformedMessageError("Send the body as application/json, in UTF-8")


def _check_mirrored(sent: Mapping[bytes, bytes], message: MCPMessage) -> None:
    """Compare the headers that repeat values of the body with the body.

    MCP 2026-07-28: 'Servers that process the request body MUST reject requests where the values
    specified in the headers do not match the corresponding values in the request body.'
    """
    method = sent.get(b"mcp-method")
    # `_METHOD` excludes "=", so that no reader can find an encoded method in it.
    if method is not None and method != (message.method or "").encode("ascii"):
        raise MalformedMessageError(
            "The header Mcp-Method must be the method in the body", code=HEADER_MISMATCH
        )
    name = sent.get(b"mcp-name")
    # For other methods the header has another meaning: tasks/get repeats the task in it.
    if name is None or not message.asked or message.method == "subscriptions/listen":
        return
    if _decoded(name) != message.asked[0].name:
        raise MalformedMessageError(
            "The header Mcp-Name must be the name or URI in the body", code=HEADER_MISMATCH
        )


def _mirrored_arguments(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str | None]:
    """Return the headers that repeat arguments (MCP 2026-07-28, ``x-mcp-header``).

    Raises:
        MalformedMessageError: if one is sent twice.
    """
    found: dict[str, str | None] = {}
    for name, value in headers:
        plain = name.lower().replace(b"_", b"-")
        if plain.startswith(_MIRRORED):
            argument = plain[len(_MIRRORED) :].decode("latin-1")
            if argument in found:
                raise MalformedMessageError(f"Send the header {plain.decode('latin-1')!r} once")
            found[argument] = _decoded(value.strip(b" \t"))
    return found


def _decoded(value: bytes) -> str | None:
    """Return the decoded value of Mcp-Name, or of Mcp-Param; None if it is ambiguous."""
    if not _HEADER_TEXT.fullmatch(value):
        return None  # Latin-1 for some, UTF-8 for others
    encoded = _ENCODED.fullmatch(value)
    if encoded is None:
        return value.decode("ascii")
    try:
        decoded = base64.b64decode(encoded[1])
        # RFC 4648 §3.3, §3.5: no other characters, and no bits left over in the last one.
        return decoded.decode("utf-8") if base64.b64encode(decoded) == encoded[1] else None
    except (binascii.Error, UnicodeDecodeError):
        return None


# --- the body


def _message(envelope: Mapping[str, Any]) -> MCPMessage:
    message_id = _id(envelope)
    try:
        return _checked(envelope, message_id)
    except MalformedMessageError as fault:
        fault.message_id = message_id if "method" in envelope else None
        raise


def _checked(envelope: Mapping[str, Any], message_id: str | int | None) -> MCPMessage:
    _refuse_lookalikes(envelope, _ENVELOPE)
    if envelope.get("jsonrpc") != "2.0":
        raise MalformedMessageError('A message has the member "jsonrpc": "2.0"')
    outcomes = len(envelope.keys() & {"result", "error"})
    if "method" not in envelope:
        if outcomes != 1 or "params" in envelope:
            raise MalformedMessageError(
                "A message has a method, or it is a response with either a result or an error"
            )
        return MCPMessage(None)
    if outcomes:
        raise MalformedMessageError("A message has a method or a result, not both")
    method, params = envelope["method"], envelope.get("params", {})
    if not isinstance(method, str) or not _METHOD.fullmatch(method):
        raise MalformedMessageError("The method must be a string such as tools/call")
    _refuse_lookalikes((method,), METHODS)
    if not isinstance(params, dict):
        raise MalformedMessageError(
            "params must be an object, or be left out", code=_INVALID_PARAMS
        )
    return MCPMessage(method, params, message_id)


def _id(envelope: Mapping[str, Any]) -> str | int | None:
    """Return the id of a request, for use in the response."""
    found = envelope.get("id")
    if isinstance(found, bool) or not isinstance(found, (str, int, type(None))):
        raise MalformedMessageError("The id of a request is a string or a whole number")
    return found


def _refuse_lookalikes(names: Collection[str], known: Collection[str]) -> None:
    if resembles(names, known):
        raise MalformedMessageError(
            f"Spell {', '.join(known)} exactly so, and send no other name that resembles it"
        )


# --- bodies


class Held(Protocol):
    """The memory that all request bodies take up."""

    def take(self, count: int) -> bool:
        """Reserve ``count`` bytes; return whether they were available."""
        ...

    def give_back(self, count: int) -> None:
        """Release ``count`` bytes."""
        ...


class HeldBody:
    """The body of one request, which is counted until it is released.

    What a connection buffers anyway is not counted, so that large bodies keep no small ones out.

    Args:
        held: the memory that all request bodies take up.
        uncounted: the bytes that are not counted.

    Attributes:
        content: the body; empty once it is released.
    """

    def __init__(self, held: Held, uncounted: int = _LARGE) -> None:
        self._held = held
        self._uncounted = uncounted
        self._counted = 0
        self.content = b""

    def count(self, size: int) -> None:
        """Count the body as ``size`` bytes, whatever it was counted as before.

        Raises:
            OverloadedError: if too many bytes are held already.
        """
        counted = max(0, size - self._uncounted)
        more = counted - self._counted
        if more > 0 and not self._held.take(more):
            raise OverloadedError("Too many large messages are being read; try again")
        if more < 0:
            self._held.give_back(-more)
        self._counted = counted

    async def parsed(self, headers: Iterable[tuple[bytes, bytes]]) -> MCPMessage:
        """Return the message in the body, and count what its values take up.

        Raises:
            MalformedMessageError: as :func:`read_message` does.
            OverloadedError: if too many bytes are held already.
        """
        values = sum(map(self.content.count, (b",", b"[", b"{")))
        self.count(len(self.content) + min(values * _BYTES_OF_VALUE, _MAX_VALUES))
        return await parse_message(self.content, headers)

    def release(self) -> None:
        """Forget the body, and count it no more."""
        self.content = b""
        self.count(0)

    def replay(self, receive: Receive) -> Receive:
        """Return a ``receive`` that first returns the body, and then the events of ``receive``.

        So the application reads exactly the bytes that were decided on, and is still told when the
        client disconnects. The body is released when the application has it.
        """
        is_given = False

        async def replayed() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given, content = True, self.content
            self.release()
            return {"type": "http.request", "body": content, "more_body": False}

        return replayed


@asynccontextmanager
async def held_body(
    receive: Receive,
    headers: Iterable[tuple[bytes, bytes]],
    held: Held,
    *,
    limit: int = MAX_BODY,
    seconds: float = MAX_SECONDS,
    uncounted: int = _LARGE,
) -> AsyncIterator[HeldBody]:
    """Read the body of an ASGI request; its memory is released when the block ends, or before.

    Args:
        receive: the ASGI ``receive``.
        headers: the raw headers of the request; a Content-Length over the limit is refused early.
        held: the memory that all request bodies take up.
        limit: the maximum size in bytes.
        seconds: the maximum time in which it must arrive.
        uncounted: the bytes of it that are not counted.

    Raises:
        MessageTooLargeError: if the body, or its Content-Length, is over the limit.
        MessageTooSlowError: if it has not arrived in time.
        OverloadedError: if too many bytes are held already.
        MalformedMessageError: if the client disconnected before the end of the body: an
            incomplete message must not be processed.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and _is_above(limit, value):
            raise _too_large(limit)
    body = HeldBody(held, uncounted)
    try:
        with anyio.move_on_after(seconds) as scope:
            body.content = await _read(receive, body, limit)
        if scope.cancelled_caught:
            raise MessageTooSlowError(f"The body must arrive within {seconds:g} seconds")
        yield body
    finally:
        body.release()


async def _read(receive: Receive, body: HeldBody, limit: int) -> bytes:
    content, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise MalformedMessageError("The request ended before its body")
        piece: bytes = message.get("body", b"")
        if len(content) + len(piece) > limit:
            raise _too_large(limit)
        body.count(len(content) + len(piece))
        content += piece
        more = message.get("more_body", False)
    return bytes(content)


async def parse_message(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> MCPMessage:
    """Parse the message in ``body``; a large one is parsed in a worker thread.

    Raises:
        MalformedMessageError: as :func:`read_message` does.
    """
    if len(body) <= _LARGE:
        return read_message(body, headers)
    return await in_own_thread(read_message, body, headers)


async def receive_message(
    receive: Receive, headers: Iterable[tuple[bytes, bytes]], held: Held
) -> MCPMessage:
    """Return the message that a request carries.

    Raises:
        ToolGuardError: as :func:`held_body` and :func:`read_message` do.
    """
    async with held_body(receive, headers, held) as body:
        return await body.parsed(headers)


async def spelled_out(asked: OperationCall) -> tuple[str, ...]:
    """Return :func:`name_spellings` an operation; for a long name in a worker thread."""
    if len(asked.name) <= _LONG:
        return name_spellings(asked)
    return await in_own_thread(name_spellings, asked)


def _is_above(limit: int, digits: bytes) -> bool:
    significant = digits.lstrip(b"0") or b"0"
    # Compared by length first: `int` refuses numbers of thousands of digits.
    return len(significant) > len(str(limit)) or int(significant) > limit


def _too_large(limit: int) -> MessageTooLargeError:
    return MessageTooLargeError(f"The body must have at most {limit} bytes")
