"""The line 4.x of ``FastMCP`` of fastmcp (on mcp 2.x)."""

from __future__ import annotations

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.fastmcp_server import FastMCPAdapter
from toolguard.frameworks.mcp2 import message_guard
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.server_guard import ServerGuard

__all__ = ["adapter"]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 4.x."""
    return FastMCPAdapter(server, _guard_messages, _unknown)


def _guard_messages(served: FastMCPAdapter, guard: ServerGuard) -> None:
    lowlevel = internals.lowlevel_server(served.server)
    lowlevel.middleware = Outermost(lowlevel.middleware, message_guard(served, guard))


def _unknown(message: str) -> Exception:
    return MCPError(code=INVALID_PARAMS, message=message)
