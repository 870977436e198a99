"""A guarded MCP server inside a FastAPI application, on fastmcp.

Run it: ``uvicorn fastapi_mount:app`` with TOOLGUARD_ISSUER, and MCP_SERVER_URL with the prefix of
the mount: ``http://127.0.0.1:8000/notes/mcp``. ``/health`` stays open.
"""

from __future__ import annotations

from fastapi import FastAPI
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
async def add_note(text: str, *, user_id: str) -> str:
    """Add a note."""
    return f"{user_id} wrote {text!r}"


guard = ToolGuard.from_env()
guard.protect(mcp)

notes = mcp.http_app(path="/mcp")
app = FastAPI(lifespan=notes.lifespan)  # without it the mounted server does not start
app.mount("/notes", notes)
app.routes.append(guard.metadata_route())  # RFC 9728 has it at the root of the host


@app.get("/health")
async def health() -> dict[str, bool]:
    """Answer without a token: the guard is in front of the MCP server only."""
    return {"ok": True}
