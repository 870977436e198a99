"""Tokens that only their issuer can vouch for (RFC 7662)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Issuer, ToolGuard
from toolguard.connections.client_auth import ClientSecretPost
from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.tokens import introspection
from toolguard.tokens.introspection import (
    BasicClient,
    BearerClient,
    ConfirmedVerifier,
    HTTPAnswer,
    Introspection,
    IntrospectionVerifier,
)
from toolguard.tokens.keys import StaticKeys
from toolguard.tokens.trust import IssuerVerifier

NOW = 1_800_000_000
ISSUER, SERVER = "https://a.test", "https://mcp.test/mcp"
ENDPOINT = f"{ISSUER}/introspect"
GOOD: dict[str, Any] = {
    "active": True,
    "sub": "alice",
    "client_id": "app",
    "scope": "read write",
    "aud": SERVER,
    "exp": NOW + 300,
}
TOKEN = "opaque-canary-token"


class Endpoint:
    """Answers introspection as the test says, and keeps what it was sent."""

    def __init__(self, *members: Any, status: int = 200, retry_after: str = "") -> None:
        self.body: bytes = json.dumps(members[0] if members else GOOD).encode()
        self.status = status
        self.retry_after = retry_after
        self.failure: str | None = None
        self.requests: list[tuple[str, dict[str, list[str]], Mapping[str, str]]] = []

    async def __call__(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        timeout: float,
    ) -> HTTPAnswer | str:
        self.requests.append((url, parse_qs(body.decode()), headers))
        await asyncio.sleep(0)
        return self.failure or HTTPAnswer(self.status, self.retry_after, self.body)


def verifier_of(endpoint: Endpoint, **settings: Any) -> IntrospectionVerifier:
    asking = {
        "client": BasicClient("server", "se:cret"),
        "endpoint": ENDPOINT,
        **settings.pop("asking", {}),
    }
    clock = settings.pop("clock", lambda: float(NOW))
    described = Issuer(ISSUER, introspection=Introspection(**asking), **settings)
    return IntrospectionVerifier(described, audience=SERVER, post=endpoint, clock=clock)


def reason(answer: Any, **settings: Any) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifier_of(Endpoint(answer), **settings).verify(TOKEN))
    assert TOKEN not in str(caught.value)
    return caught.value.reason


def outage(endpoint: Endpoint) -> KeysUnavailableError:
    with pytest.raises(KeysUnavailableError) as caught:
        asyncio.run(verifier_of(endpoint).verify(TOKEN))
    assert TOKEN not in str(caught.value)
    return caught.value


def test_an_active_token_is_its_subjects() -> None:
    endpoint = Endpoint()
    principal = asyncio.run(verifier_of(endpoint).verify(TOKEN))

    assert (principal.user_id, principal.issuer, principal.client_id) == ("alice", ISSUER, "app")
    assert principal.scopes == ("read", "write")
    ((url, form, headers),) = endpoint.requests
    assert url == ENDPOINT
    assert form == {"token": [TOKEN], "token_type_hint": ["access_token"]}
    assert headers["Authorization"] == "Basic c2VydmVyOnNlJTNBY3JldA=="


@pytest.mark.parametrize(
    "active", [False, None, "true", "false", 1, 0, [], {}, [True], {"active": True}]
)
def test_only_true_is_active(active: Any) -> None:
    endpoint = Endpoint({**GOOD, "active": active})

    with pytest.raises((InvalidTokenError, KeysUnavailableError)):
        asyncio.run(verifier_of(endpoint).verify(TOKEN))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"active": False}, "inactive"),
        ({"iss": "https://b.test"}, "issuer"),
        ({"iss": None}, "issuer"),
        ({"aud": "https://other.test"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": [SERVER, 5]}, "audience"),
        ({"exp": NOW - 60}, "expired"),
        ({"exp": "soon"}, "claims"),
        ({"exp": None}, "claims"),
        ({"nbf": NOW + 60}, "not_yet_valid"),
        ({"sub": ""}, "claims"),
        ({"sub": 5}, "claims"),
        ({"cnf": {"jkt": "x"}}, "bound"),
        ({"token_type": "DPoP"}, "bound"),
        ({"token_type": 5}, "bound"),
        ({"act": "agent"}, "claims"),
        ({"token_use": "id"}, "type"),
        ({"events": {}}, "type"),
    ],
)
def test_an_answer_is_checked_as_a_token_is(changes: dict[str, Any], expected: str) -> None:
    assert reason({**GOOD, **changes}) == expected


@pytest.mark.parametrize("missing", ["aud", "exp"])
def test_an_answer_without_audience_or_expiry_is_refused(missing: str) -> None:
    assert reason({name: GOOD[name] for name in GOOD if name != missing}) in ("audience", "claims")


def test_clients_may_stand_for_a_missing_audience() -> None:
    answer = {name: GOOD[name] for name in GOOD if name != "aud"}

    principal = asyncio.run(verifier_of(Endpoint(answer), clients=["app"]).verify(TOKEN))
    assert principal.client_id == "app"
    assert reason(answer, clients=["other"]) == "audience"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503, 302, 204])
def test_an_endpoint_that_refuses_is_an_outage(status: int) -> None:
    assert outage(Endpoint(status=status)).retry_after == 5


def test_the_endpoint_says_when_to_come_back() -> None:
    assert outage(Endpoint(status=429, retry_after="17")).retry_after == 17


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"active":true,"active":false}', b"{}", b" " * 300_000],
)
def test_an_answer_that_cannot_be_read_is_an_outage(body: bytes) -> None:
    endpoint = Endpoint()
    endpoint.body = body
    outage(endpoint)


def test_an_endpoint_that_is_silent_is_an_outage() -> None:
    endpoint = Endpoint()
    endpoint.failure = "ConnectError"
    assert "ConnectError" in str(outage(endpoint))


def test_a_thousand_calls_with_one_token_make_one_request() -> None:
    endpoint = Endpoint()
    verifier = verifier_of(endpoint)

    async def all_at_once() -> None:
        principals = await asyncio.gather(*(verifier.verify(TOKEN) for _ in range(1_000)))
        assert {each.user_id for each in principals} == {"alice"}

    asyncio.run(all_at_once())
    assert len(endpoint.requests) == 1


def test_every_request_asks_again_by_default() -> None:
    endpoint = Endpoint()
    verifier = verifier_of(endpoint)

    for _ in range(3):
        asyncio.run(verifier.verify(TOKEN))
    assert len(endpoint.requests) == 3


def test_an_answer_is_used_again_only_as_long_as_was_asked_for() -> None:
    clock, endpoint = FrozenClock(NOW), Endpoint({**GOOD, "exp": NOW + 20})
    verifier = verifier_of(endpoint, asking={"cache_for": 30.0}, clock=clock)

    for _ in range(3):
        asyncio.run(verifier.verify(TOKEN))
    assert len(endpoint.requests) == 1
    clock.advance(20)
    endpoint.body = json.dumps({"active": False}).encode()
    with pytest.raises(InvalidTokenError, match="not active"):
        asyncio.run(verifier.verify(TOKEN))
    assert len(endpoint.requests) == 2


def test_a_cancelled_call_cancels_no_other() -> None:
    endpoint = Endpoint()
    verifier = verifier_of(endpoint)

    async def cancel_one() -> str | None:
        cancelled, other = (asyncio.ensure_future(verifier.verify(TOKEN)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        return (await other).user_id

    assert asyncio.run(cancel_one()) == "alice"


@pytest.mark.parametrize(
    ("client", "authorization", "parameters"),
    [
        (BearerClient("own"), "Bearer own", {}),
        (ClientSecretPost("server", "secret"), None, {"client_id": "server"}),
    ],
)
def test_the_server_proves_itself_as_it_was_told(
    client: Any, authorization: str | None, parameters: dict[str, str]
) -> None:
    endpoint = Endpoint()
    asyncio.run(verifier_of(endpoint, asking={"client": client}).verify(TOKEN))

    ((_, form, headers),) = endpoint.requests
    assert headers.get("Authorization") == authorization
    assert all(form[name] == [value] for name, value in parameters.items())
    assert "secret" not in repr(client)


@pytest.mark.parametrize("settings", [{"cache_for": -1}, {"cache_for": 301}, {"timeout": 0}])
def test_times_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cache_for"):
        Introspection(BasicClient("a", "b"), **settings)


def test_a_token_is_not_sent_in_the_clear() -> None:
    with pytest.raises(ValueError, match="https"):
        verifier_of(Endpoint(), asking={"endpoint": "http://a.test/introspect"})


@given(
    st.dictionaries(
        st.sampled_from(
            ["active", "iss", "aud", "exp", "sub", "cnf", "scope", "nbf", "token_type"]
        ),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
    )
)
def test_any_answer_is_a_principal_of_this_issuer_or_refused(answer: dict[str, Any]) -> None:
    try:
        principal = asyncio.run(verifier_of(Endpoint({**GOOD, **answer})).verify(TOKEN))
    except (InvalidTokenError, KeysUnavailableError):
        return
    assert principal.issuer == ISSUER
    assert answer.get("active", True) is True


# --- with a guard


def test_a_guard_sends_opaque_tokens_to_the_one_issuer_that_is_asked() -> None:
    signing = LocalIssuer("https://b.test", algorithm="ES256")
    asking = Introspection(BasicClient("a", "b"), endpoint=ENDPOINT)
    guard = ToolGuard(
        issuers=[signing.described, Issuer(ISSUER, introspection=asking)], audience=SERVER
    )
    endpoint = Endpoint({**GOOD, "exp": 9e9})
    guard.verifier.verifiers[1]._post = endpoint  # type: ignore[attr-defined]

    assert asyncio.run(guard.verifier.verify(TOKEN)).issuer == ISSUER
    assert asyncio.run(guard.verifier.verify(signing.mint("alice"))).issuer == "https://b.test"
    with pytest.raises(InvalidTokenError):
        asyncio.run(guard.verifier.verify("a.b.c"))
    assert len(endpoint.requests) == 1


def test_opaque_tokens_of_two_issuers_cannot_be_told_apart() -> None:
    asking = Introspection(BasicClient("a", "b"))
    issuers = [Issuer(f"https://{name}.test", introspection=asking) for name in "ab"]

    with pytest.raises(ValueError, match="opaque"):
        ToolGuard(issuers=issuers, audience=SERVER)


def confirmed(endpoint: Endpoint, token: str, local: LocalIssuer) -> str | None:
    asking = Introspection(BasicClient("a", "b"), endpoint=ENDPOINT)
    described = Issuer(ISSUER, introspection=asking, confirm=True, keys=StaticKeys(local.jwks()))
    verifier = ConfirmedVerifier.asking(described, audience=SERVER, post=endpoint)
    return asyncio.run(verifier.verify(token)).user_id


def test_a_revoked_jwt_is_refused() -> None:
    local = LocalIssuer(ISSUER, algorithm="ES256")
    good = {**GOOD, "exp": 9e9, "client_id": "test-client"}

    assert confirmed(Endpoint(good), local.mint("alice"), local) == "alice"
    others = ({"sub": "bob"}, {"client_id": "other"}, {"jti": "other"})
    for answer in ({"active": False}, *({**good, **other} for other in others)):
        with pytest.raises(InvalidTokenError) as caught:
            confirmed(Endpoint(answer), local.mint("alice"), local)
        assert caught.value.reason == "inactive"


def test_a_forged_jwt_is_not_sent_anywhere() -> None:
    local, endpoint = LocalIssuer(ISSUER, algorithm="ES256"), Endpoint()

    with pytest.raises(InvalidTokenError):
        confirmed(endpoint, local.mint_wrong_key("alice"), local)
    assert endpoint.requests == []


def test_to_confirm_needs_somebody_to_ask() -> None:
    with pytest.raises(ValueError, match="introspection="):
        Issuer(ISSUER, confirm=True)


@pytest.mark.parametrize(
    ("endpoint", "reason", "said"),
    [
        (Endpoint(status=401), "status", "HTTP 401: it does not accept this server: check the"),
        (Endpoint(status=403), "status", "HTTP 403: it does not accept this server"),
        (Endpoint(status=500), "status", "HTTP 500"),
        (Endpoint([]), "unreadable", "cannot be read"),
    ],
)
def test_an_outage_is_logged_once_a_minute(
    endpoint: Endpoint, reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FrozenClock(NOW)
    verifier = verifier_of(endpoint, clock=clock)

    def ask() -> KeysUnavailableError:
        with pytest.raises(KeysUnavailableError) as caught:
            asyncio.run(verifier.verify(TOKEN))
        return caught.value

    assert [ask().reason for _ in range(3)] == [reason] * 3
    (line,) = caplog.messages
    assert f"tokens cannot be verified ({ISSUER})" in line
    assert said in line
    clock.advance(60)
    ask()
    assert len(caplog.messages) == 2
    assert TOKEN not in caplog.text


def test_a_verifier_says_what_it_accepts_and_asks_nobody_for_that() -> None:
    endpoint = Endpoint()
    verifier: IssuerVerifier = verifier_of(endpoint, shares_connections=True)

    assert verifier.audiences == (SERVER,)
    assert verifier.shares_connections
    assert repr(verifier) == f"<IntrospectionVerifier: tokens of {ISSUER}>"
    assert verifier.verify_now(TOKEN) is None
    assert not endpoint.requests


def test_an_issuer_that_cannot_be_asked_is_a_mistake() -> None:
    with pytest.raises(TypeError, match=re.escape("write Issuer(..., introspection=")):
        IntrospectionVerifier(Issuer(ISSUER), audience=SERVER)


@pytest.mark.parametrize("token", ["", "a" * 16_385])
def test_the_issuer_is_not_asked_about_what_is_no_token(token: str) -> None:
    endpoint = Endpoint()

    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifier_of(endpoint).verify(token))
    assert caught.value.reason == "malformed"
    assert not endpoint.requests


def test_answers_are_kept_for_a_bounded_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "_MAX_CACHED", 2)
    endpoint = Endpoint()
    verifier = verifier_of(endpoint, asking={"cache_for": 60})

    async def asked_about(*tokens: str) -> int:
        before = len(endpoint.requests)
        for token in tokens:
            await verifier.verify(token)
        return len(endpoint.requests) - before

    assert asyncio.run(asked_about("a", "b", "b", "a")) == 2
    assert asyncio.run(asked_about("c", "b", "c")) == 1
    assert asyncio.run(asked_about("a")) == 1


def test_a_jwt_that_its_issuer_confirms_is_never_accepted_at_once() -> None:
    local = LocalIssuer(ISSUER, algorithm="ES256", clock=lambda: NOW)
    asking = Introspection(BasicClient("server", "secret"), endpoint=ENDPOINT)
    described = Issuer(ISSUER, keys=StaticKeys(local.jwks()), introspection=asking, confirm=True)
    verifier: IssuerVerifier = ConfirmedVerifier.asking(
        described, audience=SERVER, post=Endpoint(), clock=lambda: float(NOW)
    )

    assert verifier.verify_now(local.mint("alice", audience=SERVER)) is None
