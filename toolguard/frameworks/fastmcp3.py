"""The line 3.x of ``FastMCP`` of fastmcp (on mcp 1.x)."""

from __future__ import annotations

from typing import Any

from mcp import types
from mcp.shared.exceptions import McpError

from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.fastmcp_server import FastMCPAdapter
from toolguard.frameworks.mcp1 import guard_messages
from toolguard.frameworks.server_guard import ServerGuard

__all__ = ["adapter"]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 3.x."""
    return FastMCPAdapter(server, _guard_messages, _unknown)


def _guard_messages(served: FastMCPAdapter, guard: ServerGuard) -> None:
    guard_messages(internals.lowlevel_server(served.server), served, guard)


def _unknown(message: str) -> Exception:
    return McpError(types.ErrorData(code=types.INVALID_PARAMS, message=message))
