"""Does the doctor name every known misconfiguration, and nothing that is right?"""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import anyio.lowlevel
import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import (
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from support.lines import LINES, Guarding, Line
from toolguard import KeysUnavailableError, Principal, requires_scopes
from toolguard.audit.doctor.command import diagnose_url, run_doctor
from toolguard.audit.doctor.configuration import look_at_configuration
from toolguard.testing import LocalIssuer
from toolguard.testing.loopback import Loopback

URL, ISSUER = "https://mcp.test/mcp", "https://issuer.test"
CORS = Middleware(
    CORSMiddleware,
    allow_origins=["*"],
    allow_headers=["*"],
    expose_headers=["WWW-Authenticate"],
)


def served(line: Line, guarding: Guarding, **settings: Any) -> Starlette:
    """Return a server that is set up right."""
    server = line.server("notes")

    @server.tool()
    @requires_scopes("notes.read")
    async def read() -> str:
        return "a note"

    guard = guarding(**{"issuer": ISSUER, "connections": None, **settings})
    app = line.http_app(guard.protect(server), stateless=True, json=True)
    app.add_middleware(CORS.cls, *CORS.args, **CORS.kwargs)
    return app


def authority(of: LocalIssuer, /, **members: Any) -> Starlette:
    """Return an authorization server; members replace those of its metadata, None removes one."""
    metadata = {
        **of.metadata(),
        "code_challenge_methods_supported": ["S256"],
        "jwks_uri": f"{ISSUER}/jwks",
        **members,
    }
    known = {name: value for name, value in metadata.items() if value is not None}
    path = "/.well-known/oauth-authorization-server"
    return Starlette(
        routes=[
            Route(path, lambda _: JSONResponse(known)),
            Route("/jwks", lambda _: JSONResponse(of.jwks())),
        ]
    )


def client(mcp: ASGIApp, authority: ASGIApp, origin: str = "https://mcp.test") -> httpx.AsyncClient:
    return httpx.AsyncClient(
        mounts={
            origin: httpx.ASGITransport(mcp),
            ISSUER: httpx.ASGITransport(authority),
        }
    )


Look = Callable[..., dict[str, Any]]


@pytest.fixture
def look(line: Line, guarding: Guarding, issuer: LocalIssuer) -> Look:
    """Look at a server; return the findings by code."""

    def looked(
        mcp: Any = None,
        *,
        by: ASGIApp | None = None,
        token: str | None = None,
        url: str = URL,
        now: float | None = None,
    ) -> dict[str, Any]:
        app = served(line, guarding) if mcp is None else mcp

        async def main() -> dict[str, Any]:
            async with client(app, by or authority(issuer), url.rpartition("/")[0]) as http:
                found = await diagnose_url(http, url, token=token, now=now or time.time())
                return {each.code: each for each in found}

        if isinstance(app, Starlette):

            async def within() -> dict[str, Any]:
                async with app.router.lifespan_context(app):
                    return await main()

            return asyncio.run(within())
        return asyncio.run(main())

    return looked


def answering(status: int, headers: Mapping[str, str] | None = None, body: str = "") -> Starlette:
    async def answer(_: Request) -> Response:
        return PlainTextResponse(body, status_code=status, headers=dict(headers or {}))

    return Starlette(routes=[Route("/mcp", answer, methods=["POST", "OPTIONS"])])


def test_a_server_that_is_set_up_right_has_no_finding(look: Look, issuer: LocalIssuer) -> None:
    assert look(token=issuer.mint("alice", scopes=["notes.read"])) == {}


@pytest.mark.parametrize("status", [404, 405, 421, 429, 500, 502, 503, 504])
def test_another_status_than_401_is_named_with_its_remedy(look: Look, status: int) -> None:
    finding = look(answering(status))[f"status-{status}"]

    assert (finding.expected, finding.found) == ("401 to a caller without a token", str(status))
    assert ("allowed_hosts" in finding.remedy) is (status == 421)


@pytest.mark.parametrize("status", [404, 405, 502, 504])
def test_what_follows_from_another_status_is_not_named_as_well(look: Look, status: int) -> None:
    assert [*look(answering(status))] == [f"status-{status}"]


def test_a_redirect_is_named(look: Look) -> None:
    app = Starlette(routes=[Route("/mcp", lambda _: RedirectResponse("/mcp/"), methods=["POST"])])

    assert "do not send tokens" in look(app)["status-307"].remedy


def test_a_server_without_a_guard_is_noted(look: Look) -> None:
    finding = look(answering(200, body="{}"))["admits-anonymous"]

    assert finding.level == "note"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "challenge-missing"),
        ({"www-authenticate": 'Basic realm="staging"'}, "challenge-invalid"),
        ({"www-authenticate": 'Bearer scope="read"'}, "challenge-without-metadata"),
        (
            {"www-authenticate": 'Bearer resource_metadata="http://10.0.0.1:8000/.well-known/x"'},
            "public-url",
        ),
    ],
)
def test_a_challenge_that_a_proxy_spoilt_is_named(
    look: Look, headers: dict[str, str], code: str
) -> None:
    assert code in look(answering(401, headers))


