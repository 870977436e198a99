"""Does a guard know each caller that the framework verified, and nobody else?"""

from __future__ import annotations

import importlib
import itertools
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.server.auth.provider import AccessToken

from support.lines import (
    FASTMCP_LINES,
    LINES,
    MODES,
    STATEFUL_MODES,
    STATELESS_MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
    Server,
)
from support.own_auth import Issued, Known, authenticated, with_token_verifier
from support.wire import Caller, Reply, asked_for, message, request_headers
from toolguard import (
    Principal,
    ToolGuard,
    TrustedUser,
    requires_auth,
    requires_scopes,
    verifier_for,
)
from toolguard.frameworks.framework_auth import check_auth, has_auth
from toolguard.frameworks.framework_verifier import FrameworkVerifier
from toolguard.testing import LocalIssuer

AUDIENCE = "https://mcp.test/mcp"
METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
SHORTLY = [mode for mode in MODES if mode.json and mode.protocol != "2025-06-18"]


def framework_guard(**settings: Any) -> ToolGuard:
    """Return a guard that takes over what the framework verified."""
    usual = {"verifier": "framework", "audience": AUDIENCE}
    return ToolGuard(**{**usual, "issuer": "https://issuer.test", **settings})


def notes(server: Server) -> Server:
    """Put tools on the server."""

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        return user_id

    @server.tool()
    @requires_scopes("notes.read")
    async def read(*, caller: Principal) -> str:
        return f"notes of {caller.user_id} at {caller.issuer} via {caller.client_id}"

    return server


@pytest.fixture(scope="session")
def own(issuer: LocalIssuer) -> Issued:
    """The framework's own verification."""
    return Issued(issuer)


Connect = Callable[[str | None], Caller]


@pytest.fixture
def connect(mode: Mode, serve_once: ServeOnce, http: httpx.Client, own: Issued) -> Connect:
    """Make callers of the server; with a token, ready to call tools."""

    def connected(token: str | None) -> Caller:
        key = ("framework", mode.line.name, mode.stateless, mode.json)

        def app() -> Any:
            server = notes(authenticated(mode.line, own))
            return mode.app(framework_guard().protect(server))

        made = Caller(http, serve_once(key, app) + "/mcp", mode.protocol, token=token)
        if token is not None and mode.has_sessions:
            made.open()
        return made

    return connected


# --- who is calling


def test_the_caller_is_whom_the_framework_verified(connect: Connect, issuer: LocalIssuer) -> None:
    alice = connect(issuer.mint("alice", scopes=["notes.read"]))

    assert alice.call("whoami").value == "alice"
    assert alice.call("read").value == "notes of alice at https://issuer.test via test-client"


def test_each_request_is_verified_once_and_by_the_framework(
    connect: Connect, issuer: LocalIssuer, own: Issued
) -> None:
    token = issuer.mint("alice", scopes=["notes.read"])
    alice = connect(token)
    before = own.asked.count(token)

    assert alice.call("read").status == 200
    assert own.asked.count(token) == before + 1


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_new_token_counts_from_its_own_message(connect: Connect, issuer: LocalIssuer) -> None:
    alice = connect(issuer.mint("alice"))

    assert alice.call("read").status == 403
    alice.token = issuer.mint("alice", scopes=["notes.read"])
    assert alice.call("read").value.startswith("notes of alice ")
    alice.token = issuer.mint("alice")
    assert alice.call("read").status == 403


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_somebody_elses_token_does_not_open_the_session_that_it_is_swapped_into(
    connect: Connect, issuer: LocalIssuer
) -> None:
    alice = connect(issuer.mint("alice"))
    mine, alice.token = alice.token, issuer.mint("bob")

    assert alice.call("whoami").status == 404
    assert alice.http.delete(alice.endpoint, headers=alice.headers()).status_code == 404
    alice.token = mine
    assert alice.call("whoami").value == "alice"


@pytest.mark.parametrize("mode", STATELESS_MODES, ids=str)
def test_without_sessions_every_token_speaks_for_its_own_user(
    connect: Connect, issuer: LocalIssuer
) -> None:
    caller = connect(issuer.mint("alice"))

    assert caller.call("whoami").value == "alice"
    caller.token = issuer.mint("bob")
    assert caller.call("whoami").value == "bob"


