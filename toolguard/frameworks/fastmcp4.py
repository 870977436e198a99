"""The adapter for ``FastMCP`` of fastmcp 4.x (on mcp 2.x)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS

from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.background import TaskLine
from toolguard.frameworks.fastmcp_server import FastMCPAdapter
from toolguard.frameworks.mcp2 import guard_middleware
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.frameworks.server_guard import ServerGuard

__all__ = ["adapter"]


def adapter(server: FastMCPServer) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 4.x."""
    return FastMCPAdapter(server, _guard_messages, _unknown, _TASKS)


def _guard_messages(served: FastMCPAdapter, guard: ServerGuard) -> None:
    lowlevel = internals.lowlevel_server(served.server)
    lowlevel.middleware = Outermost(lowlevel.middleware, guard_middleware(served, guard))


def _unknown(message: str) -> Exception:
    return MCPError(code=INVALID_PARAMS, message=message)


# The package ``fastmcp-tasks`` is installed if a task is queued or run.
def _running() -> str | None:
    context = importlib.import_module("fastmcp_tasks.context").get_task_context()
    return None if context is None else context.task_id


def _id_of(result: Any) -> str | None:
    found: str | None = getattr(result, "task_id", None)
    return found


def _validated(component: Any, arguments: dict[str, Any]) -> Mapping[str, Any]:
    components = importlib.import_module("fastmcp_tasks.components")
    validated: dict[str, Any] = components.coerce_task_arguments(component, arguments)
    return validated


# Tasks are queued by an extension, instead of the entry of a component.
_TASKS = TaskLine(_running, None, _id_of, _validated)
