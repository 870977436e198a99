"""The server that callers see: a low-level one of the official SDK, on the line that is installed.

A low-level server passes results on as they are, whatever the upstream puts into them, and works
with both lines of the SDK; the proxy of fastmcp would be a dependency, and copies request headers
to its upstream.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette

from toolguard.frameworks.apps import session_app
from toolguard.gateway.forwarding import Forwarding
from toolguard.gateway.session import SDK_ERROR, Log, Progress, UpstreamError
from toolguard.gateway.survey import Survey

__all__ = ["endpoint", "make_server"]

_types: Any = import_module("mcp.types")
_INTERNAL_ERROR = -32603

# Method -> the classes of its request, of its parameters and of its result.
_CLASSES: Mapping[str, tuple[str, str, str]] = {
    "tools/list": ("ListToolsRequest", "PaginatedRequestParams", "ListToolsResult"),
    "tools/call": ("CallToolRequest", "CallToolRequestParams", "CallToolResult"),
    "resources/list": ("ListResourcesRequest", "PaginatedRequestParams", "ListResourcesResult"),
    "resources/templates/list": (
        *("ListResourceTemplatesRequest", "PaginatedRequestParams"),
        "ListResourceTemplatesResult",
    ),
    "resources/read": ("ReadResourceRequest", "ReadResourceRequestParams", "ReadResourceResult"),
    "prompts/list": ("ListPromptsRequest", "PaginatedRequestParams", "ListPromptsResult"),
    "prompts/get": ("GetPromptRequest", "GetPromptRequestParams", "GetPromptResult"),
    "completion/complete": ("CompleteRequest", "CompleteRequestParams", "CompleteResult"),
    "logging/setLevel": ("SetLevelRequest", "SetLevelRequestParams", "EmptyResult"),
}


def make_server(forwarding: Forwarding, surveyed: Survey) -> Server[Any]:
    """Return a server that answers as the upstream does.

    Args:
        forwarding: passes messages on.
        surveyed: what the upstream is, and offers.
    """
    server: Any = Server(
        surveyed.name, version=surveyed.version, instructions=surveyed.instructions
    )
    is_first_line = hasattr(server, "request_handlers")
    for method in surveyed.methods:
        request, params, result = (getattr(_types, each) for each in _CLASSES[method])
        if is_first_line:
            handler = functools.partial(_answer_first, server, forwarding, method, result)
            server.request_handlers[request] = handler
        else:
            handler = functools.partial(_answer_second, forwarding, method, result)
            server.add_request_handler(method, params, handler)
    return server  # type: ignore[no-any-return]


async def _answer_second(forwarding: Forwarding, method: str, result: Any, ctx: Any, _: Any) -> Any:
    """Answer a message on 2.x, whose context has the parameters as they were sent."""
    params, session = ctx.params or {}, ctx.session

    async def log(logged: Mapping[str, Any]) -> None:
        params = _types.LoggingMessageNotificationParams.model_validate(logged)
        notification = _types.LoggingMessageNotification(params=params)
        await session.send_notification(notification, related_request_id=ctx.request_id)

    asked = _progress_token(params) is not None
    progress: Progress | None = session.report_progress if asked else None
    # With the members that are new in the revision of this client.
    return result.model_validate(await _answered(forwarding, method, params, progress, log))


async def _answer_first(
    server: Any, forwarding: Forwarding, method: str, result: Any, request: Any
) -> Any:
    """Answer a message on 1.x."""
    sent = getattr(request, "params", None)
    params: dict[str, Any] = (
        {} if sent is None else sent.model_dump(by_alias=True, mode="json", exclude_none=True)
    )
    try:
        context = server.request_context
    except LookupError:  # the guard asks, and no client
        return _types.ServerResult(result.model_validate(await forwarding.answer(method, params)))
    session, token, related = context.session, _progress_token(params), str(context.request_id)

    async def report(progress: float, total: float | None, message: str | None) -> None:
        await session.send_progress_notification(token, progress, total, message, related)

    async def log(logged: Mapping[str, Any]) -> None:
        logger = logged.get("logger")
        await session.send_log_message(logged["level"], logged.get("data"), logger, related)

    found = await _answered(forwarding, method, params, None if token is None else report, log)
    return _types.ServerResult(result.model_validate(found))


def _progress_token(params: Mapping[str, Any]) -> Any:
    meta = params.get("_meta")
    return meta.get("progressToken") if isinstance(meta, Mapping) else None


async def _answered(
    forwarding: Forwarding,
    method: str,
    params: Mapping[str, Any],
    progress: Progress | None,
    log: Log,
) -> dict[str, Any]:
    """Return the answer of the upstream, or the SDK's error for an upstream that does not answer.

    Raises:
        ToolGuardError: if the caller has not connected their account.
        Exception: the SDK's error.
    """
    try:
        return await forwarding.answer(method, params, progress, log)
    except UpstreamError as fault:
        raise _error(str(fault)) from None


def _error(text: str) -> Exception:
    """Return the error of the SDK with a text for the client."""
    if hasattr(SDK_ERROR, "code"):  # 2.x
        made: Exception = SDK_ERROR(code=_INTERNAL_ERROR, message=text)
    else:
        made = SDK_ERROR(_types.ErrorData(code=_INTERNAL_ERROR, message=text))
    return made


def endpoint(
    server: Any, path: str, allowed_hosts: Collection[str], protect: Callable[[Starlette], object]
) -> Starlette:
    """Return the application that serves a protected server over Streamable HTTP.

    Args:
        server: the server, after ``guard.protect(server)``.
        path: the path of the endpoint.
        allowed_hosts: the hosts under which it may be requested.
        protect: guards the endpoint of an application, where the SDK does not build it.
    """
    origins = [f"{scheme}://{host}" for host in allowed_hosts for scheme in ("https", "http")]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=[*allowed_hosts],
        allowed_origins=origins,
    )
    if hasattr(server, "streamable_http_app"):
        app: Starlette = server.streamable_http_app(
            streamable_http_path=path, transport_security=security
        )
        return app
    manager = StreamableHTTPSessionManager(app=server, security_settings=security)
    app = session_app(manager, path)
    protect(app)
    return app
