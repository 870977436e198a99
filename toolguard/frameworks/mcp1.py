"""How does toolguard meet FastMCP of the official SDK, line 1.x?

The low-level server sets ``request_ctx`` for each message; its ``request`` is the request that
carried *this* message. The context variables of the auth middleware hold the one that opened
the session, and are not used.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any

from mcp import types
from mcp.server.fastmcp.exceptions import ResourceError, ToolError
from mcp.server.lowlevel.server import Server, request_ctx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError, UrlElicitationRequiredError
from starlette.applications import Starlette

from toolguard.errors import ConnectionRequiredError, InvalidInputError, ToolGuardError
from toolguard.frameworks.adapter import Adapter, Message, can_open_urls, challenge_meta
from toolguard.frameworks.apps import guard_builder, guard_endpoints
from toolguard.frameworks.sdk_server import SDKAdapter

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter", "guard_messages"]

Handler = Callable[[Any], Awaitable[Any]]


class _FastMCP(SDKAdapter):
    error_types = (ToolError, ResourceError)

    def install(self, guard: ToolGuard) -> None:
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
        if self.guard is not None:
            guard_messages(self.server._mcp_server, self, self.guard)

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        server, settings = self.server, self.server.settings
        manager = StreamableHTTPSessionManager(
            server._mcp_server, json_response=json_response, stateless=True
        )
        kept = server._session_manager, settings.streamable_http_path
        server._session_manager, settings.streamable_http_path = manager, "/mcp"
        try:
            # What the framework builds, with its own auth, and not yet guarded.
            app: Starlette = inspect.unwrap(server.streamable_http_app)()
        finally:
            server._session_manager, settings.streamable_http_path = kept
        app.router.lifespan_context = lambda _: manager.run()
        if self.guard is not None:
            guard_endpoints(app, self.guard, ["/mcp"], self)
        return app


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``mcp.server.fastmcp.FastMCP``."""
    return _FastMCP(server)


def guard_messages(lowlevel: Server[Any, Any], served: Adapter, guard: ToolGuard) -> None:
    """Put ``guard`` around every request handler of the server; again for handlers added since."""
    for kind, handler in lowlevel.request_handlers.items():
        if not isinstance(handler, _Guarded):
            lowlevel.request_handlers[kind] = _Guarded(handler, served, guard)


class _Guarded:
    """One request handler under a guard."""

    def __init__(self, handler: Handler, served: Adapter, guard: ToolGuard) -> None:
        self._handler = handler
        self._served = served
        self._guard = guard

    async def __call__(self, request: Any) -> Any:
        if request is None:  # the server asking itself for its tools, inside a guarded message
            return await self._handler(request)
        message = Message(
            request_ctx.get().request,
            request.method,
            _sent(request.params),
            functools.partial(self._handler, request),
            _is_error,
            _to_json,
            _from_json,
            _is_at_hand(request_ctx.get()),
        )
        result, refusal = await self._served.pass_on(self._guard, message)
        return result if refusal is None else _said_no(request.method, refusal, self._guard)


def _sent(params: Any) -> dict[str, Any]:
    """Return the parameters under the names that they have in the message."""
    sent = {} if params is None else dict(vars(params))
    return {**sent, "_meta": sent.pop("meta", None)}


def _is_at_hand(context: Any) -> Callable[[], bool]:
    """Return what tells whether ``context`` is that of the message being served.

    A session inside the process runs in the context of whoever started it.
    """
    return lambda: request_ctx.get(None) is context


def _is_error(result: types.ServerResult) -> bool:
    return isinstance(result.root, types.CallToolResult) and result.root.isError


def _to_json(result: types.ServerResult) -> dict[str, Any]:
    return result.root.model_dump(by_alias=True, mode="json", exclude_none=True)


def _from_json(result: types.ServerResult, as_json: dict[str, Any]) -> types.ServerResult:
    return types.ServerResult(type(result.root).model_validate(as_json))


def _said_no(method: str, refusal: ToolGuardError, guard: ToolGuard) -> types.ServerResult:
    if method != "tools/call":
        is_input = isinstance(refusal, InvalidInputError)
        code = types.INVALID_PARAMS if is_input else types.INVALID_REQUEST
        raise McpError(types.ErrorData(code=code, message=str(refusal), data=refusal.to_dict()))
    if isinstance(refusal, ConnectionRequiredError) and refusal.connect_url is not None:
        _ask_to_connect(refusal, refusal.connect_url)
    meta = challenge_meta(guard, refusal)
    text = types.TextContent(type="text", text=refusal.to_json())
    return types.ServerResult(types.CallToolResult(content=[text], isError=True, _meta=meta))


def _ask_to_connect(refusal: ConnectionRequiredError, url: str) -> None:
    """Ask the client to open ``url``; return if it cannot be asked.

    Raises:
        UrlElicitationRequiredError: how the question is put (2025-11-25).
    """
    client = request_ctx.get().session.client_params
    if not can_open_urls(client.capabilities if client is not None else None):
        return
    question = types.ElicitRequestURLParams(
        message=str(refusal), url=url, elicitationId=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
