"""Guard the MCP endpoints of ASGI and Starlette applications."""

from __future__ import annotations

import functools
import logging
import posixpath
import re
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from mcp.server.auth.middleware.bearer_auth import RequireAuthMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

from toolguard.calls.recording import request_record
from toolguard.calls.request import SCOPE_KEY
from toolguard.decorators.wrapper import bare_policy
from toolguard.errors import GuardNotConfiguredError, ToolGuardError
from toolguard.frameworks.early_refusals import refuse_early
from toolguard.frameworks.framework_auth import check_one
from toolguard.frameworks.sdk_auth import answering_outages
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.serving import ALTERED
from toolguard.http.answers import respond, send_empty
from toolguard.http.middleware import GuardMiddleware
from toolguard.http.proxy import ProxyGuard
from toolguard.policies.by_name import PoliciesByName
from toolguard.tokens.per_loop import running_loop

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from toolguard.frameworks.adapter import Adapter

__all__ = [
    "OtherPaths",
    "guard_builder",
    "guard_endpoints",
    "guarded_app",
    "guarded_server",
    "metadata_route",
    "session_app",
]

OtherPaths = Literal["refuse", "authenticated"]
"""How to treat requests for paths other than the endpoint's: 404, or any valid token."""

_log = logging.getLogger("toolguard")