def test_a_mount_without_the_metadata_route_is_named(
    look: Look, line: Line, guarding: Guarding
) -> None:
    inner = served(line, guarding, audience="https://mcp.test/notes/mcp")
    outer = Starlette(routes=[Mount("/notes", app=inner)])

    async def main() -> set[str]:
        async with (
            inner.router.lifespan_context(inner),
            client(outer, answering(404)) as http,
        ):
            found = await diagnose_url(http, "https://mcp.test/notes/mcp", now=time.time())
            return {each.code for each in found if each.level == "fault"}

    assert asyncio.run(main()) == {"metadata-missing"}


def test_an_audience_that_is_not_the_address_is_named(
    look: Look, line: Line, guarding: Guarding
) -> None:
    found = look(served(line, guarding, audience="https://elsewhere.test/mcp"))

    assert found["public-url"].found == "one that leads to https://elsewhere.test"
    assert found["resource-differs"].found == "resource https://elsewhere.test/mcp"


@pytest.mark.parametrize("audience", ["https://mcp.test/api", "https://mcp.test"])
def test_an_audience_with_another_path_is_named_and_nothing_that_follows_from_it(
    look: Look, line: Line, guarding: Guarding, audience: str
) -> None:
    found = look(served(line, guarding, audience=audience))

    assert [*found] == ["resource-differs"]
    assert found["resource-differs"].found == f"resource {audience}"


def test_metadata_without_an_issuer_is_named(look: Look, line: Line, guarding: Guarding) -> None:
    class Own:
        async def verify(self, _: str) -> Principal:
            raise KeysUnavailableError("down", retry_after=1)

    assert "no-issuer" in look(served(line, guarding, verifier=Own(), issuer=None))


def test_metadata_that_no_web_page_can_read_is_named(look: Look) -> None:
    document = {"resource": URL, "authorization_servers": [ISSUER]}
    path = "/.well-known/oauth-protected-resource/mcp"
    app = answering(401)
    app.routes.append(Route(path, lambda _: JSONResponse(document)))

    assert "metadata-cors" in look(app)


def test_cors_on_the_outer_application_that_hides_the_challenge_is_named(look: Look) -> None:
    challenge = f'Bearer resource_metadata="{URL}"'
    app = answering(401, {"www-authenticate": challenge})
    app.add_middleware(CORSMiddleware, allow_origins=["*"])

    assert "expose_headers" in look(app)["cors-hides-challenge"].remedy


def test_an_endpoint_without_cors_is_noted(look: Look) -> None:
    assert look(answering(401))["cors"].level == "note"


def test_http_to_another_machine_is_named(look: Look) -> None:
    assert "insecure-url" in look(answering(401), url="http://mcp.test/mcp")


@pytest.mark.parametrize("host", ["127.0.0.2:8000", "[::1]:8000", "localhost"])
def test_http_to_this_machine_is_no_fault(look: Look, host: str) -> None:
    assert "insecure-url" not in look(answering(401), url=f"http://{host}/mcp")


def test_a_clock_that_is_wrong_is_named(look: Look) -> None:
    app = answering(401, {"date": "Sun, 29 Nov 2026 12:00:00 GMT"})

    assert look(app, now=1_795_953_600.0 + 90)["clock"].found == "it is 90 s behind"
    assert "clock" not in look(app, now=1_795_953_600.0 + 20)


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"issuer": f"{ISSUER}/"}, "issuer-differs"),
        ({"issuer": "https://login.test/{tenantid}/v2.0"}, "issuer-template"),
        ({"code_challenge_methods_supported": None}, "issuer-without-pkce"),
        ({"code_challenge_methods_supported": ["plain"]}, "issuer-without-pkce"),
        ({"scopes_supported": ["profile"]}, "scopes-not-offered"),
        ({"jwks_uri": f"{ISSUER}/nothing"}, "issuer-without-keys"),
    ],
)
def test_what_is_wrong_with_an_issuer_is_named(
    look: Look, issuer: LocalIssuer, members: dict[str, Any], code: str
) -> None:
    assert [*look(by=authority(issuer, **members))] == [code]


