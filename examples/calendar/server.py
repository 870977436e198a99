"""A guarded calendar server on ``MCPServer`` (mcp 2.x).

What a tool asks of its caller stands above it; whose calendar it is comes injected. See README.md
for how to run it.
"""

from __future__ import annotations

from typing import Annotated, Any

from google_calendar import EVENTS, ask
from mcp.server.mcpserver import MCPServer
from pydantic import Field

from toolguard import Connection, Refusals, ToolGuard, requires_scopes, with_connection

CALENDAR = "https://www.googleapis.com/auth/calendar"
# It becomes part of a URL: "../.." must not.
EventId = Annotated[str, Field(pattern="^[a-v0-9]{5,1024}$")]

mcp = MCPServer("calendar")


@mcp.tool()
@requires_scopes("mcp:calendar.readonly")
@with_connection("google-calendar", as_="calendar")
async def list_calendar_events(
    time_min: str, time_max: str, *, calendar: Connection
) -> list[dict[str, Any]]:
    """List the events between two times (RFC 3339)."""
    asked = {"timeMin": time_min, "timeMax": time_max}
    answer = await ask(calendar, "GET", EVENTS, params=asked)
    events: list[dict[str, Any]] = answer["items"]
    return events


@mcp.tool()
@requires_scopes("mcp:calendar.readonly")
@with_connection("google-calendar", as_="calendar")
async def query_availability(
    time_min: str, time_max: str, *, calendar: Connection
) -> list[dict[str, str]]:
    """List when the calendar is busy between two times (RFC 3339)."""
    asked = {"timeMin": time_min, "timeMax": time_max, "items": [{"id": "primary"}]}
    answer = await ask(calendar, "POST", "/calendar/v3/freeBusy", json=asked)
    busy: list[dict[str, str]] = answer["calendars"]["primary"]["busy"]
    return busy


@mcp.tool()
@requires_scopes("mcp:calendar.write")
@with_connection("google-calendar", scopes=[CALENDAR], as_="calendar")
async def create_calendar_event(
    title: str, start: str, end: str, *, user_id: str, calendar: Connection
) -> dict[str, Any]:
    """Create an event from ``start`` to ``end`` (RFC 3339)."""
    event = {
        "summary": title,
        "start": {"dateTime": start},
        "end": {"dateTime": end},
        "extendedProperties": {"private": {"createdBy": user_id}},
    }
    made: dict[str, Any] = await ask(calendar, "POST", EVENTS, json=event)
    return made


@mcp.tool()
@requires_scopes("mcp:calendar.write")
@with_connection("google-calendar", scopes=[CALENDAR], as_="calendar")
async def delete_calendar_event(event_id: EventId, *, calendar: Connection) -> str:
    """Delete an event."""
    await ask(calendar, "DELETE", f"{EVENTS}/{event_id}")
    return "deleted"


ToolGuard.from_env(
    # The write scope includes the read scope.
    scope_hierarchy={"mcp:calendar.write": ["mcp:calendar.readonly"]},
    # The vault gives connections only to tokens with this scope: clients ask for it at once, and
    # keep it when they step up, also those that replace their scopes.
    refusals=Refusals(
        initial_scopes=["mcp:calendar.readonly", "outbound.token.fetch"],
        challenge_scopes="combined",
    ),
).protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="streamable-http")  # http://127.0.0.1:8000/mcp
