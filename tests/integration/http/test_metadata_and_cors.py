"""What do clients read about the server, and can browsers read it?"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from support.calendar_server import calendar
from support.lines import FASTMCP_LINES, Guarding, Line, Serve, ServeOnce
from support.wire import Caller
from toolguard.testing import LocalIssuer

METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
METADATA_URL = "https://mcp.test/.well-known/oauth-protected-resource/mcp"
DOCUMENT = {
    "resource": "https://mcp.test/mcp",
    "authorization_servers": ["https://issuer.test"],
    "scopes_supported": ["calendar.read", "calendar.write", "contacts.read"],
    "bearer_methods_supported": ["header"],
}
ORIGIN = "http://localhost:6274"


def _origin_of(stranger: Caller) -> str:
    return stranger.endpoint.removesuffix("/mcp")


def test_the_document_is_served_without_a_token_at_the_path_inserted_url(
    stranger: Caller,
) -> None:
    response = stranger.http.get(_origin_of(stranger) + METADATA_PATH)

    assert response.status_code == 200
    assert response.json() == DOCUMENT
    assert response.headers["content-type"] == "application/json"
    assert response.headers["access-control-allow-origin"] == "*"


def test_the_challenge_leads_to_the_document(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = calendar(line)
    resource = "http://127.0.0.1/deep/mcp"
    guard = guarding(resource=resource)
    url = serve(line.http_app(guard.protect(server), stateless=True))
    challenge = str(Caller(http, f"{url}/mcp").call("whoami").challenge)
    found = challenge.partition('resource_metadata="')[2].rstrip('"')

    assert found == "http://127.0.0.1/.well-known/oauth-protected-resource/deep/mcp"
    document = http.get(found.replace("http://127.0.0.1", url)).json()
    assert document["resource"] == resource
    assert issuer.issuer in document["authorization_servers"]


@pytest.mark.parametrize(
    "forged",
    [
        {"host": "evil.test"},
        {"x-forwarded-host": "evil.test", "x-forwarded-proto": "http"},
        {"forwarded": 'host="evil.test";proto=http'},
        {"x-original-url": "/evil", "x-forwarded-prefix": "/evil"},
    ],
)
def test_what_a_client_says_about_the_host_changes_nothing(
    stranger: Caller, issuer: LocalIssuer, forged: dict[str, str]
) -> None:
    document = stranger.http.get(_origin_of(stranger) + METADATA_PATH, headers=forged)
    refused = stranger.post({}, {**stranger.headers(), **forged})
    stranger.token = issuer.mint(expires_in=-600)
    expired = stranger.post({}, {**stranger.headers(), **forged})

    assert (refused.status, expired.status) == (401, 401)
    assert f'resource_metadata="{METADATA_URL}"' in str(refused.challenge)
    assert f'resource_metadata="{METADATA_URL}"' in str(expired.challenge)
    if document.status_code == 200:
        assert document.json()["resource"] == "https://mcp.test/mcp"
    for text in (document.text, refused.content, str(refused.challenge), str(expired.challenge)):
        assert "evil" not in text


def _by_add(app: Starlette) -> Any:
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[ORIGIN],
        allow_methods=["*"],
        expose_headers=["Mcp-Session-Id"],
    )
    return app


def _around(app: Starlette) -> Any:
    exposed = ["WWW-Authenticate"]
    return CORSMiddleware(app, allow_origins=[ORIGIN], allow_methods=["*"], expose_headers=exposed)


def _mounted(app: Starlette) -> Any:
    def lifespan(_: Starlette) -> AbstractAsyncContextManager[Any]:
        return app.router.lifespan_context(app)

    outer = Starlette(routes=[Mount("/", app=app)], lifespan=lifespan)
    exposed = ["Mcp-Session-Id", "WWW-Authenticate"]
    outer.add_middleware(
        CORSMiddleware, allow_origins=[ORIGIN], allow_methods=["POST"], expose_headers=exposed
    )
    return outer


@pytest.fixture(params=[_by_add, _around, _mounted], ids=lambda build: build.__name__)
def browser(
    request: pytest.FixtureRequest,
    line: Line,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
) -> Caller:
    """Call a server whose developer has switched CORS on, in one of the usual ways."""

    def app() -> Any:
        server = guarding().protect(calendar(line))
        return request.param(line.http_app(server, stateless=True, json=True))

    url = serve_once(("cors", line.name, request.param.__name__), app)
    return Caller(http, f"{url}/mcp")


def test_a_browser_can_read_the_challenges(browser: Caller, issuer: LocalIssuer) -> None:
    statuses = []
    for token in (None, issuer.mint(expires_in=-600), issuer.mint("alice")):
        browser.token = token
        params = {"name": "list_events", "arguments": {"day": "monday"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        reply = browser.post(body, {**browser.headers(body), "origin": ORIGIN})
        statuses.append(reply.status)
        exposed = ",".join(reply.headers.get_list("access-control-expose-headers")).lower()

        assert reply.headers.get_list("access-control-allow-origin") == [ORIGIN]
        assert "www-authenticate" in exposed
        assert reply.challenge is not None

    assert statuses == [401, 401, 403]


def test_a_preflight_needs_no_token(browser: Caller) -> None:
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    }
    response = browser.http.options(browser.endpoint, headers=asked)

    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN


def test_a_browser_of_another_origin_is_not_let_in(browser: Caller) -> None:
    reply = browser.post({}, {**browser.headers(), "origin": "http://localhost:9999"})

    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_browser_can_read_the_challenges_when_cors_is_given_to_fastmcp(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    server: Any = guarding().protect(calendar(line))
    cors = Middleware(CORSMiddleware, allow_origins=[ORIGIN])
    url = serve(server.http_app("/mcp", stateless_http=True, middleware=[cors]))
    browser = Caller(http, f"{url}/mcp")
    reply = browser.post({}, {**browser.headers(), "origin": ORIGIN})

    assert (reply.status, reply.headers["access-control-allow-origin"]) == (401, ORIGIN)
    exposed = ",".join(reply.headers.get_list("access-control-expose-headers")).lower()
    assert "www-authenticate" in exposed


def test_any_asgi_app_can_be_put_behind_a_guard(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    url = serve(guarding().asgi(Starlette(routes=[Route("/anything", hello)])))
    refused = http.get(f"{url}/anything")
    allowed = http.get(
        f"{url}/anything", headers={"authorization": f"Bearer {issuer.mint('alice')}"}
    )

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == f'Bearer resource_metadata="{METADATA_URL}"'
    assert (allowed.status_code, allowed.text) == (200, "hello")
    assert http.get(url + METADATA_PATH).json()["resource"] == "https://mcp.test/mcp"
