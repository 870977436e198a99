"""Does the guard get along with an auth provider that the framework has already?"""

from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from support.lines import (
    FASTMCP_LINES,
    LINES,
    STATEFUL_MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
    Server,
)
from support.own_auth import fastmcp_verifier, with_token_verifier
from support.wire import Caller, Connect, asked_for
from toolguard import ToolGuard, ToolGuardError, requires_auth, requires_scopes, verifier_for
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
BASIC = ["server.use"]


class _SDKVerifier:
    """A token verifier as the SDK wants it, that may say nothing about subjects."""

    def __init__(self, issuer: LocalIssuer, *, subjects: bool = True) -> None:
        self._verifier = issuer.verifier()
        self._subjects = subjects

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            principal = await self._verifier.verify(token)
        except ToolGuardError:
            return None
        return AccessToken(
            token=token,
            client_id=principal.client_id or "",
            scopes=list(principal.scopes),
            expires_at=int(principal.expires_at),
            subject=principal.user_id if self._subjects else None,
        )


def _authenticated(line: Line, issuer: LocalIssuer, *, subjects: bool = True) -> Server:
    """Return a server with the framework's own auth configured."""
    verifier = _SDKVerifier(issuer, subjects=subjects)
    if line.family == "sdk":
        return with_token_verifier(line, verifier, required_scopes=BASIC)
    auth = importlib.import_module("fastmcp.server.auth")
    provider = auth.RemoteAuthProvider(
        fastmcp_verifier(verifier.verify_token, BASIC),
        authorization_servers=[AnyHttpUrl(issuer.issuer)],
        base_url="https://mcp.test",
    )
    return line.server("own", auth=provider)


def _taking_over(guarding: Guarding, server: Any) -> Any:
    """Protect a server by a guard that takes over what the server verifies."""
    return guarding(verifier="framework").protect(server)


def _server(line: Line, issuer: LocalIssuer, *, subjects: bool = True) -> Server:
    module = {
        "sdk": "mcp.server.auth.middleware.auth_context",
        "fastmcp": "fastmcp.server.dependencies",
    }[line.family]
    get_access_token = importlib.import_module(module).get_access_token
    server = _authenticated(line, issuer, subjects=subjects)

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        token = get_access_token()
        return f"{user_id} {token.client_id} {' '.join(token.scopes)} {token.token.count('.')}"

    @server.tool()
    @requires_scopes("notes.read")
    async def notes(*, user_id: str) -> str:
        return f"notes of {user_id}"

    @server.tool()
    async def plain() -> str:
        return f"plain {get_access_token().client_id}"

    return server


@pytest.fixture
def own(
    mode: Mode, guarding: Guarding, serve_once: ServeOnce, http: httpx.Client, issuer: LocalIssuer
) -> Connect:
    """Make callers of a server with auth of its own."""

    def connected(token: str | None) -> Caller:
        key = ("own auth", mode.line.name, mode.stateless, mode.json)

        def app() -> Any:
            return mode.app(_taking_over(guarding, _server(mode.line, issuer)))

        made = Caller(http, serve_once(key, app) + "/mcp", mode.protocol, token=token)
        if token is not None and mode.has_sessions:
            made.open()
        return made

    return connected


def test_the_guard_and_the_frameworks_own_helpers_agree(own: Connect, issuer: LocalIssuer) -> None:
    alice = own(issuer.mint("alice", scopes=["server.use", "notes.read"]))

    assert alice.call("whoami").value == "alice test-client server.use notes.read 2"
    assert alice.call("notes").value == "notes of alice"
    assert alice.call("plain").value == "plain test-client"


def test_the_guard_refuses_as_ever(own: Connect, issuer: LocalIssuer) -> None:
    missing = own(None).call("notes")
    alice = own(issuer.mint("alice", scopes=["server.use"]))
    refused = alice.call("notes")

    assert (missing.status, missing.challenge) == (401, f'Bearer scope="notes.read", {METADATA}')
    assert refused.status == 403
    named = asked_for(alice.protocol, "notes.read", "server.use")
    assert refused.challenge == (
        f'Bearer error="insufficient_scope", scope="{named}", {METADATA}, '
        'error_description="Token missing required scopes: notes.read"'
    )