def test_an_issuer_that_cannot_be_reached_is_named(look: Look) -> None:
    found = look(by=answering(404))

    assert [*found] == ["issuer-unreachable"]
    assert found["issuer-unreachable"].found == "none: HTTP 404"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"aud": "https://mcp.test/other"}, "token-audience"),
        ({"aud": None}, "token-audience"),
        ({"iss": "https://issuer.test/"}, "token-issuer"),
        ({"expires_in": -600}, "token-expired"),
        ({"exp": None}, "token-expired"),
        ({"exp": 1e300}, "token-refused"),
    ],
)
def test_what_a_token_lacks_is_named(
    look: Look, issuer: LocalIssuer, claims: dict[str, Any], code: str
) -> None:
    token = issuer.mint("alice", **claims)
    found = look(token=token)

    assert [*found] == [code]
    assert token not in str(found[code])


def test_a_token_that_is_refused_for_no_visible_reason_is_named(
    look: Look, issuer: LocalIssuer
) -> None:
    assert [*look(token=issuer.mint_bad_signature("alice"))] == ["token-refused"]
    assert [*look(token="an-opaque-one")] == ["token-opaque"]


def test_the_time_of_an_expired_token_can_be_read(look: Look, issuer: LocalIssuer) -> None:
    token = issuer.mint("alice", exp=1_795_953_600)

    found = look(token=token, now=1_795_953_600.0 + 90)["token-expired"]

    assert found.found == "exp 1795953600: 2026-11-29 12:00:00 UTC, 90 s ago"


def test_a_reason_that_the_server_names_is_handed_on(look: Look, issuer: LocalIssuer) -> None:
    found = look(token=issuer.mint_bad_signature("alice"))["token-refused"]

    assert found.found == "401: The signature of the token is wrong"


