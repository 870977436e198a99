"""End a stream of events with the token that opened it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

from toolguard.calls.request import Guard
from toolguard.principal import Principal

__all__ = ["UntilExpiry", "seconds_left"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


def seconds_left(guard: Guard, principal: Principal | None) -> float:
    """Return the time until the caller's token expires; endless for a caller without a token."""
    if principal is None:
        return math.inf
    return principal.expires_at + guard.leeway - guard.clock()


class UntilExpiry:
    """A connection that the application sees as closed by the client when the token expires.

    Args:
        receive: the ASGI ``receive``.
        send: the ASGI ``send``.
        seconds: the time until then.
    """

    def __init__(self, receive: Receive, send: Send, seconds: float) -> None:
        self._receive = receive
        self._send = send
        self._deadline = anyio.current_time() + seconds
        self._is_open = False

    async def serve(self, app: ASGIApp, scope: Scope) -> None:
        """Have ``app`` serve the request, until the token expires."""
        try:
            await app(scope, self._received, self._sent)
        except OSError:
            if not self._has_expired:
                raise
        if self._has_expired and self._is_open:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    @property
    def _has_expired(self) -> bool:
        return anyio.current_time() >= self._deadline

    async def _received(self) -> Message:
        with anyio.CancelScope(deadline=self._deadline):
            return await self._receive()
        return {"type": "http.disconnect"}

    async def _sent(self, message: Message) -> None:
        if self._has_expired and self._is_open:
            raise OSError("The stream has ended: its access token has expired")
        self._is_open = message["type"] != "http.response.body" or message.get("more_body", False)
        await self._send(message)
