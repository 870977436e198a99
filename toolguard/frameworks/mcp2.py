"""How does toolguard meet MCPServer of the official SDK, line 2.x?

Its server middleware gets a context for each message, with the request that carried it.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    CallToolResult,
    ElicitRequest,
    ElicitRequestURLParams,
    InputRequiredResult,
    TextContent,
)
from pydantic import BaseModel
from starlette.applications import Starlette

from toolguard.errors import ConnectionRequiredError, InvalidInputError, ToolGuardError
from toolguard.frameworks.adapter import Adapter, Message, can_open_urls, challenge_meta
from toolguard.frameworks.apps import guard_builder
from toolguard.frameworks.sdk_server import SDKAdapter

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["adapter", "message_guard"]

_MODERN = "2026-07-28"
_PATHS = {
    "streamable_http_app": ("streamable_http_path",),
    "sse_app": ("sse_path", "message_path"),
}


class _MCPServer(SDKAdapter):
    error_types = (ToolError, ResourceError)

    def install(self, guard: ToolGuard) -> None:
        self.server.middleware.insert(0, message_guard(self, guard))
        for name, parameters in _PATHS.items():
            signature = inspect.signature(getattr(self.server, name))
            guard_builder(self, guard, name, functools.partial(_values, signature, parameters))
        self.over_stdio(guard)

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        app: Starlette = self.server.streamable_http_app(
            json_response=json_response, stateless_http=True
        )
        return app


def _values(
    signature: inspect.Signature, parameters: tuple[str, ...], _: object, *args: Any, **kwargs: Any
) -> Collection[str]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return [bound.arguments[name] for name in parameters]


def adapter(server: Any) -> Adapter:
    """Return the adapter for a ``mcp.server.mcpserver.MCPServer``."""
    return _MCPServer(server)


def message_guard(served: Adapter, guard: ToolGuard) -> ServerMiddleware[Any]:
    """Return the server middleware that puts ``guard`` around every message."""

    async def guarded(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        serve = functools.partial(call_next, ctx)
        message = Message(
            ctx.request,
            ctx.method,
            ctx.params or {},
            serve,
            _is_error,
            _to_json,
            _from_json,
            is_public=_is_public,
        )
        result, refusal = await served.pass_on(guard, message)
        return result if refusal is None else _said_no(ctx, refusal, guard)

    return guarded


def _is_error(result: HandlerResult) -> bool:
    if isinstance(result, dict):
        return result.get("isError") is True
    return isinstance(result, CallToolResult) and result.is_error


def _to_json(result: HandlerResult) -> dict[str, Any]:
    if isinstance(result, BaseModel):
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(result or {})


def _is_public(result: HandlerResult) -> bool:
    if isinstance(result, dict):
        return result.get("cacheScope") == "public"
    return getattr(result, "cache_scope", None) == "public"


def _from_json(_: HandlerResult, as_json: dict[str, Any]) -> HandlerResult:
    return as_json  # what the SDK writes after this is what is in it


def _said_no(
    ctx: ServerRequestContext[Any, Any], refusal: ToolGuardError, guard: ToolGuard
) -> HandlerResult:
    if ctx.method != "tools/call":
        code = INVALID_PARAMS if isinstance(refusal, InvalidInputError) else INVALID_REQUEST
        raise MCPError(code=code, message=str(refusal), data=refusal.to_dict())
    if isinstance(refusal, ConnectionRequiredError) and refusal.connect_url is not None:
        asked = _ask_to_connect(ctx, refusal, refusal.connect_url)
        if asked is not None:
            return asked
    text = TextContent(type="text", text=refusal.to_json())
    meta = challenge_meta(guard, refusal)
    result = CallToolResult(content=[text], is_error=True, _meta=meta)
    # A middleware that answers owns the whole result, and the type came with 2026-07-28.
    unknown = {"result_type"} if ctx.protocol_version < _MODERN else None
    return result.model_dump(by_alias=True, exclude_none=True, exclude=unknown)


def _ask_to_connect(
    ctx: ServerRequestContext[Any, Any], refusal: ConnectionRequiredError, url: str
) -> InputRequiredResult | None:
    """Return the question to open ``url``; None if this client cannot be asked.

    Raises:
        UrlElicitationRequiredError: how the question is put before 2026-07-28.
    """
    if not can_open_urls(ctx.session.client_capabilities):
        return None
    if ctx.protocol_version >= _MODERN:
        key = f"connect:{refusal.connection}"
        if key in ((ctx.params or {}).get("inputResponses") or {}):
            return None  # asked once in this call, and declined, or not connected after all
        params = ElicitRequestURLParams(message=str(refusal), url=url)
        return InputRequiredResult(input_requests={key: ElicitRequest(params=params)})
    question = ElicitRequestURLParams(
        message=str(refusal), url=url, elicitation_id=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
