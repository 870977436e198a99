"""The adapter for ``MCPServer`` of the official SDK, line 2.x.

Its server middleware gets a context for each message, with the request that carried the message.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError, ToolError
from mcp.shared.exceptions import MCPError, UrlElicitationRequiredError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitRequest,
    ElicitRequestURLParams,
    InputRequiredResult,
    TextContent,
)
from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette

from toolguard.calls.message import current_frame
from toolguard.calls.rows import State
from toolguard.decorators.wrapper import arguments_of, owner_of
from toolguard.errors import ToolGuardError
from toolguard.frameworks import internals
from toolguard.frameworks.adapter import (
    REFUSED,
    Adapter,
    can_open_urls,
    challenge_meta,
    code_of,
    page_to_open,
)
from toolguard.frameworks.apps import guard_builder
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.sdk_server import SDKAdapter
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.serving import Incoming, serve
from toolguard.policies.operations import Kind

__all__ = ["RefusedError", "adapter", "guard_middleware", "to_json"]

_MODERN = "2026-07-28"
_PATHS = {
    "streamable_http_app": ("streamable_http_path",),
    "sse_app": ("sse_path", "message_path"),
}


class _MCPServer(SDKAdapter):
    server: MCPServer[Any]
    error_types = (ToolError, ResourceError, ValueError)

    def install(self, guard: ServerGuard) -> None:
        lowlevel = internals.lowlevel_server(self.server)
        lowlevel.middleware = Outermost(lowlevel.middleware, guard_middleware(self, guard))
        self.guard_managers()
        for name, parameters in _PATHS.items():
            signature = inspect.signature(getattr(self.server, name))
            paths = functools.partial(_values, signature, parameters)
            # The SDK validates arguments after the decision, so that an early one is the same.
            is_early = name == "streamable_http_app"
            guard_builder(self, guard, name, paths, refuses_early=is_early)
        self.over_stdio(guard)

    async def decide_ahead(self, tool: Any, arguments: dict[str, Any]) -> None:
        frame = current_frame()
        if frame.entered.state is not State.NEEDS_ARGUMENTS:
            return
        try:
            validated = tool.fn_metadata.validate_arguments(arguments)
        except ValidationError as error:  # raised as the SDK does
            raise ToolError(f"Error executing tool {tool.name}: {error}") from error
        owner = owner_of(tool.fn)
        assert owner is not None  # noqa: S101 - a wrapper has left it open
        read = arguments_of(owner, validated)
        sent = {name: value for name, value in read.items() if name not in tool.resolved_params}
        await frame.authorize(replace(frame.entered.call, arguments=sent), approving="skip")

    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> Exception:
        return _NestedRefusalError(refusal) if nested else RefusedError(refusal)

    def unknown(self, kind: Kind, name: str) -> Exception:
        return MCPError(code=INVALID_PARAMS, message=f"Unknown {kind}: {name}")

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        app: Starlette = self.server.streamable_http_app(
            json_response=json_response, stateless_http=True
        )
        return app


class RefusedError(MCPError):
    """A refusal that is raised through the SDK, which passes it on without logging it."""

    def __init__(self, refusal: ToolGuardError) -> None:
        super().__init__(code=REFUSED, message=str(refusal))
        self.refusal = refusal


class _NestedRefusalError(ToolError, ResourceError):
    """The refusal of an operation that code of the user's called, for that code to catch."""

    def __init__(self, refusal: ToolGuardError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.__cause__ = refusal


def _values(
    signature: inspect.Signature, parameters: tuple[str, ...], _: object, *args: Any, **kwargs: Any
) -> Collection[str]:
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return [bound.arguments[name] for name in parameters]


def adapter(server: MCPServer[Any]) -> Adapter:
    """Return the adapter for a ``mcp.server.mcpserver.MCPServer``."""
    return _MCPServer(server)


def guard_middleware(served: Adapter, guard: ServerGuard) -> ServerMiddleware[Any]:
    """Return the server middleware that installs ``guard`` around every message."""

    async def guarded(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        incoming = Incoming(
            ctx.request,
            ctx.method,
            ctx.params or {},
            functools.partial(call_next, ctx),
            _is_error,
            to_json,
            _from_json,
            ctx.request_id,
            is_public=_is_public,
        )
        try:
            result: HandlerResult = await serve(served, guard, incoming)
        except ToolGuardError as refusal:
            return _said_no(ctx, refusal, guard)
        return result

    return guarded


def _is_error(result: HandlerResult) -> bool:
    if isinstance(result, dict):
        return result.get("isError") is True
    return isinstance(result, CallToolResult) and result.is_error


def to_json(result: HandlerResult) -> dict[str, Any]:
    """Return a result as JSON values."""
    if isinstance(result, BaseModel):
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(result or {})


def _is_public(result: HandlerResult) -> bool:
    if isinstance(result, dict):
        return result.get("cacheScope") == "public"
    return getattr(result, "cache_scope", None) == "public"


def _from_json(_: HandlerResult, as_json: dict[str, Any]) -> HandlerResult:
    return as_json  # the SDK serializes this value


def _said_no(
    ctx: ServerRequestContext[Any, Any], refusal: ToolGuardError, guard: ServerGuard
) -> HandlerResult:
    if ctx.method != "tools/call":
        raise MCPError(code=code_of(refusal), message=str(refusal), data=refusal.to_dict())
    page = page_to_open(refusal)
    asked = _ask_to_open(ctx, refusal, *page) if page is not None else None
    if asked is not None:
        return asked
    text = TextContent(type="text", text=refusal.to_json())
    meta = challenge_meta(guard, refusal)
    result = CallToolResult(content=[text], is_error=True, _meta=meta)
    # A middleware that answers sets the whole result; the type is new in 2026-07-28.
    unknown = {"result_type"} if ctx.protocol_version < _MODERN else None
    return result.model_dump(by_alias=True, exclude_none=True, exclude=unknown)


def _ask_to_open(
    ctx: ServerRequestContext[Any, Any], refusal: ToolGuardError, key: str, url: str
) -> InputRequiredResult | None:
    """Return the elicitation to open ``url``; None if this client does not support it.

    Raises:
        UrlElicitationRequiredError: the request to clients before MCP 2026-07-28.
    """
    if not can_open_urls(ctx.session.client_capabilities):
        return None
    if ctx.protocol_version >= _MODERN:
        if key in ((ctx.params or {}).get("inputResponses") or {}):
            return None  # asked once in this call, and declined, or not done after all
        params = ElicitRequestURLParams(message=str(refusal), url=url)
        return InputRequiredResult(input_requests={key: ElicitRequest(params=params)})
    question = ElicitRequestURLParams(
        message=str(refusal), url=url, elicitation_id=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