# --- who is refused


def test_without_a_token_the_challenge_is_the_guards(connect: Connect) -> None:
    refused = connect(None).call("read")

    assert (refused.status, refused.challenge) == (401, f'Bearer scope="notes.read", {METADATA}')


def test_a_missing_scope_is_a_403_of_the_guards(connect: Connect, issuer: LocalIssuer) -> None:
    alice = connect(issuer.mint("alice", scopes=["notes.list"]))
    refused = alice.call("read")

    assert refused.status == 403
    named = asked_for(alice.protocol, "notes.read", "notes.list")
    assert refused.challenge == (
        f'Bearer error="insufficient_scope", scope="{named}", {METADATA}, '
        'error_description="Token missing required scopes: notes.read"'
    )
    assert refused.body["missing_scopes"] == ["notes.read"]
    assert refused.body["token_scopes"] == ["notes.list"]


def test_a_token_that_the_framework_refuses_is_401(connect: Connect, issuer: LocalIssuer) -> None:
    for token in (issuer.mint("alice", expires_in=-600), "forged"):
        caller = connect(None)
        caller.token = token
        refused = caller.call("whoami")

        assert (refused.status, refused.body["error"]) == (401, "invalid_token")
        assert refused.challenge is not None
        assert 'error="invalid_token"' in refused.challenge


# --- what the framework lets through


@pytest.fixture
def calls(mode: Mode, serve: Serve, http: httpx.Client) -> Callable[[Issued | Known, str], Reply]:
    """Call a tool of a server that has this auth of its own, with some token."""

    def call(own: Issued | Known, token: str) -> Reply:
        server = notes(authenticated(mode.line, own))
        url = serve(mode.app(framework_guard().protect(server)))
        caller = Caller(http, f"{url}/mcp", mode.protocol, token=token)
        if mode.has_sessions:
            opened = caller.open()
            if opened.status != 200:
                return opened
        return caller.call("read")

    return call


Calls = Callable[[Issued | Known, str], Reply]
_OPAQUE: Mapping[str, Any] = {
    "client_id": "desktop",
    "scopes": ["notes.read"],
    "subject": "octocat",
}


@pytest.mark.parametrize("mode", SHORTLY, ids=str)
def test_a_token_for_another_audience_is_refused_though_the_framework_took_it(
    calls: Calls, issuer: LocalIssuer
) -> None:
    own = Issued(issuer, AUDIENCE, "https://other.test/mcp")
    token = issuer.mint("alice", scopes=["notes.read"], aud="https://other.test/mcp")
    refused = calls(own, token)

    assert own.asked == [token]
    assert (refused.status, refused.body["error"]) == (401, "invalid_token")


@pytest.mark.parametrize("mode", SHORTLY, ids=str)
def test_an_opaque_token_without_expiry_audience_and_issuer_is_good(calls: Calls) -> None:
    own = Known({"gho_1": AccessToken(token="gho_1", **_OPAQUE)})

    assert calls(own, "gho_1").value == "notes of octocat at  via desktop"


@pytest.mark.parametrize("mode", SHORTLY, ids=str)
def test_a_jwt_without_an_expiry_is_refused_though_the_framework_took_it(
    calls: Calls, issuer: LocalIssuer
) -> None:
    token = issuer.mint("alice", exp=None)

    assert calls(Known({token: AccessToken(token=token, **_OPAQUE)}), token).status == 401


@pytest.mark.parametrize("mode", SHORTLY, ids=str)
def test_an_answer_about_another_token_is_refused(calls: Calls) -> None:
    assert calls(Known({"a": AccessToken(token="b", **_OPAQUE)}), "a").status == 401


# --- many at once

USERS = ("alice", "bob", "carol", "dave")
AT_ONCE = 12


def _meeting(server: Server) -> Server:
    """Put a tool on the server whose calls wait for each other, so that all users overlap."""
    waiting: list[anyio.Event] = []

    @server.tool()
    @requires_scopes("meet")
    async def introduce(note: str, *, user_id: str) -> str:
        mine = anyio.Event()
        waiting.append(mine)
        if len(waiting) == AT_ONCE:
            for each in waiting:
                each.set()
            waiting.clear()
        await mine.wait()
        return f"{note} {user_id}"

    return server


