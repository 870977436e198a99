"""What does the server under test offer? A small calendar, the same on every line."""

from __future__ import annotations

from typing import Any

from support.lines import Line, Server
from toolguard import (
    Connection,
    ConnectionRequest,
    Principal,
    requires_auth,
    requires_scopes,
    with_connection,
)

__all__ = ["calendar", "connect"]


def calendar(line: Line, **settings: Any) -> Server:
    """Return a server of ``line`` with the calendar's tools, not yet protected."""
    server = line.server("calendar", **settings)

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        return user_id

    @server.tool()
    @requires_scopes("calendar.read")
    def list_events(day: str, *, user_id: str) -> str:
        return f"{day} of {user_id}"

    @server.tool()
    @requires_scopes("calendar.write")
    @requires_scopes("calendar.read", "contacts.read")
    @with_connection("google-calendar")
    async def create_event(title: str, *, user_id: str, connection_token: str) -> str:
        return f"{title} by {user_id} with {connection_token}"

    @server.tool()
    @requires_scopes("calendar.read")
    async def describe(note: str = "none", *, caller: Principal) -> str:
        return f"{note}: {caller.user_id} via {caller.client_id}"

    @server.tool()
    async def weather(city: str) -> str:
        return f"fine in {city}"

    @server.resource("calendar://today")
    def today() -> str:
        return "an empty day"

    @server.prompt()
    def plan() -> str:
        return "plan the week"

    return server


async def connect(request: ConnectionRequest) -> Connection:
    """Provide everybody's connections: a token that says whose it is and for what."""
    return Connection(f"{request.name} token of {request.principal.user_id}")