# Withheld from the application: the token, and the proof that goes with it.
_CREDENTIALS = (b"authorization", b"dpop")
# A percent sign that is encoded once or more often, and text that is not part of path segments.
_NESTED = re.compile("%(?:25)+")
_PARAMETERS = re.compile("[?#].*|;[^/]*", re.DOTALL)
_TRAILING = re.compile(r"[ .]+(?=/|\Z)")
# A control character, a line separator or a dot segment.
_UNCLEAR = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]|/[ .]+(?:[;?#][^/]*)?(?:/|\Z)")
# More often than any chain of servers decodes a path.
_DECODINGS = 4


def guard_builder(
    adapter: Adapter,
    guard: ServerGuard,
    name: str,
    paths: Callable[..., Collection[str]],
    *,
    refuses_early: bool = False,
) -> None:
    """Guard every application that the server's method ``name`` builds.

    Args:
        adapter: the server.
        guard: the guard to install around the endpoints.
        name: the name of the method, such as ``"streamable_http_app"``.
        paths: called with the arguments of the method and the application it built; returns the
            paths of the MCP endpoints.
        refuses_early: whether calls are also refused before the framework works on them. Not for
            SSE, whose refusals are results in the stream.
    """
    build = getattr(adapter.server, name)

    @functools.wraps(build)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        adapter.prepare()
        app = build(*args, **kwargs)
        served = paths(app, *args, **kwargs)
        guard_endpoints(app, guard, served, adapter, refuses_early=refuses_early)
        return app

    setattr(adapter.server, name, guarded)


def guard_endpoints(
    app: Starlette,
    guard: ServerGuard,
    paths: Collection[str],
    adapter: Adapter,
    *,
    refuses_early: bool = False,
) -> None:
    """Guard the routes of ``app`` at ``paths``; add the RFC 9728 document if ``app`` has none.

    The caller's token is removed from the request, so that a framework which copies request
    headers to other servers cannot copy it. Only the endpoints are wrapped: middleware around the
    application, such as CORS, stays outside and processes the refusals too.

    Raises:
        RuntimeError: if a path has no route, so that nothing would be guarded there.
        ValueError: if the application has an auth of the framework's that the guard would
            override, or a guard on a route that guards nothing.
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
    if any(isinstance(route.app, RequireAuthMiddleware) for route in endpoints):
        _check_verifiers(app, guard)  # the auth may have come after protect()
    for route in endpoints:
        inside = _within_guard(route.app, guard, adapter, refuses_early=refuses_early)
        # For this server only, even if the guard protects others.
        route.app = GuardMiddleware(
            inside, guard, admits_anonymous=lambda: adapter.admits_anonymous
        )
    document = metadata_route(guard)
    if not any(route.path == document.path for route in routes):
        # Before mounts that take every path, but after the endpoint, which most requests are for.
        first = app.router.routes[0]
        is_endpoint = isinstance(first, Route) and first in endpoints and "{" not in first.path
        app.router.routes.insert(int(is_endpoint), document)
    app.router.lifespan_context = _around(adapter, guard, app.router.lifespan_context)
    app.user_middleware[:] = answering_outages(app.user_middleware)
    app.user_middleware.append(Middleware(_expose_challenges, app.user_middleware))


def _check_verifiers(app: Starlette, guard: ServerGuard) -> None:
    backends = [middleware.kwargs.get("backend") for middleware in app.user_middleware]
    for verifier in [getattr(backend, "token_verifier", None) for backend in backends]:
        if verifier is not None:
            check_one(verifier, guard)


def _within_guard(
    app: ASGIApp, guard: ServerGuard, adapter: Adapter, *, refuses_early: bool
) -> ASGIApp:
    """Return ``app`` without the caller's token; the framework's own check still reads it.

    It refuses every request once the server has lost its guard.
    """
    if isinstance(app, RequireAuthMiddleware):
        app.app = _within_guard(app.app, guard, adapter, refuses_early=refuses_early)
        return app

    async def within(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in _CREDENTIALS]
            if not adapter.is_intact():
                _log.error(ALTERED)
                refusal = GuardNotConfiguredError(ALTERED)
                await respond(send, refusal, None, is_message=scope["method"] == "POST")
                return
            # Without it nothing has been decided here; the framework's own tools refuse then.
            auth = scope.get(SCOPE_KEY) if refuses_early else None
            caller = None if auth is None else auth.principal
            if caller is not None and not adapter.scopes_named.issubset(caller.scopes):
                try:
                    receive = await refuse_early(adapter, guard, scope, receive)
                except ToolGuardError as refusal:
                    if auth is not None and auth.refusal is refusal:
                        # The guard around sends it, with its challenge.
                        await send_empty(send, refusal.status or 500)
                    else:
                        await respond(send, refusal, None)
                    return
        await app(scope, receive, send)

    return within


def _around(adapter: Adapter, guard: ServerGuard, lifespan: Lifespan[Any]) -> Lifespan[Any]:
    """Return the lifespan that first checks the rules, and finally closes the guard's clients.

    They are closed by the last app of the guard in an event loop: others may still be serving.
    """

    @asynccontextmanager
    async def around(app: Any) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            adapter.report_rules()
            loop = running_loop()
            guard.apps.append(loop)
            try:
                yield state
            finally:
                guard.apps.remove(loop)
                if loop not in guard.apps:
                    # Calls to an app in another loop may go on: that app waits for them.
                    await (guard.aclose(grace=0) if guard.apps else guard.aclose())

    return around


def _expose_challenges(app: ASGIApp, stack: list[Middleware]) -> ASGIApp:
    """Let browsers read WWW-Authenticate if there is a CORS middleware.

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


class _SessionEndpoint:
    """An application and no function, which a route would take for a handler of requests."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._manager.handle_request(scope, receive, send)


def session_app(manager: StreamableHTTPSessionManager, path: str) -> Starlette:
    """Return the application of a low-level server, for a line of the SDK that builds none.

    Args:
        manager: runs the sessions of the server.
        path: the path of the endpoint.
    """
    route = Route(path, endpoint=_SessionEndpoint(manager))
    return Starlette(routes=[route], lifespan=lambda _: manager.run())


def metadata_route(guard: ServerGuard) -> Route:
    """Return the route of the metadata (RFC 9728), to add to the root of a larger application."""

    async def document(request: Request) -> Response:
        # RFC 9728 §3: public, and needed by clients in browsers, which ask first because of the
        # MCP-Protocol-Version header that they send along.
        headers = {"access-control-allow-origin": "*", "cache-control": "public, max-age=300"}
        if request.method == "OPTIONS":
            headers["access-control-allow-methods"] = "GET"
            headers["access-control-allow-headers"] = "MCP-Protocol-Version"
            return Response(status_code=204, headers=headers)
        if not await guard.discover():
            headers["cache-control"] = "no-store"
        return JSONResponse(guard.metadata(), headers=headers)

    path = guard.metadata_url.partition("://")[2]
    return Route(path[path.index("/") :].partition("?")[0], document, methods=["GET", "OPTIONS"])


def guarded_app(app: ASGIApp, guard: ServerGuard, *, forward_token: bool = False) -> ASGIApp:
    """Return any ASGI application behind ``guard``, with its RFC 9728 document beside it.

    Args:
        app: the application; each request to it needs a token.
        guard: the guard, which verifies tokens.
        forward_token: whether the application gets the ``Authorization`` header.
    """
    inside = app if forward_token else _without_token(app)
    return _beside_document(GuardMiddleware(_recorded(inside, guard), guard), guard)


def guarded_server(
    app: ASGIApp,
    guard: ServerGuard,
    rules: PoliciesByName,
    *,
    path: str = "/mcp",
    others: OtherPaths = "refuse",
    forward_token: bool = False,
) -> ASGIApp:
    """Return an MCP server behind ``guard``, whose messages are decided on by rules.

    Args:
        app: the server.
        guard: the guard, which verifies tokens.
        rules: the policies by patterns of operation names.
        path: the path of its endpoint.
        others: how to treat requests for other paths.
        forward_token: whether the server gets the ``Authorization`` header.

    Raises:
        ValueError: if ``path`` is not the path of an endpoint.
    """
    if not path.startswith("/") or _resembling(path) != path.casefold().rstrip("/"):
        raise ValueError(f'path={path!r}: write the path of the endpoint, such as "/mcp"')
    inside = app if forward_token else _without_token(app)
    messages = ProxyGuard(inside, guard, rules)
    endpoint = GuardMiddleware(messages, guard, admits_anonymous=lambda: messages.admits_anonymous)
    elsewhere = GuardMiddleware(_recorded(inside, guard), guard)
    taken = _resembling(path)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        requested = _path_of(scope)
        if scope["type"] != "http" or requested == path:
            await endpoint(scope, receive, send)
        elif others == "authenticated" and _is_elsewhere(requested, taken):
            await elsewhere(scope, receive, send)
        else:
            await Response(status_code=404)(scope, receive, send)

    return _beside_document(guarded, guard)


def _beside_document(app: ASGIApp, guard: ServerGuard) -> ASGIApp:
    document = metadata_route(guard)

    async def routed(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _path_of(scope) == document.path:
            await document.handle(scope, receive, send)
        else:
            await app(scope, receive, send)

    return routed


def _recorded(app: ASGIApp, guard: ServerGuard) -> ASGIApp:
    """Return ``app``, of which each request that is passed on leaves a record."""

    async def recorded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not guard.recorder.wanted():
            await app(scope, receive, send)
            return
        caller, started = scope[SCOPE_KEY].principal, time.perf_counter()
        failure: str | None = "an error"
        try:
            await app(scope, receive, send)
            failure = None
        finally:
            facts = {"method": scope["method"], "started": started, "failure": failure}
            guard.recorder.put([request_record(guard, None, caller, **facts)])

    return recorded


def _without_token(app: ASGIApp) -> ASGIApp:
    """Return ``app`` without the caller's token, in any place of the scope."""

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = [pair for pair in scope["headers"] if pair[0] not in _CREDENTIALS]
            scope = {k: v for k, v in scope.items() if k != SCOPE_KEY} | {"headers": headers}
        await app(scope, receive, send)

    return without


def _path_of(scope: Scope) -> str:
    """Return the path relative to the mount point of the application (ASGI)."""
    path, root = str(scope.get("path", "")), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _is_elsewhere(requested: str, endpoint: str) -> bool:
    """Return whether no server takes a requested path for that of the endpoint or one below it.

    Some resolve dot segments, and others pass ``/mcp/../x`` to what is mounted at ``/mcp``;
    Starlette ignores a line break at the end, others all that comes after a NUL; and a URL in the
    place of a path is read by some as its path.
    """
    if not requested.startswith("/") or _UNCLEAR.search(_decoded(requested)):
        return False
    plain = _resembling(requested)
    return plain != endpoint and not plain.startswith(f"{endpoint}/")


def _resembling(path: str) -> str:
    """Return a form that is equal for paths which a server could take for each other.

    Servlet containers ignore the text after a semicolon, and Windows blanks and dots at the end
    of a segment.
    """
    plain = posixpath.normpath(f"/{_PARAMETERS.sub('', _decoded(path))}")
    return re.sub("/+", "/", _TRAILING.sub("", plain)).rstrip("/")


def _decoded(path: str) -> str:
    """Return a path without percent-encoding, which may be nested, and in lower case."""
    for _ in range(_DECODINGS):
        path = unquote(_NESTED.sub("%", path))
    return unicodedata.normalize("NFKC", path).casefold().replace("\\", "/")
