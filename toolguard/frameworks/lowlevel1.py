"""The low-level ``mcp.server.Server``, line 1.x: a public table of handlers.

No code runs between the table and a handler, so the handler gets the name that the message has.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mcp import types
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError
from starlette.applications import Starlette

from toolguard.errors import ToolGuardError
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.apps import guard_endpoints, session_app
from toolguard.frameworks.lowlevel import PROTECTED_WITHIN, LowLevelAdapter
from toolguard.frameworks.mcp1 import GuardedHandlers, wrap_handlers
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.task_owners import TaskOwners
from toolguard.policies.operations import Kind

__all__ = ["adapter"]

_LISTS: dict[str, type[Any]] = {
    "tools/list": types.ListToolsRequest,
    "resources/list": types.ListResourcesRequest,
    "resources/templates/list": types.ListResourceTemplatesRequest,
    "prompts/list": types.ListPromptsRequest,
}


class _Server(LowLevelAdapter):
    server: Server[Any, Any]
    decides_by_name = True

    def install(self, guard: ServerGuard) -> None:
        if self.is_intact():
            raise ValueError(PROTECTED_WITHIN)
        wrap_handlers(self.server, self, guard, TaskOwners())

    def is_intact(self) -> bool:
        return isinstance(self.server.request_handlers, GuardedHandlers)

    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> BaseException:
        del nested  # the server calls only its handlers
        return refusal

    def unknown(self, kind: Kind, name: str) -> Exception:
        error = types.ErrorData(code=types.INVALID_PARAMS, message=f"Unknown {kind}: {name}")
        return McpError(error)

    def lists(self, method: str) -> bool:
        return _LISTS[method] in self.server.request_handlers

    async def ask(self, method: str, cursor: str | None) -> dict[str, Any]:
        kind, handlers = _LISTS[method], self.server.request_handlers
        handler = (
            handlers.handler(kind) if isinstance(handlers, GuardedHandlers) else handlers[kind]
        )
        params = None if cursor is None else types.PaginatedRequestParams(cursor=cursor)
        result = await handler(kind(method=method, params=params))
        page: dict[str, Any] = result.root.model_dump(by_alias=True, mode="json")
        return page

    async def ask_all(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        for method in filter(self.lists, _LISTS):
            async for page in self.pages(method):
                yield method, page

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        manager = StreamableHTTPSessionManager(
            self.server, json_response=json_response, stateless=True
        )
        app = session_app(manager, "/mcp")
        if self.guard is not None:
            guard_endpoints(app, self.guard, ["/mcp"], self)
        return app


def adapter(server: Server[Any, Any]) -> Adapter:
    """Return the adapter for a low-level server of 1.x."""
    return _Server(server)
