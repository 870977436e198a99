"""Does a framework verify as toolguard does, once it is given a verifier of toolguard's?"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from support.lines import FASTMCP_LINES, LINES, Guarding, Line, Serve, Server
from support.own_auth import with_token_verifier
from support.wire import Caller, Reply
from toolguard import KeysUnavailableError, Principal, ToolGuard, Verifier, requires_scopes
from toolguard.frameworks.framework_auth import has_auth, verifier_for
from toolguard.frameworks.framework_verifier import FrameworkVerifier
from toolguard.frameworks.sdk_auth import SDKTokenVerifier, answering_outages
from toolguard.testing import LocalIssuer

AUDIENCE = "https://mcp.test/mcp"
SDK_LINES = [line for line in LINES if line.family == "sdk"]


class Down:
    """A verifier whose issuer cannot be reached."""

    async def verify(self, token: str) -> Principal:
        raise KeysUnavailableError("The issuer cannot be reached", retry_after=7)


class Counting:
    """A verifier that counts what it is asked."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.asked: list[str] = []

    async def verify(self, token: str) -> Principal:
        self.asked.append(token)
        return await self._verifier.verify(token)


@pytest.fixture(autouse=True)
def imported(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both frameworks imported, or only the official SDK."""
    if getattr(request, "param", "both") == "sdk":
        monkeypatch.delitem(sys.modules, "fastmcp", raising=False)


# A server of the SDK's may run where fastmcp has never been imported.
_SDK = [(line, imported) for line in SDK_LINES for imported in ("both", "sdk")]
_ALL = [*_SDK, *((line, "both") for line in FASTMCP_LINES)]
with_imports = pytest.mark.parametrize(("line", "imported"), _ALL, ids=str, indirect=["imported"])


def telling(line: Line, verifier: Any, **settings: Any) -> Server:
    """Return a server with this verifier and a tool that tells what the framework knows."""
    module = {
        "sdk": "mcp.server.auth.middleware.auth_context",
        "fastmcp": "fastmcp.server.dependencies",
    }[line.family]
    get_access_token = importlib.import_module(module).get_access_token
    server = with_token_verifier(line, verifier, **settings)

    @server.tool()
    async def tell() -> str:
        return json.dumps(get_access_token().model_dump(mode="json"))

    return server


def app_of(line: Line, server: Server) -> Starlette:
    return line.http_app(server, stateless=True, json=True)


def call(http: httpx.Client, url: str, token: str | None, tool: str = "tell") -> Reply:
    return Caller(http, f"{url}/mcp", token=token).call(tool)


# --- a framework asks a verifier of toolguard


@with_imports
def test_a_good_token_is_served_with_all_that_it_says(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    url = serve(app_of(line, telling(line, verifier_for(issuer.verifier()))))
    claims = issuer.claims("alice", scopes=["a", "b"], tenant="acme")
    known = json.loads(call(http, url, token := issuer.sign(claims)).value)

    assert known == {
        **known,
        "token": token,
        "client_id": "test-client",
        "scopes": ["a", "b"],
        "expires_at": claims["exp"],
        "resource": AUDIENCE,
        "subject": "alice",
        "claims": claims,
    }


@with_imports
def test_a_token_that_does_not_hold_up_is_401(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    url = serve(app_of(line, telling(line, verifier_for(issuer.verifier()))))

    assert call(http, url, None).status == 401
    assert call(http, url, "forged").status == 401
    assert call(http, url, issuer.mint("alice", expires_in=-600)).status == 401
    assert call(http, url, issuer.mint("alice", aud="https://other.test")).status == 401


@with_imports
def test_an_outage_is_never_the_callers_fault(line: Line, serve: Serve, http: httpx.Client) -> None:
    answer = call(http, serve(app_of(line, telling(line, verifier_for(Down())))), "a-token")

    assert answer.status == {"fastmcp": 503, "sdk": 500}[line.family]
    assert answer.challenge is None
    if line.family == "fastmcp":
        assert answer.headers["retry-after"] == "7"
        assert answer.body["error"] == "temporarily_unavailable"


@with_imports
def test_an_application_that_is_told_so_answers_an_outage_with_503(
    line: Line, serve: Serve, http: httpx.Client
) -> None:
    app = app_of(line, telling(line, verifier_for(Down())))
    for _ in range(2):  # once more does no harm
        app.user_middleware[:] = answering_outages(app.user_middleware)
    answer = call(http, url := serve(app), "a-token")

    assert (answer.status, answer.headers["retry-after"]) == (503, "7")
    said = {
        "error": "temporarily_unavailable",
        "error_description": "The issuer cannot be reached",
    }
    assert answer.refusal == said
    assert call(http, url, None).status == 401
    listening = http.get(f"{url}/mcp", headers={"authorization": "Bearer a-token"})
    assert (listening.status_code, listening.json()) == (503, said)  # it has no message


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_inside_a_provider_an_outage_is_not_401_either(
    line: Line, serve: Serve, http: httpx.Client
) -> None:
    provider = importlib.import_module("fastmcp.server.auth").RemoteAuthProvider(
        verifier_for(Down()),
        authorization_servers=["https://issuer.test"],
        base_url="https://m.test",
    )
    answer = call(http, serve(app_of(line, telling(line, provider))), "a-token")

    assert (answer.status, answer.challenge) == (500, None)


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_required_scopes_are_held_against_every_request_by_fastmcp(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    verifier = verifier_for(issuer.verifier(), required_scopes=["a", "b"])
    url = serve(app_of(line, telling(line, verifier)))

    assert call(http, url, issuer.mint("alice", scopes=["b", "a"])).status == 200
    refused = call(http, url, issuer.mint("alice", scopes=["a"]))
    # fastmcp's own answer, which is none of JSON-RPC.
    assert (refused.status, refused.messages[-1]["error"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(("line", "imported"), _SDK, ids=str, indirect=["imported"])
def test_the_sdks_own_check_of_the_resource_passes(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    guard = ToolGuard(verifier=issuer.verifier(), audience=AUDIENCE)
    token = issuer.mint("alice", aud=["https://other.test", AUDIENCE])
    for verifying in (issuer.verifier(), guard):
        server = telling(line, verifier_for(verifying), validate_token_resource=True)

        assert call(http, serve(app_of(line, server)), token).status == 200


# --- and a guard protects the server


@requires_scopes("notes.read")
async def _notes(*, user_id: str) -> str:
    return f"notes of {user_id}"


@with_imports
def test_one_guard_can_serve_the_framework_and_protect_its_server(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    guard = guarding()
    server = with_token_verifier(line, verifier_for(guard))
    server.tool("notes")(_notes)
    url = serve(app_of(line, guard.protect(server)))

    alice = call(http, url, issuer.mint("alice", scopes=["notes.read"]), "notes")
    assert alice.value == "notes of alice"
    assert call(http, url, issuer.mint("alice"), "notes").status == 403
    assert call(http, url, "forged", "notes").status == 401


@with_imports
def test_both_ways_at_once_a_token_is_verified_a_single_time(
    line: Line, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    verifier = Counting(issuer.verifier())
    guard = ToolGuard(verifier=FrameworkVerifier(AUDIENCE), audience=AUDIENCE)
    server = with_token_verifier(line, verifier_for(verifier))
    server.tool("notes")(_notes)
    url = serve(app_of(line, guard.protect(server)))
    token = issuer.mint("alice", scopes=["notes.read"])

    assert call(http, url, token, "notes").value == "notes of alice"
    assert verifier.asked == [token]


# --- which verifier it is


@with_imports
def test_the_server_has_auth_of_its_own_then(line: Line, issuer: LocalIssuer) -> None:
    assert has_auth(with_token_verifier(line, verifier_for(issuer.verifier())))


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_where_fastmcp_is_imported_the_verifier_is_one_of_its_own(
    line: Line, issuer: LocalIssuer
) -> None:
    verifier = verifier_for(issuer.verifier())

    assert isinstance(verifier, importlib.import_module("fastmcp.server.auth").TokenVerifier)
    assert repr(verifier) == f"<FastMCPTokenVerifier: {issuer.verifier()!r}>"


def test_without_fastmcp_the_verifier_is_what_the_sdk_takes(
    issuer: LocalIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "fastmcp", raising=False)
    verifier = verifier_for(issuer.verifier())

    assert isinstance(verifier, SDKTokenVerifier)
    assert repr(verifier) == f"<SDKTokenVerifier: {issuer.verifier()!r}>"
    with pytest.raises(ValueError, match="write AuthSettings"):
        verifier_for(issuer.verifier(), required_scopes=["a"])


def test_what_takes_over_from_the_framework_cannot_verify_for_it() -> None:
    takes_over = FrameworkVerifier(AUDIENCE)

    for verifying in (takes_over, ToolGuard(verifier=takes_over, audience=AUDIENCE)):
        with pytest.raises(ValueError, match=r"write verifier_for\(JWTVerifier"):
            verifier_for(verifying)


def test_what_cannot_verify_is_no_verifier() -> None:
    with pytest.raises(TypeError, match="takes a ToolGuard"):
        verifier_for(object())  # type: ignore[arg-type]


def test_a_guard_that_accepts_bound_tokens_only_cannot_verify_for_a_framework(
    issuer: LocalIssuer, guarding: Guarding
) -> None:
    with pytest.raises(ValueError, match='dpop="required"'):
        verifier_for(guarding(dpop="required"))
    assert verifier_for(guarding(dpop="optional"))


@pytest.mark.anyio
async def test_bearer_tokens_of_an_issuer_that_binds_them_are_refused() -> None:
    bound, bearer = (LocalIssuer(f"https://{name}.test", algorithm="ES256") for name in "ab")
    issuers = [bound.described.with_settings(dpop="required"), bearer.described]
    guard = ToolGuard(issuers=issuers, audience=bound.audience)

    for verifying in (guard, guard.verifier):
        verifier = verifier_for(verifying)
        assert await verifier.verify_token(bound.mint("alice")) is None
        assert (await verifier.verify_token(bearer.mint("alice"))).subject == "alice"