@pytest.mark.parametrize("line", LINES, ids=str)
def test_interleaved_users_of_stateful_sessions_are_each_themselves(
    line: Line, serve: Serve, issuer: LocalIssuer
) -> None:
    mode = Mode(line, "2025-11-25", stateless=False, json=False)
    server = _meeting(authenticated(line, Issued(issuer)))
    url = serve(mode.app(framework_guard().protect(server))) + "/mcp"
    sessions: dict[str, str] = {}
    answers: dict[str, str] = {}

    async def send(http: httpx.AsyncClient, user: str, method: str, params: Any) -> Reply:
        body = message(mode.protocol, method, params)
        token = issuer.mint(user, scopes=["meet"])  # refreshed for every single call
        headers = request_headers(mode.protocol, body, token=token, session=sessions.get(user))
        return Reply.of(await http.post(url, json=body, headers=headers))

    async def introduce(http: httpx.AsyncClient, user: str, note: str) -> None:
        params = {"name": "introduce", "arguments": {"note": note}}
        answers[note] = (await send(http, user, "tools/call", params)).value

    async def main() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            for user in USERS:
                client = {"name": user, "version": "1"}
                hello = {"protocolVersion": mode.protocol, "capabilities": {}, "clientInfo": client}
                reply = await send(http, user, "initialize", hello)
                sessions[user] = reply.headers["mcp-session-id"]
                await send(http, user, "notifications/initialized", {})
            for turn in range(4):
                async with anyio.create_task_group() as group:
                    for n, user in zip(range(AT_ONCE), itertools.cycle(USERS), strict=False):
                        group.start_soon(introduce, http, user, f"{turn}-{n}")

    anyio.run(main)
    assert answers == {
        f"{turn}-{n}": f"{turn}-{n} {user}"
        for turn in range(4)
        for n, user in zip(range(AT_ONCE), itertools.cycle(USERS), strict=False)
    }


