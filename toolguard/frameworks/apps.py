"""How are the MCP endpoints of a Starlette application guarded?"""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mcp.server.auth.middleware.bearer_auth import RequireAuthMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from toolguard.decorators.wrapper import bare_policy
from toolguard.errors import GuardNotConfiguredError
from toolguard.frameworks.sdk_auth import answering_outages
from toolguard.frameworks.serving import ALTERED
from toolguard.http.middleware import GuardMiddleware
from toolguard.http.proxy import MessageGuard
from toolguard.policies.by_name import OperationRules

if TYPE_CHECKING:
    from toolguard.frameworks.adapter import Adapter
    from toolguard.guard import ToolGuard

__all__ = ["guard_builder", "guard_endpoints", "guarded_app", "metadata_route"]

_log = logging.getLogger("toolguard")


def guard_builder(
    adapter: Adapter, guard: ToolGuard, name: str, paths: Callable[..., Collection[str]]
) -> None:
    """Guard every application that the server's method ``name`` builds.

    Args:
        adapter: the server.
        guard: what to put around the endpoints.
        name: of the method, such as ``"streamable_http_app"``.
        paths: called with the arguments of the method and the application it built; returns the
            paths of the MCP endpoints.
    """
    build = getattr(adapter.server, name)

    @functools.wraps(build)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        adapter.prepare()
        app = build(*args, **kwargs)
        guard_endpoints(app, guard, paths(app, *args, **kwargs), adapter)
        return app

    setattr(adapter.server, name, guarded)


def guard_endpoints(
    app: Starlette,
    guard: ToolGuard,
    paths: Collection[str],
    adapter: Adapter,
) -> None:
    """Guard the routes of ``app`` at ``paths``, and serve the RFC 9728 document unless it does.

    The caller's token stays with the guard: a framework that copies request headers to other
    servers has none to copy. Only the endpoints are wrapped: what the user or the framework puts
    around the application, CORS above all, stays outside and sees the refusals too.

    Raises:
        RuntimeError: if a path has no route, so that nothing would be guarded there.
    """
    wanted = {path.rstrip("/") for path in paths}
    routes = [r for r in app.routes if isinstance(r, (Route, Mount))]
    endpoints = [route for route in routes if route.path.rstrip("/") in wanted]
    if {route.path.rstrip("/") for route in endpoints} != wanted:
        raise RuntimeError(f"no MCP endpoint at {sorted(paths)}: nothing would be guarded")
    for other in routes:
        endpoint: Any = getattr(other, "endpoint", None)
        if endpoint is not None and bare_policy(endpoint) is not None:
            raise ValueError(
                f"the guard on the route {other.path!r} guards nothing: put the application "
                "behind guard.asgi(app)"
            )
    for route in endpoints:
        inside = _while_intact(_withholding(route.app, adapter.withheld_headers), adapter)
        route.app = GuardMiddleware(inside, guard)
    document = metadata_route(guard)
    if not any(route.path == document.path for route in routes):
        app.router.routes.insert(0, document)
    app.router.lifespan_context = _around(adapter, guard, app.router.lifespan_context)
    app.user_middleware[:] = answering_outages(app.user_middleware)
    app.user_middleware.append(Middleware(_expose_challenges, app.user_middleware))


def _withholding(app: ASGIApp, names: Collection[bytes]) -> ASGIApp:
    """Return ``app`` without these request headers; a check of the framework's still sees them."""
    if isinstance(app, RequireAuthMiddleware):
        app.app = _withholding(app.app, names)
        return app

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in names]
        await app(scope, receive, send)

    return without


def _while_intact(app: ASGIApp, adapter: Adapter) -> ASGIApp:
    """Return ``app``, refused to everyone once the server would go on without its guard."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if adapter.is_intact():
            await app(scope, receive, send)
            return
        _log.error(ALTERED)
        refusal = GuardNotConfiguredError(ALTERED)
        await JSONResponse(refusal.to_dict(), refusal.status or 500)(scope, receive, send)

    return checked


def _around(adapter: Adapter, guard: ToolGuard, lifespan: Lifespan[Any]) -> Lifespan[Any]:
    """Return the lifespan that begins with a look at the rules, and closes what the guard opens."""

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            adapter.report_rules()
            try:
                yield state
            finally:
                await guard.aclose()

    return around


def _expose_challenges(app: ASGIApp, stack: list[Middleware]) -> ASGIApp:
    """Let browsers read WWW-Authenticate where CORS is on.

    Starlette builds its stack from the inside out, so this runs when every middleware has been
    added and before CORSMiddleware is made.
    """
    for middleware in stack:
        made: object = middleware.cls
        if made is CORSMiddleware:
            kwargs: dict[str, Any] = middleware.kwargs
            exposed = list(kwargs.get("expose_headers", ()))
            if "www-authenticate" not in (name.lower() for name in exposed):
                kwargs["expose_headers"] = [*exposed, "WWW-Authenticate"]
    return app


def metadata_route(guard: ToolGuard) -> Route:
    """Return the route of the RFC 9728 document, to add to the root of a larger application."""

    async def document(request: Request) -> Response:
        # RFC 9728 §3: public, and needed by clients in browsers, which ask first because of the
        # MCP-Protocol-Version header that they send along.
        headers = {"access-control-allow-origin": "*", "cache-control": "public, max-age=300"}
        if request.method == "OPTIONS":
            headers["access-control-allow-methods"] = "GET"
            headers["access-control-allow-headers"] = "MCP-Protocol-Version"
            return Response(status_code=204, headers=headers)
        return JSONResponse(guard.metadata(), headers=headers)

    path = guard.metadata_url.partition("://")[2]
    return Route(path[path.index("/") :].partition("?")[0], document, methods=["GET", "OPTIONS"])


def guarded_app(app: ASGIApp, guard: ToolGuard, rules: OperationRules | None = None) -> ASGIApp:
    """Return any ASGI application behind ``guard``, with its RFC 9728 document beside it.

    Args:
        app: the application.
        guard: who verifies.
        rules: for an MCP server, who may send it which messages; None for any application.
    """
    document = metadata_route(guard)
    inside = GuardMiddleware(app if rules is None else MessageGuard(app, guard, rules), guard)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == document.path:
            await document.handle(scope, receive, send)
        else:
            await inside(scope, receive, send)

    return guarded
