"""Whom does an access token describe that the framework has verified?"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import SimpleUser, UnauthenticatedUser

from support.asgi import App, exchange, http_scope
from support.callers import Desk
from toolguard.calls.request import SCOPE_KEY
from toolguard.errors import GuardNotConfiguredError, InvalidTokenError
from toolguard.frameworks.framework_verifier import FrameworkVerifier, framework_principal
from toolguard.http.middleware import GuardMiddleware
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer
from toolguard.testing.strategies import json_values

NOW = 1_800_000_000
LOCAL = LocalIssuer(algorithm="ES256", clock=lambda: NOW)
ISSUER, AUDIENCE = LOCAL.issuer, LOCAL.audience
CLAIMS = LOCAL.claims("alice", scopes=["read", "write"], client_id="desktop")
TOKEN = "opaque-and-secret"
OTHER = "https://other.example.com/mcp"


def verified(token: str = TOKEN, **facts: Any) -> AccessToken:
    """Return what a framework's verifier answers."""
    usual = {"client_id": "desktop", "scopes": ["read"], "expires_at": NOW + 60, "subject": "alice"}
    return AccessToken(token=token, **{**usual, **facts})


def principal(
    access_token: AccessToken, token: str = TOKEN, *, exchanges: bool = False
) -> Principal:
    return framework_principal(
        access_token, token, audiences=[AUDIENCE], now=NOW, exchanges=exchanges
    )


def reason(access_token: AccessToken, token: str = TOKEN, *, exchanges: bool = False) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        principal(access_token, token, exchanges=exchanges)
    assert token not in f"{caught.value!r} {caught.value.to_json()}"
    return caught.value.reason


# --- who is calling


def test_the_frameworks_subject_client_and_scopes_replace_the_claims() -> None:
    claims = {**CLAIMS, "roles": ["clerk"], "tenant": "acme", "permissions": ["pay"]}

    alice = principal(verified(claims=claims))

    assert alice == Principal(
        "alice",
        ISSUER,
        "desktop",
        tenant_id="acme",
        tenant_ids=("acme",),
        scopes=("read",),
        permissions=("pay",),
        roles=("clerk",),
        expires_at=NOW + 60,
    )
    assert alice.claims == claims


def test_a_subject_that_only_the_claims_name_counts() -> None:
    assert principal(verified(subject=None, claims={"sub": "bob"})).user_id == "bob"
    assert principal(verified(subject="", claims={"sub": "bob"})).user_id == "bob"
    assert principal(verified(claims={"sub": "bob"})).user_id == "alice"


@pytest.mark.parametrize("claims", [None, {}, {"sub": None}, {"user_id": "admin"}])
def test_a_token_without_a_subject_names_no_user_whatever_else_it_carries(
    claims: dict[str, Any] | None,
) -> None:
    assert principal(verified(subject=None, claims=claims)).user_id is None


@pytest.mark.parametrize("subject", ["", 7, ["alice"], {"id": "alice"}, True])
def test_a_subject_that_is_empty_or_no_text_is_refused(subject: object) -> None:
    assert reason(verified(subject=None, claims={"sub": subject, "userId": "alice"})) == "claims"


def test_a_token_without_an_issuer_shares_no_users_with_any_issuer() -> None:
    assert principal(verified()).issuer == ""
    assert principal(verified(claims={"iss": ISSUER})).issuer == ISSUER


def test_a_client_that_only_the_claims_name_counts() -> None:
    claims = {"azp": "laptop"}

    assert principal(verified(client_id="", claims=claims)).client_id == "laptop"
    assert principal(verified(client_id="", claims=None)).client_id is None
    assert principal(verified(claims=claims)).client_id == "desktop"


_scope_claims = st.dictionaries(
    st.sampled_from(["scope", "scp", "scopes", "permissions", "roles", "tenants"]), json_values()
)


