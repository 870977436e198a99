"""The adapter for ``FastMCP`` of fastmcp 3.x (on mcp 1.x)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastmcp.server.tasks import TaskMeta
from fastmcp.server.tasks.context import get_task_context
from mcp import types
from mcp.shared.exceptions import McpError

from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.background import TaskLine
from toolguard.frameworks.fastmcp_server import FastMCPAdapter
from toolguard.frameworks.mcp1 import wrap_handlers
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.frameworks.server_guard import ServerGuard

__all__ = ["adapter"]


def adapter(server: FastMCPServer) -> Adapter:
    """Return the adapter for a ``fastmcp.FastMCP`` of line 3.x."""
    return FastMCPAdapter(server, _guard_messages, _unknown, _TASKS)


def _guard_messages(served: FastMCPAdapter, guard: ServerGuard) -> None:
    wrap_handlers(internals.lowlevel_server(served.server), served, guard)


def _unknown(message: str) -> Exception:
    return McpError(types.ErrorData(code=types.INVALID_PARAMS, message=message))


def _running() -> str | None:
    context = get_task_context()
    return None if context is None else context.task_id


def _asked_for(args: tuple[Any, ...]) -> bool:
    return any(isinstance(each, TaskMeta) for each in args)


def _id_of(result: Any) -> str | None:
    return result.task.taskId if isinstance(result, types.CreateTaskResult) else None


def _validated(component: Any, arguments: dict[str, Any]) -> Mapping[str, Any]:
    validated: dict[str, Any] = component.coerce_task_arguments(arguments)
    return validated


_TASKS = TaskLine(_running, _asked_for, _id_of, _validated)
