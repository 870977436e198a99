"""What becomes of a token that is bound to a key, on every line?"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from mcp.client.auth.utils import (
    extract_field_from_www_auth,
    extract_resource_metadata_from_www_auth,
    extract_scope_from_www_auth,
)

from support.calendar_server import calendar
from support.dpop_checks import CHECKS, REJECTED, Prober, nonce_flow
from support.lines import (
    LEGACY_PROTOCOLS,
    LINES,
    MODERN_PROTOCOL,
    STATEFUL_MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
)
from support.provers import Prover, ProvingCaller
from support.task_servers import TASK_LINE, Tasked, server_with_tasks
from support.transfers import transfers
from support.wire import Caller, Reply, asked_for, message, request_headers
from toolguard import requires_scopes
from toolguard.testing import LocalIssuer
from toolguard.testing.proofs import INVALID_PROOFS, ProofKey
from toolguard.tokens.proofs import DPoP

URL = "https://mcp.test/mcp"
METADATA_URL = "https://mcp.test/.well-known/oauth-protected-resource/mcp"
KEY = ProofKey()
ALGS = 'algs="ES256 ES384 ES512 EdDSA Ed25519 PS256 PS384 PS512 RS256"'

Endpoint = Callable[..., str]


@pytest.fixture
def endpoint(guarding: Guarding, serve_once: ServeOnce) -> Endpoint:
    """Serve the calendar in some mode with settings for bound tokens; return its URL."""

    def served(mode: Mode, dpop: Any = "optional") -> str:
        key = ("bound", mode.line.name, mode.stateless, mode.json, repr(dpop))
        guard = functools.partial(guarding, dpop=dpop)
        return serve_once(key, lambda: mode.app(guard().protect(calendar(mode.line)))) + "/mcp"

    return served


@pytest.fixture
def quick(line: Line) -> Mode:
    """One way of speaking to each line, for what happens before a framework is reached."""
    return Mode(line, LEGACY_PROTOCOLS[-1], stateless=True, json=True)


def prover(issuer: LocalIssuer, key: ProofKey = KEY, **token: Any) -> Prover:
    return Prover(key, issuer.mint(**{"scopes": ["calendar.read"], **token}, key=key))


def posted(
    http: httpx.Client, url: str, mode: Mode, scheme: str | None, token: str, *proofs: str
) -> Reply:
    """Send one message with exactly these credentials."""
    body = message(mode.protocol, "tools/call", {"name": "list_events", "arguments": {"day": "m"}})
    headers = [*request_headers(mode.protocol, body).items()]
    if scheme is not None:
        headers.append(("authorization", f"{scheme} {token}"))
    return Reply.of(
        http.post(url, json=body, headers=[*headers, *(("dpop", each) for each in proofs)])
    )


def test_a_bound_token_with_a_proof_is_served(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    alice = ProvingCaller(http, endpoint(mode), mode.protocol, prover(issuer))
    if mode.has_sessions:
        assert alice.open().status == 200

    assert alice.call("whoami").value == "alice"
    assert alice.call("list_events", {"day": "monday"}).value == "monday of alice"


def test_a_missing_scope_of_a_bound_token_keeps_the_form_of_its_challenge(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    alice = ProvingCaller(http, endpoint(mode, "required"), mode.protocol, prover(issuer))
    if mode.has_sessions:
        alice.open()

    reply = alice.call("create_event", {"title": "lunch"})

    named = asked_for(mode.protocol, "calendar.write calendar.read contacts.read", "calendar.read")
    start = f'Bearer error="insufficient_scope", scope="{named}", resource_metadata="'
    assert reply.status == 403
    assert str(reply.challenge).startswith(start)
    assert "DPoP" not in str(reply.challenge)


@pytest.mark.parametrize("dpop", ["off", "optional", "required"])
def test_a_bound_token_as_bearer_is_refused_in_every_mode(
    dpop: str, quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"], key=KEY)

    for proofs in ([], [KEY.prove("POST", URL, token)]):
        reply = posted(http, endpoint(quick, dpop), quick, "Bearer", token, *proofs)
        assert (reply.status, reply.refusal["error"]) == (401, "invalid_token")
        assert 'error="invalid_token"' in str(reply.challenge)


def test_an_unbound_token_with_dpop_is_refused(
    quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"])
    proof = KEY.prove("POST", URL, token)

    reply = posted(http, endpoint(quick), quick, "DPoP", token, proof)

    assert (reply.status, reply.refusal["error"]) == (401, "invalid_token")
    assert 'DPoP error="invalid_token"' in str(reply.challenge)


def test_a_bearer_token_is_served_beside_bound_ones_only_if_optional(
    quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"])

    assert posted(http, endpoint(quick), quick, "Bearer", token).value == "m of alice"
    reply = posted(http, endpoint(quick, "required"), quick, "Bearer", token)
    assert (reply.status, reply.refusal["error"]) == (401, "invalid_token")
    assert str(reply.challenge).startswith('DPoP error="invalid_token"')


def test_a_bound_token_with_dpop_is_not_read_where_it_is_off(
    quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"], key=KEY)
    proof = KEY.prove("POST", URL, token)

    reply = posted(http, endpoint(quick, "off"), quick, "DPoP", token, proof)

    assert (reply.status, reply.refusal["error"]) == (401, "missing_token")


@pytest.mark.parametrize("name", INVALID_PROOFS)
def test_an_invalid_proof_is_refused_with_a_challenge(
    name: str, quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"], key=KEY)

    reply = posted(
        http, endpoint(quick), quick, "DPoP", token, *KEY.prove_invalid(name, "POST", URL, token)
    )

    error = "invalid_token" if INVALID_PROOFS[name] == "binding" else "invalid_dpop_proof"
    assert (reply.status, reply.refusal["error"]) == (401, error)
    challenge = str(reply.challenge)
    assert challenge.startswith("Bearer scope=")
    assert f', DPoP error="{error}", error_description="' in challenge
    assert challenge.endswith(ALGS)


def test_a_server_passes_the_checks_of_the_conformance_suite(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    prober = Prober(http, endpoint(mode), URL, mode.protocol, issuer, KEY)

    found = {name: check(prober) for name, check in CHECKS.items()}

    assert found == {**dict.fromkeys(CHECKS, REJECTED), "AcceptsValidProof": "200"}


def test_a_server_passes_the_check_of_nonces(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    url = endpoint(mode, DPoP("required", nonces=True))
    prober = Prober(http, url, URL, mode.protocol, issuer, KEY)

    assert nonce_flow(prober) == ["401", "200", REJECTED]


def test_a_proof_is_accepted_once(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"], key=KEY)
    proof = KEY.prove("POST", URL, token)

    replies = [posted(http, endpoint(mode), mode, "DPoP", token, proof) for _ in range(2)]

    assert [reply.status for reply in replies][1] == 401
    assert replies[1].refusal["error"] == "invalid_dpop_proof"
    if not mode.has_sessions:
        assert replies[0].value == "m of alice"


def test_a_host_that_a_client_names_is_not_the_target(
    quick: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    token = issuer.mint(scopes=["calendar.read"], key=KEY)
    url = endpoint(quick)

    for target in (url, "https://evil.example/mcp"):
        forged = {"x-forwarded-host": "evil.example", "x-forwarded-proto": "https"}
        body = message(quick.protocol, "tools/call", {"name": "whoami", "arguments": {}})
        reply = http.post(
            url,
            json=body,
            headers={
                **request_headers(quick.protocol, body),
                **forged,
                "authorization": f"DPoP {token}",
                "dpop": KEY.prove("POST", target, token),
            },
        )
        assert reply.status_code == 401
        assert 'error="invalid_dpop_proof"' in reply.headers["www-authenticate"]


def test_a_challenge_to_nobody_names_bearer_before_dpop(
    quick: Mode, endpoint: Endpoint, http: httpx.Client
) -> None:
    both = posted(http, endpoint(quick), quick, None, "")
    bound = posted(http, endpoint(quick, "required"), quick, None, "")
    plain = f'scope="calendar.read", resource_metadata="{METADATA_URL}"'

    assert both.challenge == f"Bearer {plain}, DPoP {ALGS}"
    assert bound.challenge == f"DPoP {plain}, {ALGS}"


@pytest.mark.parametrize("dpop", ["optional", "required"])
def test_the_official_client_reads_a_challenge_with_dpop(
    dpop: str, quick: Mode, endpoint: Endpoint, http: httpx.Client
) -> None:
    reply = posted(http, endpoint(quick, dpop), quick, None, "")
    library: Any = importlib.import_module("httpx2" if quick.line.modern else "httpx")
    response = library.Response(401, headers={"www-authenticate": str(reply.challenge)})

    assert extract_scope_from_www_auth(response) == "calendar.read"
    assert extract_resource_metadata_from_www_auth(response) == METADATA_URL
    assert extract_field_from_www_auth(response, "error") is None


def test_the_metadata_tells_of_dpop(quick: Mode, endpoint: Endpoint, http: httpx.Client) -> None:
    def metadata(dpop: str) -> Any:
        origin = endpoint(quick, dpop).removesuffix("/mcp")
        return http.get(f"{origin}/.well-known/oauth-protected-resource/mcp").json()

    names = {"dpop_signing_alg_values_supported", "dpop_bound_access_tokens_required"}
    assert names.isdisjoint(metadata("off"))
    assert metadata("optional")["dpop_signing_alg_values_supported"][0] == "ES256"
    assert "dpop_bound_access_tokens_required" not in metadata("optional")
    assert metadata("required")["dpop_bound_access_tokens_required"] is True


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_session_belongs_to_the_key_that_opened_it(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    alice = ProvingCaller(http, endpoint(mode), mode.protocol, prover(issuer))
    assert alice.open().status == 200
    thief = ProvingCaller(http, endpoint(mode), mode.protocol, prover(issuer, ProofKey()))
    bearer = Caller(
        http, endpoint(mode), mode.protocol, token=issuer.mint(scopes=["calendar.read"])
    )
    thief.session = bearer.session = alice.session

    assert thief.call("whoami").status == 404
    assert bearer.call("whoami").status == 404
    assert alice.call("whoami").value == "alice"


def test_a_server_with_nonces_has_its_clients_use_them(
    mode: Mode, endpoint: Endpoint, issuer: LocalIssuer, http: httpx.Client
) -> None:
    settings = DPoP("required", nonces=True)
    url = endpoint(mode, settings)
    token = issuer.mint(scopes=["calendar.read"], key=KEY)

    first = posted(http, url, mode, "DPoP", token, KEY.prove("POST", URL, token))
    alice = ProvingCaller(http, url, mode.protocol, prover(issuer))
    if mode.has_sessions:
        assert alice.open().status == 200
    served = alice.call("whoami")

    assert (first.status, first.refusal["error"]) == (401, "use_dpop_nonce")
    assert str(first.challenge).startswith('DPoP error="use_dpop_nonce"')
    assert first.headers["dpop-nonce"]
    assert "DPoP-Nonce" in first.headers["access-control-expose-headers"]
    assert served.value == "alice"
    assert served.headers["dpop-nonce"] == alice.prover.nonce


def test_two_issuers_may_differ_in_what_they_bind(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    bound, bearer = (
        LocalIssuer(f"https://{name}.test", audience=URL, algorithm="ES256") for name in "ab"
    )
    guard = guarding(
        verifier=None,
        issuers=[bound.described.with_settings(dpop="required"), bearer.described],
    )
    mode = Mode(line, LEGACY_PROTOCOLS[-1], stateless=True, json=True)
    url = serve(mode.app(guard.protect(calendar(line)))) + "/mcp"

    def status(issuer: LocalIssuer, *, with_key: bool) -> int:
        token = issuer.mint(scopes=["calendar.read"], key=KEY if with_key else None)
        proofs = [KEY.prove("POST", URL, token)] if with_key else []
        scheme = "DPoP" if with_key else "Bearer"
        return posted(http, url, mode, scheme, token, *proofs).status

    assert [status(bound, with_key=each) for each in (True, False)] == [200, 401]
    assert [status(bearer, with_key=each) for each in (True, False)] == [401, 200]


# --- what belongs to the key


@contextmanager
def proving(issuer: LocalIssuer, key: ProofKey, **token: Any) -> Iterator[httpx.Client]:
    """Yield an HTTP client whose requests carry a token that is bound to ``key``."""
    with httpx.Client(auth=prover(issuer, key, **token), timeout=10) as client:
        yield client


@pytest.mark.skipif(TASK_LINE is None, reason="no line here has background tasks")
def test_a_task_is_unknown_to_another_key(
    guarding: Guarding, serve: Serve, issuer: LocalIssuer, http: httpx.Client
) -> None:
    assert TASK_LINE is not None
    server = server_with_tasks()

    @server.tool(task=True)
    @requires_scopes("calendar.read")
    async def write(line: str, *, user_id: str) -> str:
        return f"{line} by {user_id}"

    guarding(dpop="optional").protect(server)
    url = serve(TASK_LINE.http_app(server))
    with proving(issuer, KEY) as own, proving(issuer, ProofKey()) as foreign:
        alice, thief = (Tasked.at(client, url, None) for client in (own, foreign))
        bearer = Tasked.at(http, url, issuer.mint(scopes=["calendar.read"]))
        task = alice.start("write", line="dear diary")

        for other in (thief, bearer):
            assert "not found" in other.about("tasks/get", task).content
        assert alice.outcome(task) == "dear diary by alice"


@pytest.mark.parametrize("line", [each for each in LINES if each.modern], ids=str)
def test_a_sealed_state_serves_no_other_key(
    line: Line, guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    server = guarding(dpop="optional").protect(transfers(line, "transferred"))
    url = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
    can: dict[str, Any] = {"elicitation": {"form": {}}}

    def call(client: httpx.Client, **more: Any) -> Reply:
        caller = Caller(client, url, MODERN_PROTOCOL, capabilities=can)
        return caller.send("tools/call", {"name": "transfer", "arguments": {}, **more})

    with proving(issuer, KEY) as own, proving(issuer, ProofKey()) as foreign:
        answer = {
            "inputResponses": {"ok": {"action": "accept", "content": {"ok": True}}},
            "requestState": call(own).result["requestState"],
        }
        assert "transferred" not in call(foreign, **answer).content
        assert call(own, **answer).value == "transferred"