@given(st.lists(st.text(max_size=8)), _scope_claims)
def test_whatever_the_claims_say_the_scopes_are_exactly_the_frameworks(
    scopes: list[str], claims: dict[str, Any]
) -> None:
    found = principal(verified(scopes=scopes, claims=claims)).scopes

    assert set(found) == set(scopes) - {""}
    assert list(found) == sorted(found, key=scopes.index)


@given(st.text(), st.text())
def test_a_token_stands_for_its_own_message_only(sent: str, answered: str) -> None:
    access_token = verified(answered)

    if sent == answered:
        assert principal(access_token, sent).user_id == "alice"
    else:
        with pytest.raises(InvalidTokenError):
            principal(access_token, sent)


def test_an_answer_about_another_token_is_logged_without_either(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert reason(verified("upstream")) == "claims"

    assert "AccessToken(token=token, ...)" in caplog.text
    assert TOKEN not in caplog.text
    assert "upstream" not in caplog.text


# --- for whom


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], [OTHER, AUDIENCE], None])
def test_tokens_for_this_server_or_without_audience_are_accepted(audience: object) -> None:
    assert principal(verified(claims={"aud": audience})).user_id == "alice"


@pytest.mark.parametrize(
    "audience", [AUDIENCE.replace("https://mcp", "HTTPS://MCP"), f"{AUDIENCE}/"]
)
def test_audiences_are_compared_in_their_canonical_form(audience: str) -> None:
    assert principal(verified(claims={"aud": audience}, resource=audience)).user_id == "alice"


@pytest.mark.parametrize(
    "audience",
    [OTHER, [OTHER], [], "", f"{AUDIENCE}//", f"{AUDIENCE} {OTHER}", 7, [AUDIENCE, 7], {}],
)
def test_a_token_for_another_audience_is_refused(audience: object) -> None:
    assert reason(verified(claims={"aud": audience})) == "audience"


@pytest.mark.parametrize("claims", [None, {"aud": AUDIENCE}])
def test_a_token_for_another_resource_is_refused(claims: dict[str, Any] | None) -> None:
    assert reason(verified(resource=OTHER, claims=claims)) == "audience"
    assert principal(verified(resource=AUDIENCE, claims=claims)).user_id == "alice"


@pytest.mark.parametrize("exchanges", [False, True])
@pytest.mark.parametrize("confirmation", [{"jkt": "0ZcOCORZNYy"}, {}, None])
def test_a_bound_token_is_no_bearer_token(exchanges: bool, confirmation: object) -> None:
    access_token = verified(claims={"cnf": confirmation})

    assert reason(access_token, exchanges=exchanges) == "bound"


@pytest.mark.parametrize("active", ["true", "false", False, None, 1, 0, [True], {}])
def test_a_token_that_is_said_to_be_anything_but_active_is_refused(active: object) -> None:
    assert reason(verified(claims={"active": active})) == "claims"


def test_a_token_that_is_said_to_be_active_is_good() -> None:
    assert principal(verified(claims={"active": True})).user_id == "alice"


# --- until when


def test_an_opaque_token_without_an_expiry_is_good_for_the_request() -> None:
    assert principal(verified(expires_at=None)).expires_at == math.inf


def test_a_jwt_without_an_expiry_is_refused() -> None:
    token = LOCAL.mint_without_expiry("alice")

    assert reason(verified(token, expires_at=None), token) == "claims"


def test_a_jwt_that_is_not_even_accepted_here_has_to_expire_too() -> None:
    token = LOCAL.sign(CLAIMS, headers={"jku": "https://keys.example.com"})

    assert reason(verified(token, expires_at=None), token) == "claims"


def test_the_expiry_of_the_claims_counts_where_the_framework_names_none() -> None:
    assert principal(verified(expires_at=None, claims={"exp": NOW + 5})).expires_at == NOW + 5
    assert reason(verified(expires_at=None, claims={"exp": NOW})) == "expired"


@pytest.mark.parametrize("expires_at", [0, -1, 1, NOW - 1, NOW, 10**400])
def test_tokens_past_or_with_a_strange_expiry_have_expired(expires_at: int) -> None:
    assert reason(verified(expires_at=expires_at)) == "expired"


