"""How does toolguard meet FastMCP of fastmcp, line 4.x (on mcp 2.x)?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolguard.integrations.adapter import Adapter
from toolguard.integrations.fastmcp_server import FastMCPAdapter, refusal_error
from toolguard.integrations.mcp2 import message_guard

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter"]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 4.x."""
    return FastMCPAdapter(server, _guard_messages)


def _guard_messages(fastmcp: FastMCPAdapter, guard: ToolGuard) -> None:
    async def undeclared(method: str, params: Mapping[str, Any]) -> bool:
        return await fastmcp.undeclared(method, params.get("name"))

    middleware = message_guard(guard, undeclared, refusal_error)
    fastmcp.server._mcp_server.middleware.insert(0, middleware)
