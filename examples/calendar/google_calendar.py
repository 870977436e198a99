"""How is the calendar asked, once there is a connection?

Plain HTTP, no authorization: whose connection it is was decided before.
"""

from __future__ import annotations

import os
from typing import Any

import httpx

from toolguard import Connection, ConnectionRequiredError

__all__ = ["EVENTS", "ask"]

EVENTS = "/calendar/v3/calendars/primary/events"

_URL = os.environ.get("GOOGLE_API_URL", "https://www.googleapis.com")


async def ask(calendar: Connection, method: str, path: str, **content: Any) -> Any:
    """Return the JSON that Google answers to one user's connection; None if it is empty.

    Raises:
        ConnectionRequiredError: if the user has taken the access back at Google: after a 401,
            ``auth`` has asked the vault for a fresh token in vain.
        httpx.HTTPStatusError: for any other refusal.
    """
    async with httpx.AsyncClient(base_url=_URL, auth=calendar.auth) as client:
        response = await client.request(method, path, **content)
    if response.status_code == httpx.codes.UNAUTHORIZED:
        raise ConnectionRequiredError(
            "Google no longer accepts this connection: connect google-calendar again",
            connection="google-calendar",
        )
    response.raise_for_status()
    return response.json() if response.content else None