@pytest.mark.parametrize("expiry", [0, "soon", "2000000000", True, [], math.nan, math.inf])
def test_an_expiry_that_is_no_time_is_long_past(expiry: object) -> None:
    assert reason(verified(expires_at=None, claims={"exp": expiry})) == "expired"


# --- servers that give their clients tokens of their own


def test_where_tokens_are_exchanged_the_answer_is_about_the_other_one() -> None:
    upstream = verified("upstream", claims={"aud": "the-proxys-client-id"})

    assert principal(upstream, exchanges=True).user_id == "alice"


def test_where_tokens_are_exchanged_one_that_was_not_is_held_against_the_audience() -> None:
    assert reason(verified(claims={"aud": OTHER}), exchanges=True) == "audience"


# --- one request


def verify_request(scope: dict[str, Any], token: str = TOKEN) -> Principal:
    verifier = FrameworkVerifier(AUDIENCE, clock=lambda: NOW)
    return asyncio.run(verifier.verify_request(scope, token))


def test_the_user_of_the_request_is_taken_over() -> None:
    assert verify_request({"user": AuthenticatedUser(verified())}).user_id == "alice"


def test_a_token_that_the_framework_did_not_accept_is_refused() -> None:
    with pytest.raises(InvalidTokenError):
        verify_request({"user": UnauthenticatedUser()})


@pytest.mark.parametrize("scope", [{}, {"user": None}, {"user": SimpleUser("alice")}])
def test_where_no_auth_of_the_framework_saw_the_request_the_guard_is_misconfigured(
    scope: dict[str, Any],
) -> None:
    with pytest.raises(GuardNotConfiguredError, match=r"FastMCP\(\.\.\., auth=\.\.\.\)"):
        verify_request(scope)


def test_without_a_request_nothing_is_verified_and_the_refusal_says_what_to_write() -> None:
    with pytest.raises(GuardNotConfiguredError, match="give its guard issuer=") as caught:
        asyncio.run(FrameworkVerifier(AUDIENCE).verify(TOKEN))

    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("audience", ["", [], ["", AUDIENCE]])
def test_a_verifier_has_to_know_which_server_this_is(audience: Any) -> None:
    with pytest.raises(ValueError, match="write audience="):
        FrameworkVerifier(audience)


def test_a_verifier_shows_for_whom_it_verifies() -> None:
    assert repr(FrameworkVerifier(AUDIENCE)) == f"<FrameworkVerifier: for {AUDIENCE}>"


# --- in the middleware


def guarded(app: App) -> GuardMiddleware:
    return GuardMiddleware(app, Desk(FrameworkVerifier(AUDIENCE, clock=lambda: NOW)))


async def endpoint(scope: Any, receive: Any, send: Any) -> None:
    caller = scope[SCOPE_KEY].principal
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(caller.user_id).encode()})


def sent_by(user: object, token: str | None = TOKEN) -> dict[str, Any]:
    return {**http_scope(token=token), "user": user}


def test_each_request_is_its_own_users() -> None:
    app = guarded(endpoint)
    alice, bob = verified(), verified("bobs", subject="bob")

    assert exchange(app, sent_by(AuthenticatedUser(alice))).body == b"alice"
    assert exchange(app, sent_by(AuthenticatedUser(bob), "bobs")).body == b"bob"
    assert exchange(app, sent_by(AuthenticatedUser(alice), "bobs")).status == 401


def test_a_user_without_a_token_in_this_request_is_nobody() -> None:
    answer = exchange(guarded(endpoint), sent_by(AuthenticatedUser(verified()), None))

    assert (answer.status, answer.refusal["error"]) == (401, "missing_token")


def test_a_misconfigured_server_answers_500_and_challenges_nobody() -> None:
    answer = exchange(guarded(endpoint), http_scope(token=TOKEN))

    assert (answer.status, answer.refusal["error"]) == (500, "guard_not_configured")
    assert answer.header("www-authenticate") is None
