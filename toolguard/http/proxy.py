"""Who may send which message to an MCP server that is only known by its HTTP endpoint?

It may be written in any language, so nothing is known of it but the protocol. The message is read
before the server gets it, decided on, and handed on byte by byte as it was read.
"""

from __future__ import annotations

import json

import anyio.lowlevel

from toolguard.calls.message import Frame
from toolguard.calls.message import Message as Table
from toolguard.calls.request import SCOPE_KEY, Guard, RequestAuth
from toolguard.errors import (
    GuardNotConfiguredError,
    InvalidInputError,
    MalformedMessageError,
    ToolGuardError,
)
from toolguard.http.jsonrpc import MCPMessage, names_of, read_body, read_message, replay
from toolguard.http.middleware import ASGIApp, Message, Receive, Scope, Send
from toolguard.policies.by_name import OperationRules
from toolguard.policies.operations import Asked, Invocation, is_handshake
from toolguard.policies.policy import DEFAULT_POLICIES, Policy

__all__ = ["MessageGuard"]

# MCP, streamable HTTP: messages come by POST; the others open a stream and end a session.
_WITHOUT_MESSAGE = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class MessageGuard:
    """Holds the messages to an MCP server against rules; stands inside of a GuardMiddleware.

    Args:
        app: the server.
        guard: what decides where no rule does.
        rules: who may do what.
    """

    def __init__(self, app: ASGIApp, guard: Guard, rules: OperationRules) -> None:
        self.app = app
        self.guard = guard
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] in _WITHOUT_MESSAGE:
            await self.app(scope, _without_body(receive), send)
            return
        state: RequestAuth = scope[SCOPE_KEY]
        try:
            body = await self._admit(scope, receive, state)
        except ToolGuardError as refusal:
            # The middleware around this one makes the answer of it.
            state.refusal = refusal
            if isinstance(refusal, InvalidInputError):  # which is a tool's to report, elsewhere
                state.refusal = MalformedMessageError(str(refusal))
            await _end(send)
            return
        await self.app(scope, replay(body, receive), send)

    async def _admit(self, scope: Scope, receive: Receive, state: RequestAuth) -> bytes:
        if scope["method"] != "POST":
            raise MalformedMessageError("Send messages with POST")
        headers = list(scope["headers"])
        body = await read_body(receive, headers=headers)
        await self._decide(read_message(body, headers), state)
        return body

    async def _decide(self, message: MCPMessage, state: RequestAuth) -> None:
        door = Frame(self.guard, Table(state))
        default = DEFAULT_POLICIES[self.guard.default]
        if not message.asked and not is_handshake(message.method or ""):
            await door.enter(default, Invocation("tool", "")).authorize(None)
        for asked in message.asked:
            await anyio.lowlevel.checkpoint()  # spelling a name out takes its time
            call = Invocation.sent(*asked, message.params.get("arguments"))
            await door.enter(self._policy(asked, default), call).authorize(call)

    def _policy(self, asked: Asked, default: Policy | None) -> Policy | None:
        try:
            return self.rules.policy_of_all(asked.kind, names_of(asked), default)
        except ValueError as error:
            raise GuardNotConfiguredError(str(error)) from None


def _without_body(receive: Receive) -> Receive:
    """Return a ``receive`` that keeps back a body that nobody has decided on."""
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


async def _end(send: Send) -> None:
    body = json.dumps({"error": "refused"}).encode()
    await send({"type": "http.response.start", "status": 403, "headers": []})
    await send({"type": "http.response.body", "body": body})
