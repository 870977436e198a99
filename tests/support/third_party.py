"""What stands behind a connection: an API that takes some tokens, and a call that asks it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from support.callers import TOKEN, Desk, person
from toolguard.calls.message import Frame, MessageContext, as_current
from toolguard.calls.request import RequestAuth
from toolguard.connections import Connection
from toolguard.errors import ConnectionRequiredError
from toolguard.testing import ScriptedConnections

__all__ = ["API", "called", "numbered"]


def numbered(*, token_type: str = "bearer", missing_after: int = 3) -> ScriptedConnections:
    """Return connections that are new each time they are asked for, until there are no more."""
    vault = ScriptedConnections()
    for name in ("calendar", "crm"):
        given = [Connection(f"token-{n + 1}", token_type=token_type) for n in range(missing_after)]
        missing = ConnectionRequiredError("Connect it again", connection=name)
        vault.answer(name, *given, missing)
    return vault


class API:
    """A third-party API that takes some tokens, and remembers what it was shown."""

    def __init__(self, *good: str) -> None:
        self._good = {f"Bearer {token}" for token in good}
        self.shown: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        shown = request.headers["authorization"]
        self.shown.append(shown)
        return httpx.Response(200 if shown in self._good else 401)

    async def get(self, connection: Connection) -> int:
        transport = httpx.MockTransport(self)
        async with httpx.AsyncClient(transport=transport, auth=connection.auth) as client:
            return (await client.get("https://api.example/events")).status_code

    def get_in_thread(self, connection: Connection) -> int:
        with httpx.Client(transport=httpx.MockTransport(self), auth=connection.auth) as client:
            return client.get("https://api.example/events").status_code


def called(
    tool: Callable[..., Awaitable[Any]], vault: Any, *, desk: Desk | None = None, **facts: Any
) -> Any:
    async def call() -> Any:
        guard = desk or Desk(connections=vault)
        message = MessageContext(RequestAuth(TOKEN, person(**facts), guard))
        with as_current(Frame(guard, message)):
            result = await tool()
        message.closed = True
        return result

    return asyncio.run(call())
