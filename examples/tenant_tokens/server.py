"""A server whose tool writes into the Slack workspace of the caller's tenant, on fastmcp.

The workspace was connected once, for everybody in the tenant. See README.md for how to run it.
"""

from __future__ import annotations

import os

import httpx
from fastmcp import FastMCP

from toolguard import Connection, Refusals, ToolGuard, requires_scopes, with_connection

SLACK = os.environ.get("SLACK_API_URL", "https://slack.com")

mcp = FastMCP("workspace")


@mcp.tool
@requires_scopes("workspace:write")
@with_connection("slack-workspace", scopes=["chat:write"], tenant=True, as_="workspace")
async def post_message(channel: str, text: str, *, user_id: str, workspace: Connection) -> str:
    """Post a message into a channel of your workspace."""
    message = {"channel": channel, "text": f"{text} ({user_id})"}
    async with httpx.AsyncClient(base_url=SLACK, auth=workspace.auth) as client:
        answer = await client.post("/api/chat.postMessage", json=message)
    answer.raise_for_status()
    said = answer.json()
    if not said["ok"]:
        raise ValueError(f"Slack says: {said['error']}")
    return str(said["ts"])


ToolGuard.from_env(
    # The vault gives connections only to tokens with this scope: clients ask for it at once, and
    # keep it when they step up, also those that replace their scopes.
    refusals=Refusals(
        initial_scopes=["workspace:write", "outbound.token.fetch"], challenge_scopes="combined"
    ),
).protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="http")  # http://127.0.0.1:8000/mcp
