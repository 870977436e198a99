"""What was tried against the guard, and is not possible any more?"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest

from support.lines import FASTMCP_LINES, LEGACY_PROTOCOLS, LINES, Guarding, Line, Serve
from support.wire import Caller
from toolguard import Principal, public, requires_auth, requires_scopes
from toolguard.testing import LocalIssuer

fastmcp_lines = pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)


async def _secret(*, user_id: str) -> str:
    return f"secret of {user_id}"


@fastmcp_lines
@pytest.mark.parametrize("signed_in_later", [False, True])
def test_a_cache_in_the_framework_serves_nobody_elses_result(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    *,
    signed_in_later: bool,
) -> None:
    caching = pytest.importorskip("fastmcp.server.middleware.caching")
    server: Any = line.server("calendar")
    server.tool(name="mine")(requires_scopes("read")(_secret))
    server.tool(name="hello")(public(_nothing))
    server.add_middleware(caching.ResponseCachingMiddleware())
    url = serve(line.http_app(guarding().protect(server))) + "/mcp"

    def caller(user: str | None, *scopes: str) -> Caller:
        made = Caller(http, url, LEGACY_PROTOCOLS[-1])
        token = issuer.mint(user, scopes=scopes) if user else None
        made.token = None if signed_in_later else token
        made.open()
        made.token = token
        return made

    assert caller("alice", "read").call("mine").value == "secret of alice"
    assert caller("bob", "read").call("mine").value == "secret of bob"
    assert caller("carol").call("mine").status == 403
    assert caller(None).call("mine").status == 401


async def _nothing() -> str:
    return "nothing"


@fastmcp_lines
@pytest.mark.parametrize("default", ["authenticated", "deny"])
def test_a_client_cannot_ask_for_a_version_without_a_guard(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, default: Any
) -> None:
    server: Any = line.server("calendar")

    async def old() -> str:
        return "without a guard"

    async def new() -> str:
        return "public"

    server.tool(name="it", version="1.0")(old)
    server.tool(name="it", version="2.0")(public(new))
    app = line.http_app(guarding(default=default).protect(server), stateless=True)
    stranger = Caller(http, serve(app) + "/mcp")

    assert stranger.call("it").value == "public"
    assert stranger.call("it", fastmcp={"version": "2.0"}).value == "public"
    for version in ("1.0", ["1.0"]):
        assert "without a guard" not in stranger.call("it", fastmcp={"version": version}).content


def test_an_unguarded_tool_takes_no_caller_from_the_client(line: Line, guarding: Guarding) -> None:
    server: Any = line.server("calendar")

    async def whoami(caller: Principal) -> str:
        return str(caller.user_id)

    server.tool()(whoami)

    with pytest.raises(
        ValueError, match="tool 'whoami' takes a Principal as caller, which a client"
    ):
        guarding().protect(server)


def test_the_callers_token_is_not_there_to_be_sent_on(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server: Any = line.server("calendar")
    context: Any = line.context

    async def headers(ctx: Any) -> list[str]:
        return sorted(ctx.request_context.request.headers)

    headers.__annotations__["ctx"] = context
    server.tool()(requires_auth(headers))
    url = serve(line.http_app(guarding().protect(server), stateless=True)) + "/mcp"
    reply = Caller(http, url, token=issuer.mint("alice")).call("headers")

    assert "accept" in reply.content
    assert "authorization" not in reply.value


def test_a_decorator_between_guard_and_registration_does_not_hide_the_wrong_order(
    line: Line, guarding: Guarding
) -> None:
    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def between(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return between

    server: Any = line.server("calendar")

    async def wipe() -> str:
        return "wiped"

    server.tool()(wipe)
    requires_scopes("admin")(timed(wipe))

    with pytest.raises(ValueError, match="tool 'wipe' was registered without all of its guards"):
        guarding().protect(server)


def test_a_head_request_opens_nothing_that_get_does_not(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server: Any = line.server("calendar")
    server.tool(name="hello")(public(_nothing))
    url = serve(line.sse_app(guarding().protect(server))) + "/sse"

    assert http.head(url).status_code == 405
    nobody = {"authorization": f"Bearer {issuer.mint(None)}"}
    assert http.head(url, headers=nobody).status_code == 403


def test_a_guard_on_a_route_that_guards_nothing_is_noticed(line: Line, guarding: Guarding) -> None:
    server: Any = guarding().protect(line.server("calendar"))

    async def export(request: Any) -> Any:
        return request

    server.custom_route("/export", methods=["GET"])(export)
    requires_scopes("admin")(export)

    with pytest.raises(ValueError, match="guards nothing: put the application behind"):
        line.http_app(server, stateless=True)


@pytest.mark.parametrize("line", [line for line in LINES if line.family == "sdk"], ids=str)
def test_nobody_resumes_the_stream_of_somebody_else(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    seen: set[bytes | None] = set()
    app = line.http_app(guarding().protect(line.server("calendar")))
    routes: Any = app.routes
    guard = next(route for route in routes if getattr(route, "path", "") == "/mcp").app
    inside = guard.app

    async def spy(scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            seen.add(dict(scope["headers"]).get(b"last-event-id"))
            await send(message)

        await inside(scope, receive, sending)

    guard.app = spy
    headers = {"authorization": f"Bearer {issuer.mint('alice')}", "last-event-id": "1"}
    http.delete(serve(app) + "/mcp", headers=headers)

    assert seen == {None}


@fastmcp_lines
@pytest.mark.parametrize("protected", [False, True])
def test_an_in_process_session_does_not_lend_its_openers_identity(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    *,
    protected: bool,
) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    opened, released = threading.Event(), threading.Event()
    inner: Any = line.server("inner")
    inner.tool(name="mine")(requires_auth(_secret))
    client = fastmcp.Client(guarding().protect(inner) if protected else inner)
    outer: Any = line.server("outer")

    async def ask(*, user_id: str) -> str:
        async with client:
            if user_id == "alice":
                opened.set()
                await anyio.to_thread.run_sync(released.wait, 10)
            result = await client.call_tool("mine", raise_on_error=False)
        return f"{user_id} is told: {result.content[0].text}"

    outer.tool()(requires_auth(ask))
    url = serve(line.http_app(guarding().protect(outer), stateless=True)) + "/mcp"
    alice, bob = (Caller(http, url, token=issuer.mint(user)) for user in ("alice", "bob"))
    waiting = threading.Thread(target=alice.call, args=("ask",))
    waiting.start()
    try:
        assert opened.wait(10)
        told = bob.call("ask").content
    finally:
        released.set()
        waiting.join(10)

    assert "bob is told" in told
    assert "secret of alice" not in told
