"""The server of ``examples/deploy``, with a tool that lets a test see when events arrive."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer

from toolguard import requires_scopes

__all__ = ["app"]

_example: Any = importlib.import_module("server")
app = _example.app
mcp: MCPServer = _example.mcp


@mcp.tool()
@requires_scopes("notes.read")
async def wait_for(path: str, ctx: Context) -> str:
    """Report progress, and return once there is a file at ``path``."""
    await ctx.report_progress(1, 2)
    while not await anyio.Path(path).exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)
    return Path(path).name


@mcp.tool()
@requires_scopes("notes.write")
async def write_note(name: str, *, user_id: str) -> str:
    """Write one note."""
    return f"{name} of {user_id}"
