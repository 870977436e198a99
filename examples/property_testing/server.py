"""A calendar whose guards have two mistakes, on ``MCPServer`` (mcp 2.x).

``test_server.py`` finds both; ``CORRECTED=1`` in the environment puts them right. See README.md.
"""

from __future__ import annotations

import os

from mcp.server.mcpserver import MCPServer

from toolguard import ToolGuard, all_of, any_of, requires_scopes

CORRECTED = os.environ.get("CORRECTED") == "1"

mcp = MCPServer("calendar")


@mcp.tool()
@requires_scopes("calendar.read")
def list_events(day: str = "today") -> list[str]:
    """List the events of a day."""
    return [f"nothing on {day}"]


@mcp.tool()
@requires_scopes("calendar.write")
def delete_event(event_id: str = "1") -> str:
    """Delete an event."""
    return f"deleted {event_id}"


# Mistake 1: who shares an event reads the contacts, too. "or" should be "and".
SHARE = all_of if CORRECTED else any_of


@mcp.tool()
@requires_scopes(SHARE("calendar.write", "contacts.read"))
def share_event(event_id: str = "1", contact: str = "bob") -> str:
    """Share an event with somebody from your contacts."""
    return f"shared {event_id} with {contact}"


# Mistake 2: who may write may read, and not the other way round.
INCLUDES = (
    {"calendar.write": ["calendar.read"]} if CORRECTED else {"calendar.read": ["calendar.write"]}
)

ToolGuard(
    issuer="https://auth.example.com",
    audience="https://mcp.example.com/mcp",
    scope_hierarchy=INCLUDES,
).protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="streamable-http")