def test_the_scopes_the_framework_asks_for_still_count(own: Connect, issuer: LocalIssuer) -> None:
    alice = own(issuer.mint("alice", scopes=["notes.read"]))
    refused = alice.call("notes")

    assert refused.status == 403
    # The framework's own answer, which is none of JSON-RPC.
    assert refused.messages[-1]["error"] == "insufficient_scope"
    assert "server.use" in refused.content
    assert "notes of alice" not in refused.content


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_session_is_not_open_to_others_of_the_same_client(
    own: Connect, issuer: LocalIssuer
) -> None:
    alice = own(issuer.mint("alice", scopes=BASIC))
    bob = Caller(alice.http, alice.endpoint, alice.protocol)
    bob.token, bob.session = issuer.mint("bob", scopes=BASIC), alice.session

    assert bob.call("whoami").status == 404
    assert bob.http.delete(bob.endpoint, headers=bob.headers()).status_code == 404
    assert alice.call("whoami").value.startswith("alice ")


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_verifier_without_subjects_does_not_open_sessions_to_others(
    mode: Mode, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = _server(mode.line, issuer, subjects=False)
    url = serve(mode.app(_taking_over(guarding, server)))
    alice = Caller(http, f"{url}/mcp", mode.protocol, token=issuer.mint("alice", scopes=BASIC))

    # Users of one client could not be told apart, so none of them gets a session.
    assert alice.open().status == 403
    assert alice.session is None


def test_the_frameworks_own_metadata_wins(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    url = serve(line.http_app(_taking_over(guarding, _server(line, issuer))))
    document = http.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()

    assert document["scopes_supported"] == BASIC
    assert document["resource"] == "https://mcp.test/mcp"


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
@pytest.mark.parametrize("served", [{}, {"transport": "sse"}])
def test_a_bare_verifier_of_fastmcp_leaves_the_metadata_to_the_guard(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    served: dict[str, str],
) -> None:
    server = line.server("bare", auth=fastmcp_verifier(_SDKVerifier(issuer).verify_token, BASIC))
    server.tool()(requires_scopes("notes.read")(_notes))
    protected = _taking_over(guarding, server)
    url = serve(protected.http_app(**served))
    document = http.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()

    assert document["scopes_supported"] == ["notes.read"]


# --- a guard that verifies by itself, and a server that does, too


def _refusal(guard: ToolGuard, server: Any) -> str:
    with pytest.raises(ValueError, match='write ToolGuard\\(verifier="framework"') as caught:
        guard.protect(server)
    return str(caught.value)


def test_a_second_auth_is_refused_with_what_to_write(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    server = _authenticated(line, issuer)

    said = _refusal(guarding(), server)
    assert "or remove auth=" in said
    assert "verifier_for(guard)" in said
    _refusal(ToolGuard(issuer=issuer.issuer, audience=issuer.audience), server)
    guarding(verifier="framework").protect(server)  # and nothing of the guards before is left


def test_a_second_auth_that_comes_after_protect_is_refused(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    server = guarding().protect(line.server("late"))
    own: Any = _authenticated(line, issuer)
    names = ["auth"] if line.family == "fastmcp" else ["_token_verifier", "settings"]
    for name in names:
        setattr(server, name, getattr(own, name))

    with pytest.raises(ValueError, match="the server verifies tokens with"):
        line.http_app(server)


@pytest.mark.skipif(not LINES[0].modern, reason="servers of mcp 1 build no app of their own")
def test_a_second_auth_of_a_low_level_server_is_refused(
    guarding: Guarding, issuer: LocalIssuer
) -> None:
    low = importlib.import_module("mcp.server.lowlevel")
    url = AnyHttpUrl("https://mcp.test/mcp")
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(issuer.issuer), resource_server_url=url, validate_token_resource=True
    )
    guard = guarding()
    server = guard.protect(low.Server("low"))

    server.streamable_http_app(auth=auth, token_verifier=verifier_for(guard))
    with pytest.raises(ValueError, match="the server verifies tokens with"):
        server.streamable_http_app(auth=auth, token_verifier=_SDKVerifier(issuer))


def test_an_auth_that_asks_the_same_guard_is_no_second_one(line: Line, guarding: Guarding) -> None:
    guard = guarding()
    guard.protect(with_token_verifier(line, verifier_for(guard)))
    guard.protect(with_token_verifier(line, verifier_for(guard.verifier)))


def test_an_auth_that_asks_another_guard_is_a_second_one(line: Line, guarding: Guarding) -> None:
    _refusal(guarding(), with_token_verifier(line, verifier_for(guarding())))


def test_a_verifier_that_answers_otherwise_than_the_guard_is_a_second_one(
    line: Line, guarding: Guarding
) -> None:
    guard = guarding()
    asking = verifier_for(guard)
    kind: Any = type(asking)
    # As a subclass of a user's may be: it says no to all.
    asking.__class__ = type("Stricter", (kind,), {"verify_token": _refuse})

    _refusal(guard, with_token_verifier(line, asking))


async def _refuse(_: Any, token: str) -> None:
    """Refuse any token."""


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_provider_of_metadata_around_the_same_guard_is_no_second_auth(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    auth = importlib.import_module("fastmcp.server.auth")

    def around(verifier: Any) -> Any:
        servers = [AnyHttpUrl(issuer.issuer)]
        return line.server(
            "remote",
            auth=auth.RemoteAuthProvider(
                verifier, authorization_servers=servers, base_url="https://mcp.test"
            ),
        )

    guard = guarding()
    guard.protect(around(verifier_for(guard)))
    _refusal(guard, around(verifier_for(guarding())))
    _refusal(guard, around(fastmcp_verifier(_SDKVerifier(issuer).verify_token, BASIC)))


async def _notes(*, user_id: str) -> str:
    return f"notes of {user_id}"
