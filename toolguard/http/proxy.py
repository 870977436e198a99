"""Guard an MCP server of which only the HTTP endpoint is known.

The server may be written in any language, so only the protocol is known. The message is read
before the server gets it, decided on, and passed on unchanged, byte by byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from decimal import Decimal

import anyio.lowlevel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolguard.calls.message import Frame, MessageContext
from toolguard.calls.recording import message_records
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import (
    GuardNotConfiguredError,
    InvalidInputError,
    MalformedMessageError,
    ToolGuardError,
)
from toolguard.http.answers import respond, respond_in_protocol, send_empty
from toolguard.http.door import HTTPGuard
from toolguard.http.expiry import UntilExpiry, seconds_left
from toolguard.http.jsonrpc import HEADER_MISMATCH, HeldBody, MCPMessage, held_body, spelled_out
from toolguard.parsing.lookalikes import letters
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.operations import LISTEN, OperationCall, is_handshake
from toolguard.policies.policy import DEFAULT_POLICIES, Policy
from toolguard.policies.published import LISTS

__all__ = ["ProxyGuard", "check_spellings"]

_INVALID_PARAMS = -32602
_NUMBER = re.compile(r"-?[0-9]{1,300}(\.[0-9]{1,300})?")
_TASKS = "tasks/list"
_ALLOWED = (b"allow", b"POST, GET, DELETE")
# The maximum number of argument names compared with each other, for rules that read arguments.
_MAX_ARGUMENTS = 1_000


class ProxyGuard:
    """Decides on the messages to an MCP server by rules; runs inside a GuardMiddleware.

    Args:
        app: the server.
        guard: the guard, whose default applies where no rule does.
        rules: the policies by patterns of operation names.
    """

    def __init__(self, app: ASGIApp, guard: HTTPGuard, rules: PoliciesByName) -> None:
        self.app = app
        self.guard = guard
        self.rules = rules

    @property
    def admits_anonymous(self) -> bool:
        """Whether some operation behind this middleware is public."""
        return self.guard.default == "public" or any(each.public for each in self.rules.policies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        method = scope["method"] if scope["type"] == "http" else "GET"
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif method == "OPTIONS":
            await send_empty(send, 204, [_ALLOWED])
        elif method == "HEAD" or (
            method in ("GET", "DELETE")
            and not any(name == b"mcp-session-id" for name, _ in scope["headers"])
        ):
            # MCP: 405 means that the server offers no stream here, or does not end sessions.
            await send_empty(send, 405, [_ALLOWED])
        elif method in ("GET", "DELETE"):  # the session is the caller's
            await self.app(scope, _without_body(receive), send)
        else:
            await self._pass_on(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: RequestAuth = scope[SCOPE_KEY]
        table = MessageContext(state)
        refusal: ToolGuardError | None = None
        try:
            async with AsyncExitStack() as stack:
                try:
                    if scope["method"] != "POST":
                        raise MalformedMessageError("Send messages with POST")
                    headers = list(scope["headers"])
                    reading = held_body(receive, headers, self.guard.door.held)
                    body = await stack.enter_async_context(reading)
                    await self._decide_on(body, headers, table)
                except InvalidInputError as fault:  # elsewhere, the tool reports this fault
                    refusal = MalformedMessageError(str(fault), code=_INVALID_PARAMS)
                except ToolGuardError as error:
                    refusal = error
                state.message_id = table.request_id
                if refusal is not None:
                    await self._refuse(refusal, table, state, send)
                else:
                    state.permit()
                    replayed = body.replay(receive)
                    if table.method == LISTEN:
                        left = seconds_left(self.guard, state.principal)
                        await UntilExpiry(replayed, send, left).serve(self.app, scope)
                    else:
                        await self.app(scope, replayed, send)
        finally:
            if self.guard.recorder.wanted():
                self.guard.recorder.put(message_records(self.guard, table, refusal))

    async def _refuse(
        self, refusal: ToolGuardError, table: MessageContext, state: RequestAuth, send: Send
    ) -> None:
        state.refusal = refusal
        status = self.guard.door.refusals.status_of(refusal, state.revision)
        method, message_id = table.method, table.request_id
        if status is None and method and message_id is not None:
            await respond_in_protocol(send, refusal, method, message_id, revision=state.revision)
            return
        challenge = self.guard.challenge(refusal, state.revision)
        await respond(send, refusal, challenge, message_id=message_id)

    async def _decide_on(
        self, body: HeldBody, headers: list[tuple[bytes, bytes]], table: MessageContext
    ) -> None:
        """Decide on the message in a body; nothing of its parameters is kept.

        Raises:
            ToolGuardError: the refusal.
        """
        message = await body.parsed(headers)
        table.method, table.request_id = message.method, message.id
        await self._decide(message, table)
        for row in table.rows:
            row.call = replace(row.call, arguments={})
        body.count(len(body.content))

    async def _decide(self, message: MCPMessage, table: MessageContext) -> None:
        door = Frame(self.guard, table)
        default = DEFAULT_POLICIES[self.guard.default]
        if message.method in LISTS:  # open to all callers if some operation is public
            default = Policy(public=self.admits_anonymous)
        if message.method == _TASKS:
            default = None  # the server, which knows no callers, would list those of everybody
        if not message.asked and not is_handshake(message.method or ""):
            await door.enter(default, OperationCall("tool", "")).authorize(None)
        for call in message.asked:
            await anyio.lowlevel.checkpoint()  # computing the spellings of a name takes time
            policy = await self._policy(call, message, default)
            await door.enter(policy, call).authorize(call)

    async def _policy(
        self, call: OperationCall, message: MCPMessage, default: Policy | None
    ) -> Policy | None:
        names = await spelled_out(call)
        try:
            policy = self.rules.policy_of_all(call.kind, names, default)
        except ValueError as error:
            raise GuardNotConfiguredError(str(error)) from None
        if policy is not None and policy.reads_arguments:
            arguments = message.params.get("arguments")
            check_spellings(arguments, policy.arguments)
            _check_mirrored(message.mirrored, arguments, policy.arguments)
        return policy


def check_spellings(arguments: object, read: tuple[str, ...]) -> None:
    """Refuse arguments that a lenient server could take for other ones than the rule reads.

    Raises:
        InvalidInputError: if two names of an object resemble each other, or one resembles an
            argument that the rule reads; and if there are too many to tell.
    """
    expected = {letters(name): name for name in read}
    count = 0
    for depth, member in enumerate(_objects(arguments)):
        known = dict(expected) if depth == 0 else {}
        count += len(member)
        if count > _MAX_ARGUMENTS:
            raise InvalidInputError(f"Send at most {_MAX_ARGUMENTS} arguments to this operation")
        for name in member:
            if known.setdefault(letters(name), name) != name:
                raise InvalidInputError("Send no two names of arguments that resemble each other")


def _check_mirrored(
    mirrored: Mapping[str, str | None], arguments: object, read: tuple[str, ...]
) -> None:
    """Refuse headers in which a lenient server could find other arguments than the rule reads.

    Which argument a header repeats is known to the server. Here, it is every one with such a name,
    or else those that the rule reads.

    Raises:
        MalformedMessageError: if a header does not repeat an argument.
    """
    values: dict[str, list[object]] = {}
    for member in _objects(arguments) if mirrored else ():
        for name, value in member.items():
            values.setdefault(letters(name), []).append(value)
    expected = [value for name in read for value in values.get(letters(name), ())]
    for header, text in mirrored.items():
        repeated = values.get(letters(header), expected)
        if text is None or not repeated or any(not _is_written(v, text) for v in repeated):
            raise MalformedMessageError(
                f"The header Mcp-Param-{header} must be the argument in the body",
                code=HEADER_MISMATCH,
            )


def _is_written(value: object, text: str) -> bool:
    """Return whether a header that repeats an argument may have this text."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return text == (str(value).lower() if isinstance(value, bool) else value)
    if _NUMBER.fullmatch(text) is None:
        return False
    return value == (Decimal(text) if isinstance(value, int) else float(text))


def _objects(value: object) -> Iterator[Mapping[str, object]]:
    """Yield the JSON objects in a value, the outermost first."""
    todo = [value]
    for each in todo:  # the list grows during the loop
        if isinstance(each, dict):
            yield each
            todo += each.values()
        elif isinstance(each, list):
            todo += each


def _without_body(receive: Receive) -> Receive:
    """Return a ``receive`` without the body, on which no decision was made."""
    begun = False

    async def without() -> Message:
        nonlocal begun
        if not begun:
            begun = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message

    return without
