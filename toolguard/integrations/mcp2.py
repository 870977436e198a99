"""How does toolguard meet MCPServer of the official SDK, line 2.x?

Its server middleware gets a context for each message, with the request that carried it.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types import (
    INVALID_REQUEST,
    CallToolResult,
    ElicitRequest,
    ElicitRequestURLParams,
    InputRequiredResult,
    TextContent,
)
from starlette.applications import Starlette

from toolguard.errors import ConnectionRequiredError, ToolGuardError
from toolguard.integrations.adapter import Adapter, Operation, guarded_message
from toolguard.integrations.apps import guard_builder

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter", "message_guard"]

Undeclared = Callable[[str, Mapping[str, Any]], Awaitable[bool]]
RefuseWith = Callable[[ToolGuardError], Exception]


class _MCPServer(Adapter):
    def operations(self) -> Iterator[Operation]:
        for tool in self.server._tool_manager.list_tools():
            yield Operation(tool.name, tool.fn)

    def size(self) -> int:
        return len(self.server._tool_manager._tools)

    def install(self, guard: ToolGuard) -> None:
        self.claim(guard)
        self.server.middleware.insert(0, message_guard(guard, self._undeclared, _refusal_error))
        paths = {
            "streamable_http_app": ["streamable_http_path"],
            "sse_app": ["sse_path", "message_path"],
        }
        for name, parameters in paths.items():
            signature = inspect.signature(getattr(self.server, name))
            guard_builder(self, guard, name, functools.partial(_values, signature, parameters))
        self.over_stdio(guard)

    def stateless_app(self) -> Starlette:
        app: Starlette = self.server.streamable_http_app(json_response=True, stateless_http=True)
        return app

    async def _undeclared(self, method: str, params: Mapping[str, Any]) -> bool:
        name = params.get("name")
        if method != "tools/call" or not isinstance(name, str):
            return True
        tool = self.server._tool_manager.get_tool(name)
        return tool is None or Operation(name, tool.fn).policy is None


def _values(
    signature: inspect.Signature, parameters: list[str], _: object, *args: Any, **kwargs: Any
) -> Collection[str]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return [bound.arguments[name] for name in parameters]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``mcp.server.mcpserver.MCPServer``."""
    return _MCPServer(server)


def message_guard(
    guard: ToolGuard, undeclared: Undeclared, refuse_with: RefuseWith
) -> ServerMiddleware[Any]:
    """Return the server middleware that puts ``guard`` around every message."""

    async def guarded(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        async def undeclared_method() -> str | None:
            return ctx.method if await undeclared(ctx.method, ctx.params or {}) else None

        result, refusal = await guarded_message(
            guard,
            ctx.request,
            undeclared_method,
            refuse_with,
            functools.partial(call_next, ctx),
        )
        return result if refusal is None else _said_no(ctx, refusal, guard)

    return guarded


def _refusal_error(refusal: ToolGuardError) -> Exception:
    return ToolError(refusal.to_json())


def _said_no(
    ctx: ServerRequestContext[Any, Any], refusal: ToolGuardError, guard: ToolGuard
) -> HandlerResult:
    if ctx.method != "tools/call":
        raise MCPError(code=INVALID_REQUEST, message=str(refusal), data=refusal.to_dict())
    if isinstance(refusal, ConnectionRequiredError) and refusal.connect_url is not None:
        asked = _ask_to_connect(ctx, refusal, refusal.connect_url)
        if asked is not None:
            return asked
    challenge = guard.challenge(refusal)
    meta = {"mcp/www_authenticate": [challenge.header]} if challenge is not None else None
    text = TextContent(type="text", text=refusal.to_json())
    return CallToolResult(content=[text], is_error=True, _meta=meta)


def _ask_to_connect(
    ctx: ServerRequestContext[Any, Any], refusal: ConnectionRequiredError, url: str
) -> InputRequiredResult | None:
    """Return the question to open ``url``; None if this client cannot be asked.

    Raises:
        UrlElicitationRequiredError: how the question is put before 2026-07-28.
    """
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities is not None else None
    if elicitation is None or elicitation.url is None:
        return None
    if ctx.protocol_version >= "2026-07-28":
        params = ElicitRequestURLParams(message=str(refusal), url=url)
        return InputRequiredResult(
            input_requests={f"connect:{refusal.connection}": ElicitRequest(params=params)}
        )
    question = ElicitRequestURLParams(
        message=str(refusal), url=url, elicitation_id=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