def test_a_proxy_that_drops_the_token_is_named(
    look: Look, line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    app = served(line, guarding)
    app.add_middleware(_WithoutToken)

    found = look(app, token=issuer.mint("alice"))

    assert [*found] == ["token-lost"]
    assert "Authorization" in found["token-lost"].remedy


def test_a_whole_header_as_a_token_is_named(look: Look, issuer: LocalIssuer) -> None:
    assert [*look(token=f"Bearer {issuer.mint('alice')}")] == ["token-unreadable"]


class _WithoutToken:
    """A proxy in front that drops ``Authorization``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = [each for each in scope.get("headers", ()) if each[0] != b"authorization"]
        await self._app({**scope, "headers": kept}, receive, send)


def test_keys_that_the_server_cannot_fetch_are_named(
    look: Look, line: Line, guarding: Guarding
) -> None:
    class Down:
        issuer = ISSUER

        async def verify(self, _: str) -> Principal:
            raise KeysUnavailableError("down", retry_after=1)

    assert [*look(served(line, guarding, verifier=Down()), token="a.b.c")] == ["keys-unavailable"]


def test_missing_scopes_of_a_token_are_named(look: Look, issuer: LocalIssuer) -> None:
    refused = {"error": {"data": {"missing_scopes": ["notes.read", "notes.write"]}}}
    document = {"resource": URL, "authorization_servers": [ISSUER]}
    path = "/.well-known/oauth-protected-resource/mcp"

    async def answer(request: Request) -> Response:
        return JSONResponse(refused, status_code=403 if "authorization" in request.headers else 401)

    mcp = Starlette(
        routes=[
            Route("/mcp", answer, methods=["POST"]),
            Route(path, lambda _: JSONResponse(document)),
        ]
    )
    finding = look(mcp, token=issuer.mint("alice"))["token-forbidden"]

    assert finding.found == "403, missing notes.read notes.write"


# --- the configuration of a server that does not run


def codes(server: Any, environ: Mapping[str, str] | None = None) -> set[str]:
    return {each.code for each in look_at_configuration(server, environ or {})}


def test_the_configuration_of_a_server_is_looked_at(line: Line, guarding: Guarding) -> None:
    assert codes(line.server("bare")) == {"unprotected"}

    server = line.server("notes")
    server.tool("open")(lambda: "anybody's")
    guarding(connections=None, default="public", audience="http://localhost:8000/mcp").protect(
        server
    )
    assert codes(server) == {"default-public", "loopback-url", "secret-unset", "unguarded"}

    server = line.server("notes")
    guarding(connections=None, audience="http://127.0.0.2:8000/mcp").protect(server)
    assert "loopback-url" in codes(server)


def test_a_configuration_that_is_right_has_no_finding(line: Line, guarding: Guarding) -> None:
    # Unless told so, mcp 1 answers on this machine only.
    settings = {"host": "0.0.0.0"} if line.name == "mcp1" else {}
    server = guarding(connections=None).protect(line.server("notes", **settings))

    assert codes(server, {"TOOLGUARD_SECRET": "s" * 32}) == set()


@pytest.mark.skipif(LINES[0].name != "mcp1", reason="the settings of another line")
def test_a_host_that_the_sdk_does_not_know_is_named(guarding: Guarding) -> None:
    server: Any = LINES[0].server("notes", host="127.0.0.1")
    guarding(connections=None).protect(server)

    assert "unknown-host" in codes(server)


# --- the command


def test_the_command_exits_with_1_for_a_fault_and_writes_json(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    def to_a_bad_server() -> httpx.AsyncClient:
        return client(answering(421), authority(issuer))

    out = io.StringIO()
    assert run_doctor(URL, out, as_json=True, client=to_a_bad_server) == 1
    found = {each["code"]: each for each in json.loads(out.getvalue())}
    assert found["status-421"]["level"] == "fault"

    out = io.StringIO()
    assert run_doctor(URL, out, client=to_a_bad_server) == 1
    assert "fault: status-421: https://mcp.test/mcp\n  expected: 401" in out.getvalue()


def test_the_command_exits_with_2_if_nothing_can_be_looked_at() -> None:
    out = io.StringIO()

    assert run_doctor("http://127.0.0.1:1/mcp", out) == 2
    assert run_doctor("no_such_module:server", out) == 2
    assert "cannot be looked at" in out.getvalue()


def test_the_command_looks_at_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, issuer: LocalIssuer
) -> None:
    module = tmp_path / "shop_of_doctor.py"
    module.write_text(
        "from support.lines import LINES\n"
        "from toolguard import ToolGuard\n"
        "server = LINES[-1].server('shop')\n"
        f"ToolGuard(issuer='{ISSUER}', audience='{URL}').protect(server)\n"
    )
    monkeypatch.setenv("TOOLGUARD_SECRET", "s" * 32)
    out = io.StringIO()

    def to_the_issuer() -> httpx.AsyncClient:
        return client(answering(404), authority(issuer))

    assert run_doctor(f"{module}:server", out, client=to_the_issuer) == 0, out.getvalue()
    assert "is set up right" in out.getvalue()


class Hostile(httpx.AsyncBaseTransport):
    """A server that answers each GET with the same document, and keeps what it was asked."""

    def __init__(self, document: object) -> None:
        self.document = document
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if request.method == "GET":
            return httpx.Response(200, json=self.document)
        return httpx.Response(401, headers={"www-authenticate": "Bearer"})

    def look(self, url: str = URL) -> str:
        out = io.StringIO()
        new = lambda: httpx.AsyncClient(transport=self)  # noqa: E731 - a factory
        assert run_doctor(url, out, token="a-token", client=new) == 1
        return out.getvalue()


def test_a_token_is_not_sent_over_http_to_another_machine() -> None:
    server = Hostile({})
    server.look("http://mcp.test/mcp")

    assert not any("authorization" in each.headers for each in server.asked)


def test_a_server_elsewhere_leads_to_no_address_of_this_network() -> None:
    inner = "http://169.254.169.254/latest", "http://127.0.0.1:1/", "https://issuer.test"
    server = Hostile({"authorization_servers": inner, "jwks_uri": "http://10.0.0.1/admin"})

    assert "issuer-insecure" in server.look()
    assert {each.url.host for each in server.asked} == {"mcp.test", "issuer.test"}


def test_a_server_with_any_number_of_issuers_is_looked_at_in_time() -> None:
    server = Hostile({"authorization_servers": [f"https://i{n}.test" for n in range(1_000)]})
    server.look()

    assert len(server.asked) < 50


def test_no_answer_writes_lines_of_its_own_or_moves_the_cursor() -> None:
    shown = Hostile({"resource": "x\x1b[2J\n::set-output name=a::b"}).look()

    assert "\x1b" not in shown
    assert "\n::" not in shown


@pytest.mark.parametrize("wrong", [5, {"a": 1}, [[], None, 5], "x", True])
def test_members_of_a_wrong_type_are_no_fault_of_the_doctor(wrong: object) -> None:
    names = ("scopes_supported", "code_challenge_methods_supported", "jwks_uri", "resource")
    issuers = {"authorization_servers": ["https://issuer.test"]}

    assert Hostile({**dict.fromkeys(names, wrong), **issuers}).look()


async def _pieces(piece: bytes) -> AsyncIterator[bytes]:
    """Yield pieces until the reader stops."""
    while True:
        yield piece
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (b" " * 1024 * 1024, "/mcp has sent more than 16 MiB without an end: correct the URL, or"),
        (b" ", "it takes more than 0.2 s"),
    ],
    ids=["long", "slow"],
)
def test_an_answer_without_an_end_is_not_waited_for(
    piece: bytes, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 60 if len(piece) > 1 else 0.2
    monkeypatch.setattr("toolguard.audit.doctor.command._MOST_SECONDS", seconds)
    out = io.StringIO()

    def answer(_: Request) -> Response:
        return StreamingResponse(_pieces(piece), media_type="application/json")

    app = Starlette(routes=[Route("/mcp", answer, methods=["GET", "POST"])])
    with Loopback(app) as loopback:
        assert run_doctor(f"{loopback.url}/mcp", out) == 2

    assert reason in out.getvalue()
