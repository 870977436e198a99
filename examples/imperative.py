"""A server in the imperative style of Descope's SDK, on ``MCPServer`` (mcp 2.x).

For who moves over from it one step at a time: ``@requires_scopes("calendar.{calendar}.read")`` and
``@with_connection("google-calendar")`` say the same in two lines. Settings come from
DESCOPE_MCP_WELL_KNOWN_URL and MCP_SERVER_URL.
"""

from __future__ import annotations

import os
from typing import Literal

import httpx
from mcp.server.mcpserver import MCPServer

from toolguard import requires_auth
from toolguard.descope import (
    current_access_token,
    get_connection_token,
    init_descope_mcp,
    validate_token_require_scopes_and_get_user_id,
)

GOOGLE = os.environ.get("GOOGLE_API_URL", "https://www.googleapis.com")

descope = init_descope_mcp()
mcp = MCPServer("calendars")


@mcp.tool()
@requires_auth
def list_events(calendar: Literal["work", "private"]) -> list[str]:
    """List the events of one of your calendars."""
    # The token of this message. It is no parameter: the model would see it, and choose it.
    token = current_access_token()
    # A refusal is raised, not returned: the client gets a real 403, and can step up.
    user_id = validate_token_require_scopes_and_get_user_id(token, [f"calendar.{calendar}.read"])
    google = get_connection_token(user_id, "google-calendar", access_token=token)
    answer = httpx.get(
        f"{GOOGLE}/calendar/v3/calendars/{calendar}/events",
        headers={"Authorization": f"Bearer {google}"},
    )
    answer.raise_for_status()
    return [event["summary"] for event in answer.json()["items"]]


descope.guard().protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="streamable-http")  # http://127.0.0.1:8000/mcp
