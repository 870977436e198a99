"""How does toolguard meet FastMCP of fastmcp, line 3.x (on mcp 1.x)?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolguard.integrations.adapter import Adapter
from toolguard.integrations.fastmcp_server import FastMCPAdapter, refusal_error
from toolguard.integrations.mcp1 import guard_messages

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter"]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 3.x."""
    return FastMCPAdapter(server, _guard_messages)


def _guard_messages(fastmcp: FastMCPAdapter, guard: ToolGuard) -> None:
    async def undeclared(method: str, params: Any) -> bool:
        return await fastmcp.undeclared(method, getattr(params, "name", None))

    guard_messages(fastmcp.server._mcp_server, guard, undeclared, refusal_error)
