"""How does toolguard meet FastMCP of the official SDK, line 1.x?

The low-level server sets ``request_ctx`` for each message; its ``request`` is the request that
carried *this* message. The context variables of the auth middleware hold the one that opened
the session, and are not used.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from mcp import types
from mcp.server.fastmcp.exceptions import ToolError
from mcp.server.fastmcp.server import StreamableHTTPASGIApp
from mcp.server.lowlevel.server import Server, request_ctx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError, UrlElicitationRequiredError
from starlette.applications import Starlette
from starlette.routing import Route

from toolguard.errors import ConnectionRequiredError, ToolGuardError
from toolguard.integrations.adapter import Adapter, Operation, guarded_message
from toolguard.integrations.apps import guard_builder, guard_endpoints

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter", "guard_messages"]

Handler = Callable[[Any], Awaitable[Any]]
Undeclared = Callable[[str, Any], Awaitable[bool]]
RefuseWith = Callable[[ToolGuardError], Exception]


class _FastMCP(Adapter):
    def operations(self) -> Iterator[Operation]:
        for tool in self.server._tool_manager.list_tools():
            yield Operation(tool.name, tool.fn)

    def size(self) -> int:
        return len(self.server._tool_manager._tools)

    def install(self, guard: ToolGuard) -> None:
        self.claim(guard)
        self.prepare()
        settings = self.server.settings

        def streamable(*_: Any) -> Collection[str]:
            return [settings.streamable_http_path]

        def sse(*_: Any) -> Collection[str]:
            return [settings.sse_path, settings.message_path]

        guard_builder(self, guard, "streamable_http_app", streamable)
        guard_builder(self, guard, "sse_app", sse)
        self.over_stdio(guard)

    def prepare(self) -> None:
        super().prepare()
        if self.guard is not None:  # handlers may have been added since
            guard_messages(self.server._mcp_server, self.guard, self._undeclared, _refusal_error)

    def stateless_app(self) -> Starlette:
        manager = StreamableHTTPSessionManager(
            self.server._mcp_server, json_response=True, stateless=True
        )
        endpoint = Route("/mcp", StreamableHTTPASGIApp(manager))
        app = Starlette(routes=[endpoint], lifespan=lambda _: manager.run())
        if self.guard is not None:
            guard_endpoints(app, self.guard, ["/mcp"])
        return app

    async def _undeclared(self, method: str, params: Any) -> bool:
        tool = self.server._tool_manager.get_tool(params.name) if method == "tools/call" else None
        return tool is None or Operation(tool.name, tool.fn).policy is None


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``mcp.server.fastmcp.FastMCP``."""
    return _FastMCP(server)


def guard_messages(
    lowlevel: Server[Any, Any],
    guard: ToolGuard,
    undeclared: Undeclared,
    refuse_with: RefuseWith,
) -> None:
    """Put ``guard`` around every request handler of the server; again for handlers added since."""
    for kind, handler in lowlevel.request_handlers.items():
        if not isinstance(handler, _Guarded):
            lowlevel.request_handlers[kind] = _Guarded(handler, guard, undeclared, refuse_with)


class _Guarded:
    """One request handler under a guard."""

    def __init__(
        self,
        handler: Handler,
        guard: ToolGuard,
        undeclared: Undeclared,
        refuse_with: RefuseWith,
    ) -> None:
        self._handler = handler
        self._guard = guard
        self._undeclared = undeclared
        self._refuse_with = refuse_with

    async def __call__(self, message: Any) -> Any:
        if message is None:  # the server asking itself for its tools, inside a guarded message
            return await self._handler(message)
        method = message.method

        async def undeclared() -> str | None:
            return method if await self._undeclared(method, message.params) else None

        result, refusal = await guarded_message(
            self._guard,
            request_ctx.get().request,
            undeclared,
            self._refuse_with,
            functools.partial(self._handler, message),
        )
        return result if refusal is None else _said_no(method, refusal, self._guard)


def _refusal_error(refusal: ToolGuardError) -> Exception:
    return ToolError(refusal.to_json())


def _said_no(method: str, refusal: ToolGuardError, guard: ToolGuard) -> types.ServerResult:
    if method != "tools/call":
        raise McpError(
            types.ErrorData(
                code=types.INVALID_REQUEST, message=str(refusal), data=refusal.to_dict()
            )
        )
    if isinstance(refusal, ConnectionRequiredError) and refusal.connect_url is not None:
        _ask_to_connect(refusal, refusal.connect_url)
    challenge = guard.challenge(refusal)
    meta = {"mcp/www_authenticate": [challenge.header]} if challenge is not None else None
    text = types.TextContent(type="text", text=refusal.to_json())
    return types.ServerResult(types.CallToolResult(content=[text], isError=True, _meta=meta))


def _ask_to_connect(refusal: ConnectionRequiredError, url: str) -> None:
    """Ask the client to open ``url``; return if it cannot be asked.

    Raises:
        UrlElicitationRequiredError: how the question is put (2025-11-25).
    """
    client = request_ctx.get().session.client_params
    elicitation = client.capabilities.elicitation if client is not None else None
    if elicitation is None or elicitation.url is None:
        return
    question = types.ElicitRequestURLParams(
        message=str(refusal), url=url, elicitationId=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