def test_over_http_and_sse_the_caller_is_whom_the_framework_verified(
    line: Line, serve: Serve, issuer: LocalIssuer
) -> None:
    own = Issued(issuer)
    url = serve(line.sse_app(framework_guard().protect(notes(authenticated(line, own)))))
    token = issuer.mint("alice")

    async def main() -> Any:
        headers = {"authorization": f"Bearer {token}"}
        async with (
            sse_client(f"{url}/sse", headers=headers) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            return await session.call_tool("whoami", {})

    assert anyio.run(main).content[0].text == "alice"


# --- where the framework verifies nothing


def _in_process(line: Line, server: Any) -> dict[str, Any]:
    """Call a tool over the line's own in-memory transport; return the result."""

    async def main() -> dict[str, Any]:
        async with line.in_memory(server) as call:
            result = await call("whoami", {})
        dumped = result.model_dump(mode="json", by_alias=True)
        assert isinstance(dumped, dict)
        return dumped

    return anyio.run(main)


def _refusal(result: dict[str, Any]) -> Any:
    assert result["isError"] is True
    return json.loads(result["content"][0]["text"])


def test_over_stdio_a_token_is_refused_and_the_refusal_says_what_to_write(
    line: Line, issuer: LocalIssuer, own: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLGUARD_ACCESS_TOKEN", issuer.mint("alice"))
    guard = framework_guard()
    server = guard.protect(notes(authenticated(line, own)))
    with guard.serving_stdio():
        refusal = _refusal(_in_process(line, server))

    assert refusal["error"] == "guard_not_configured"
    assert 'stdio=TrustedUser("...")' in refusal["error_description"]


def test_trusted_stdio_needs_no_auth_of_the_framework(line: Line, own: Issued) -> None:
    guard = framework_guard(stdio=TrustedUser("operator"))
    server = guard.protect(notes(authenticated(line, own)))
    with guard.serving_stdio():
        result = _in_process(line, server)

    assert result["content"][0]["text"] == "operator"


def test_in_memory_a_call_that_nobody_makes_is_refused(line: Line, own: Issued) -> None:
    server = framework_guard().protect(notes(authenticated(line, own)))

    assert _refusal(_in_process(line, server))["error"] == "guard_not_configured"


def test_a_server_without_auth_answers_500_to_every_token(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    url = serve(
        line.http_app(
            framework_guard(verifier=FrameworkVerifier(AUDIENCE)).protect(
                notes(line.server("bare"))
            ),
            stateless=True,
        )
    )
    caller = Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=["notes.read"]))
    refused = caller.call("whoami")

    assert (refused.status, refused.body["error"]) == (500, "guard_not_configured")
    assert "auth=" in refused.body["error_description"]


def test_a_server_without_auth_is_told_apart(line: Line, own: Issued) -> None:
    assert has_auth(authenticated(line, own))
    check_auth(authenticated(line, own), framework_guard())
    with pytest.raises(ValueError, match='verifier="framework" takes over'):
        framework_guard().protect(line.server("bare"))
    assert not has_auth(line.server("bare"))
    with pytest.raises(ValueError, match=r"write FastMCP\(\.\.\., auth=\.\.\.\)"):
        check_auth(line.server("bare"), framework_guard())


# --- servers in servers


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_mounted_server_does_not_take_over_what_the_outer_ones_auth_verified(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    inner = framework_guard().protect(notes(authenticated(line, Issued(issuer))))
    guard = guarding()
    outer: Any = with_token_verifier(line, verifier_for(guard))
    outer.mount(inner)
    url = serve(line.http_app(guard.protect(outer), stateless=True, json=True))
    token = issuer.mint("alice", scopes=["notes.read"])
    refused = Caller(http, f"{url}/mcp", token=token).call("read")

    assert refused.status == 500
    assert "guard_not_configured" in refused.content
    assert "a mounted server" in refused.content


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_mounted_server_with_a_verifier_of_its_own_checks_for_itself(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    outer: Any = authenticated(line, Issued(issuer, AUDIENCE, "https://outer.test"))
    outer.mount(guarding().protect(notes(line.server("inner"))))
    guard = framework_guard(verifier=FrameworkVerifier([AUDIENCE, "https://outer.test"]))
    url = serve(line.http_app(guard.protect(outer), stateless=True, json=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))
    stranger = Caller(http, f"{url}/mcp", token=issuer.mint("alice", aud="https://outer.test"))

    assert alice.call("whoami").value == "alice"
    assert stranger.call("whoami").status == 401


# --- fastmcp's OAuthProxy


def _proxy(upstream: AccessToken) -> Any:
    """Return an OAuthProxy that gave its client the token ``own``, for the upstream one."""
    with warnings.catch_warnings(record=True):  # of authlib, about its own imports
        proxy: Any = importlib.import_module("fastmcp.server.auth.oauth_proxy")
    auth = importlib.import_module("fastmcp.server.auth")
    stores = importlib.import_module("key_value.aio.stores.memory")

    class Proxy(proxy.OAuthProxy):  # type: ignore[misc]
        async def load_access_token(self, token: str) -> AccessToken | None:
            return upstream if token == "own" else None

    return Proxy(
        upstream_authorization_endpoint="https://upstream.test/authorize",
        upstream_token_endpoint="https://upstream.test/token",
        upstream_client_id="client",
        upstream_client_secret="a secret of the proxy's",
        token_verifier=auth.TokenVerifier(),
        base_url="https://mcp.test",
        jwt_signing_key="a signing key of the proxy's own",
        client_storage=stores.MemoryStore(),
    )


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
@pytest.mark.parametrize("several", [False, True])
def test_behind_an_oauth_proxy_the_caller_is_who_signed_in_upstream(
    line: Line, serve: Serve, http: httpx.Client, several: bool
) -> None:
    upstream = AccessToken(token="gho_1", claims={"aud": "client"}, **_OPAQUE)
    auth = _proxy(upstream)
    if several:
        auth = importlib.import_module("fastmcp.server.auth").MultiAuth(server=auth)
    server = framework_guard().protect(notes(line.server("proxied", auth=auth)))
    url = serve(line.http_app(server, stateless=True, json=True))

    assert Caller(http, f"{url}/mcp", token="own").call("whoami").value == "octocat"
    # Whoever steals the upstream token has none for this server.
    assert Caller(http, f"{url}/mcp", token="gho_1").call("whoami").status == 401
