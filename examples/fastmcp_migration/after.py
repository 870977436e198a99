"""The same server with toolguard: the provider goes, and the tools say what they need."""

from __future__ import annotations

from fastmcp import FastMCP

from toolguard import ToolGuard, requires_scopes

mcp = FastMCP("notes")


@mcp.tool
@requires_scopes("notes.read")
async def list_notes(*, user_id: str) -> list[str]:
    """List your notes."""
    return [f"a note of {user_id}"]


@mcp.tool
@requires_scopes("notes.write")
async def add_note(text: str) -> str:
    """Add a note."""
    return text


ToolGuard.from_env().protect(mcp)  # TOOLGUARD_ISSUER and MCP_SERVER_URL; keys are discovered

if __name__ == "__main__":
    mcp.run(transport="http")
