"""How much is read of one message of the server behind?

The SDK reads lines and bodies without a limit. Lines reach it through a codec, the one part of its
reader that can be chosen; responses through the stream that the HTTP client reads.
"""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from toolguard.parts.bounded import MOST_BYTES

__all__ = ["ENCODING", "HTTP", "TOO_LONG", "bound", "is_too_long"]

# httpx2 comes with mcp 2.x.
HTTP: Any = import_module("httpx2" if find_spec("httpx2") is not None else "httpx")
"""The HTTP client of the SDK that is installed."""

TOO_LONG = f"sends more than {MOST_BYTES >> 20} MiB in one message: ask it for less at once"
"""What is said of a server that sends more."""

ENCODING = "toolguard_bounded_lines"
"""The encoding of a server over stdio: UTF-8, of which whole lines are decoded."""

_MARK = "toolguard/line_too_long"


class _Lines(codecs.IncrementalDecoder):
    """Keeps a line until its end has come; puts a notification in the place of one too long.

    The SDK would join what it has of a line with each part that comes. An error in a decoder ends
    its reader, and on 2.x nobody is told; so the rest is dropped, and :func:`is_too_long` tells.
    """

    def __init__(self, errors: str = "strict") -> None:
        super().__init__(errors)
        self._line = bytearray()
        self._is_over = False

    def decode(self, data: Any, final: bool = False) -> str:  # noqa: ARG002, FBT001, FBT002
        if self._is_over:
            return ""
        ended, newline, rest = bytes(data).rpartition(b"\n")
        text = ""
        if newline:
            text = (self._line + ended + newline).decode("utf-8", self.errors)
            self._line = bytearray()
        self._line += rest
        if len(self._line) > MOST_BYTES:
            self._is_over = True
            self._line = bytearray()
            text += f'{{"jsonrpc": "2.0", "method": "{_MARK}"}}\n'
        return text


def _find(name: str) -> codecs.CodecInfo | None:
    if name != ENCODING:
        return None
    utf8 = codecs.lookup("utf-8")
    return codecs.CodecInfo(utf8.encode, utf8.decode, incrementaldecoder=_Lines, name=ENCODING)


codecs.register(_find)


def is_too_long(message: object) -> bool:
    """Return whether a message of the SDK's reader stands for a line that is too long.

    A server that sends such a message itself ends its own session.
    """
    carried = getattr(message, "message", None)
    carried = getattr(carried, "root", carried)  # of 1.x
    return getattr(carried, "method", None) == _MARK


def bound(response: Any, refuse: Callable[[str], Exception]) -> None:
    """Limit what is read of a response: its body, or each event of a stream.

    Args:
        response: the response, of which nothing has been read.
        refuse: takes what the server does, and returns what the reader gets.
    """
    # JSON and events are UTF-8. Python has other codecs, and some of them decompress.
    response.encoding = "utf-8"
    is_compressed = response.headers.get("content-encoding", "identity").lower() != "identity"
    # The SDK reads all other answers as a whole, whatever they say that they are.
    has_events = (
        response.is_success
        and response.request.method != "DELETE"
        and response.headers.get("content-type", "").lower().startswith("text/event-stream")
    )
    response.stream = _BoundedStream(
        response.stream, refuse, is_compressed=is_compressed, has_events=has_events
    )


class _BoundedStream(HTTP.AsyncByteStream):  # type: ignore[misc] # of either client
    def __init__(
        self,
        stream: Any,
        refuse: Callable[[str], Exception],
        *,
        is_compressed: bool,
        has_events: bool,
    ) -> None:
        self._stream = stream
        self._refuse = refuse
        self._is_compressed = is_compressed
        self._has_events = has_events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_compressed:
            raise self._refuse(
                "sends compressed answers, which are not accepted: turn that off there"
            )
        length, last = 0, b""
        async for chunk in self._stream:
            length += len(chunk)
            if self._has_events:
                unfinished = _after_events(chunk, last)
                length = length if unfinished is None else unfinished
                last = chunk[-1:] or last
            if length > MOST_BYTES:
                raise self._refuse(TOO_LONG)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _after_events(chunk: bytes, last: bytes) -> int | None:
    """Return how much of a chunk follows the last end of an event in it; None without an end.

    An event ends with an empty line; a line ends with CR LF, LF or CR (HTML, server-sent events).

    Args:
        chunk: the chunk.
        last: the byte before it.
    """
    if last == b"\r":
        chunk = chunk.removeprefix(b"\n")
    lines = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    before = b"\n" if last in (b"\r", b"\n") else b""
    _, end, rest = (before + lines).rpartition(b"\n\n")
    return len(rest) if end else None
