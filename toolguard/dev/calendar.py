"""A guarded calendar server, on the installed framework.

The demo serves it; ``examples/calendar/`` has stand-alone versions to copy. The tools contain no
auth code: requirements are declared by decorators, and the caller's connection is injected.
"""

from __future__ import annotations

from typing import Annotated, Any

import httpx
from pydantic import Field

from toolguard.connections import Connection
from toolguard.decorators.approval import requires_approval
from toolguard.decorators.requires import requires_scopes, with_connection
from toolguard.errors import ConnectionRequiredError
from toolguard.frameworks import sdk_server_class

__all__ = ["SCOPE_HIERARCHY", "calendar_server"]

SCOPE_HIERARCHY = {"mcp:calendar.write": ["mcp:calendar.readonly"]}
"""The write scope includes the read scope."""

_READ = "mcp:calendar.readonly"
_WRITE = "mcp:calendar.write"
_CALENDAR = "https://www.googleapis.com/auth/calendar"
_EVENTS = "/calendar/v3/calendars/primary/events"
# It becomes part of a URL: "../.." must not.
_EventId = Annotated[str, Field(pattern="^[a-v0-9]{5,1024}$")]


def calendar_server(google_url: str) -> Any:
    """Return an MCP server with four calendar tools, not yet protected.

    Args:
        google_url: the origin of the calendar API, such as ``https://www.googleapis.com``.
    """
    mcp = sdk_server_class()("calendar")
    tools = _CalendarTools(google_url)
    for tool in (
        tools.list_calendar_events,
        tools.query_availability,
        tools.create_calendar_event,
        tools.delete_calendar_event,
    ):
        mcp.tool()(tool)
    return mcp


class _CalendarTools:
    """The tools over one calendar API."""

    def __init__(self, google_url: str) -> None:
        self._url = google_url

    @requires_scopes(_READ)
    @with_connection("google-calendar", as_="calendar")
    async def list_calendar_events(
        self, time_min: str, time_max: str, *, calendar: Connection
    ) -> list[dict[str, Any]]:
        """List the events between two times (RFC 3339)."""
        asked = {"timeMin": time_min, "timeMax": time_max}
        answer = await self._ask(calendar, "GET", _EVENTS, params=asked)
        return [_event(item) for item in answer["items"]]

    @requires_scopes(_READ)
    @with_connection("google-calendar", as_="calendar")
    async def query_availability(
        self, time_min: str, time_max: str, *, calendar: Connection
    ) -> list[dict[str, str]]:
        """List when the calendar is busy between two times (RFC 3339)."""
        asked = {"timeMin": time_min, "timeMax": time_max, "items": [{"id": "primary"}]}
        answer = await self._ask(calendar, "POST", "/calendar/v3/freeBusy", json=asked)
        busy: list[dict[str, str]] = answer["calendars"]["primary"]["busy"]
        return busy

    @requires_scopes(_WRITE)
    @with_connection("google-calendar", scopes=[_CALENDAR], as_="calendar")
    async def create_calendar_event(
        self, title: str, start: str, end: str, *, user_id: str, calendar: Connection
    ) -> dict[str, Any]:
        """Create an event from ``start`` to ``end`` (RFC 3339)."""
        event = {
            "summary": title,
            "start": {"dateTime": start},
            "end": {"dateTime": end},
            "extendedProperties": {"private": {"createdBy": user_id}},
        }
        return _event(await self._ask(calendar, "POST", _EVENTS, json=event))

    @requires_scopes(_WRITE)
    @requires_approval(summary="Delete the event {event_id}")
    @with_connection("google-calendar", scopes=[_CALENDAR], as_="calendar")
    async def delete_calendar_event(self, event_id: _EventId, *, calendar: Connection) -> str:
        """Delete an event."""
        await self._ask(calendar, "DELETE", f"{_EVENTS}/{event_id}")
        return "deleted"

    async def _ask(self, calendar: Connection, method: str, path: str, **content: Any) -> Any:
        """Return the JSON that Google answers; None if it is empty.

        Raises:
            ConnectionRequiredError: if the user has taken the access back at Google: after a
                401, ``auth`` has asked the vault for a fresh token in vain.
            httpx.HTTPStatusError: for any other refusal.
        """
        async with httpx.AsyncClient(
            base_url=self._url, auth=calendar.auth, trust_env=False
        ) as client:
            response = await client.request(method, path, **content)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConnectionRequiredError(
                "Google no longer accepts this connection: connect google-calendar again",
                connection="google-calendar",
            )
        response.raise_for_status()
        return response.json() if response.content else None


def _event(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": item["id"],
        "title": item.get("summary", ""),
        "start": item["start"],
        "end": item["end"],
    }
