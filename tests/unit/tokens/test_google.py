"""Google: opaque access tokens by its tokeninfo endpoint, and ID tokens if they are wanted.

The shapes are those of google-auth-library, ``TokenInfo``, and of Google, "OpenID Connect".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Issuer, Refusals, ToolGuard
from toolguard.errors import InvalidTokenError, KeysUnavailableError, MissingTokenError
from toolguard.testing import LocalIssuer
from toolguard.testing.more_providers import google_tokeninfo
from toolguard.testing.token_content import TokenContent
from toolguard.tokens import issuers
from toolguard.tokens.introspection import HTTPAnswer, IntrospectionVerifier, JWTOrOpaqueVerifier
from toolguard.tokens.issuers import Introspection, TokenInfo
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys
from toolguard.tokens.trust import TrustedIssuers

NOW = 1_800_000_000
GOOGLE, SERVER = "https://accounts.google.com", "https://mcp.test/mcp"
CLIENT = "1234567890-app.apps.googleusercontent.com"
CALENDAR = "https://www.googleapis.com/auth/calendar"
EMAIL = "https://www.googleapis.com/auth/userinfo.email"
USER = "110169484474386276334"
LOCAL = LocalIssuer.like("google", algorithm="ES256", clock=lambda: NOW)
KEYS = StaticKeys(LOCAL.jwks())
TOKENS = ["ya29.a0AfB_byC", "ya29.c.b0Aaekm1K4", "ya29.c.b0Aaekm1K4....", "ya29"]
ANSWER = google_tokeninfo(
    TokenContent(
        issuer=GOOGLE,
        audience=CLIENT,
        user=USER,
        scopes=["openid", CALENDAR, EMAIL],
        issued_at=NOW,
        expires_at=NOW + 3_000,
        client_id=CLIENT,
    )
)


class Google:
    """Answers as tokeninfo does, and keeps what it was asked."""

    def __init__(self, answer: Mapping[str, Any] | bytes = ANSWER, status: int = 200) -> None:
        self.body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.status = status
        self.requests: list[tuple[str, dict[str, list[str]], Mapping[str, str]]] = []

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer | str:
        self.requests.append((url, parse_qs(body.decode()), headers))
        return HTTPAnswer(self.status, "", self.body)


def verifier_of(google: Google, **settings: Any) -> IntrospectionVerifier | JWTOrOpaqueVerifier:
    described = issuers.google(CLIENT, keys=KEYS, **settings)
    if settings.get("id_tokens"):
        return JWTOrOpaqueVerifier.asking(described, post=google, clock=lambda: NOW)
    return IntrospectionVerifier(described, post=google, clock=lambda: NOW)


def reason(google: Google, token: str = TOKENS[0], **settings: Any) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifier_of(google, **settings).verify(token))
    assert token not in str(caught.value)
    return caught.value.reason


def id_token(**claims: Any) -> str:
    return LOCAL.mint(USER, **claims)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("id_tokens", [True, False])
def test_an_access_token_is_its_users(token: str, id_tokens: bool) -> None:
    google = Google()
    principal = asyncio.run(verifier_of(google, id_tokens=id_tokens).verify(token))

    assert (principal.user_id, principal.issuer, principal.client_id) == (USER, GOOGLE, CLIENT)
    assert principal.scopes == ("openid", CALENDAR, "email")
    assert principal.expires_at == NOW + 3_000
    assert not principal.is_machine
    ((url, form, headers),) = google.requests
    assert url == "https://oauth2.googleapis.com/tokeninfo"
    assert form == {"access_token": [token]}
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"aud": "other.apps.googleusercontent.com"}, "audience"),
        ({"aud": None}, "audience"),
        ({"aud": [CLIENT, 5]}, "audience"),
        ({"sub": None}, "type"),
        ({"sub": ""}, "claims"),
        ({"exp": str(NOW - 6)}, "expired"),
        ({"iss": "https://evil.test"}, "issuer"),
        ({"cnf": {"jkt": "x"}}, "bound"),
        ({"at_hash": "x"}, "type"),
    ],
)
def test_the_answer_is_held_to_the_rules_of_tokens(changes: Any, expected: str) -> None:
    made = {name: value for name, value in {**ANSWER, **changes}.items() if value is not None}

    assert reason(Google(made)) == expected


def test_a_token_that_google_does_not_know_is_refused() -> None:
    assert reason(Google({"error": "invalid_token"}, status=400)) == "inactive"


@pytest.mark.parametrize(
    "google",
    [
        Google(status=500),
        Google(status=429),
        Google(b""),
        Google(b"<html>"),
        Google({**ANSWER, "exp": "soon"}),
        Google({**ANSWER, "exp": True}),
        Google({**ANSWER, "exp": "-1"}),
        Google({name: value for name, value in ANSWER.items() if name != "exp"}),
        Google({**ANSWER, "error": "x"}),
        Google(b"[" * 300_000),
    ],
)
def test_what_is_no_answer_of_google_is_an_outage(google: Google) -> None:
    with pytest.raises(KeysUnavailableError):
        asyncio.run(verifier_of(google).verify(TOKENS[0]))


@given(
    st.dictionaries(
        st.sampled_from([*ANSWER, "active", "iss", "token_type", "email"]),
        st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5), st.just(CLIENT)),
    ),
    st.sampled_from([200, 400]),
)
def test_only_an_answer_for_the_client_makes_a_principal(
    answer: dict[str, Any], status: int
) -> None:
    try:
        principal = asyncio.run(verifier_of(Google(answer, status)).verify(TOKENS[0]))
    except (InvalidTokenError, KeysUnavailableError):
        return
    assert (status, answer["aud"], answer["sub"]) == (200, CLIENT, principal.user_id)
    assert int(answer["exp"]) + 5 > NOW


# --- ID tokens


@pytest.mark.parametrize("iss", [GOOGLE, "accounts.google.com"])
def test_an_id_token_is_accepted_if_it_is_wanted(iss: str) -> None:
    google = Google()
    principal = asyncio.run(verifier_of(google, id_tokens=True).verify(id_token(iss=iss)))

    assert (principal.user_id, principal.issuer, principal.client_id) == (USER, iss, "test-client")
    assert principal.scopes == ()
    assert google.requests == []


@pytest.mark.parametrize(
    "token",
    [id_token(), id_token(at_hash=None, nonce=None), "eyJhbGciOiJub25lIn0.x.y.z.w"],
    ids=["ID token", "JWT", "JWE"],  # the same in every process
)
def test_a_jwt_is_refused_and_sent_nowhere(token: str, caplog: pytest.LogCaptureFixture) -> None:
    google = Google()

    assert reason(google, token) == "type"
    assert google.requests == []
    assert "write google(..., id_tokens=True)" in caplog.text
    assert token not in caplog.text


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": "other.apps.googleusercontent.com"}, "audience"),
        ({"aud": SERVER}, "audience"),
        ({"iss": "https://accounts.google.com/"}, "issuer"),
        ({"exp": NOW - 6}, "expired"),
        ({"sub": None}, "type"),
        ({"c_hash": "x"}, "type"),
    ],
)
def test_an_id_token_is_held_to_the_rules_of_tokens(claims: Any, expected: str) -> None:
    assert reason(Google(), id_token(**claims), id_tokens=True) == expected


def test_a_service_account_may_name_this_server() -> None:
    verifier = verifier_of(Google(), id_tokens=True, audience=[CLIENT, SERVER])
    token = id_token(aud=SERVER, azp="1126", at_hash=None, nonce=None)

    assert asyncio.run(verifier.verify(token)).user_id == USER


def test_a_hosted_domain_is_that_of_the_token() -> None:
    settings: dict[str, Any] = {"id_tokens": True, "hosted_domain": "example.com"}
    verifier = verifier_of(Google(), **settings)

    assert asyncio.run(verifier.verify(id_token(hd="example.com"))).user_id == USER
    for claims in ({}, {"hd": "evil.com"}, {"hd": ["example.com"]}, {"hd": "EXAMPLE.com"}):
        assert reason(Google(), id_token(**claims), **settings) == "type"
    assert reason(Google(), **settings) == "type"


@pytest.mark.parametrize(
    "make",
    [
        lambda: issuers.google(""),
        lambda: issuers.google([]),
        lambda: issuers.google([CLIENT, ""]),
        lambda: issuers.google(CLIENT, hosted_domain="example.com"),
        lambda: issuers.google(CLIENT, hosted_domain="", id_tokens=True),
        lambda: issuers.google(CLIENT, cache_for=301),
        lambda: issuers.google(CLIENT, confirm=True),
        lambda: TokenInfo(timeout=0),
    ],
)
def test_what_describes_no_client_of_google_is_refused(make: Callable[[], Issuer]) -> None:
    with pytest.raises(ValueError, match=r"write|hold|cache_for|confirm"):
        make()


# --- in a guard


def test_opaque_tokens_of_google_are_told_from_the_jwts_of_others() -> None:
    google, other = Google(), LocalIssuer(algorithm="ES256", clock=lambda: NOW)
    both = TrustedIssuers(
        [
            JWTVerifier.of(other.described, audience=other.audience, clock=lambda: NOW),
            verifier_of(google),
        ]
    )
    for token in TOKENS:
        assert asyncio.run(both.verify(token)).issuer == GOOGLE
    asked = len(google.requests)
    assert asyncio.run(both.verify(other.mint("alice"))).issuer == other.issuer
    with pytest.raises(InvalidTokenError):
        asyncio.run(both.verify(other.mint_expired("alice")))
    with pytest.raises(InvalidTokenError):
        asyncio.run(both.verify(id_token()))
    assert len(google.requests) == asked


def test_clients_are_told_to_ask_for_openid() -> None:
    guard = ToolGuard(
        issuer=issuers.google(CLIENT), resource=SERVER, refusals=Refusals(initial_scopes=["email"])
    )
    challenge = guard.challenge(MissingTokenError("Sign in"))

    assert challenge is not None
    assert challenge.scope == ("openid", EMAIL)
    assert guard.metadata()["scopes_supported"] == ["openid"]
    assert guard.metadata()["authorization_servers"] == [GOOGLE]


def test_a_token_without_a_user_is_explained(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        reason(Google({name: value for name, value in ANSWER.items() if name != "sub"}))

    assert "have the client ask for the scope openid" in caplog.text


def test_only_introspection_confirms() -> None:
    with pytest.raises(ValueError, match=r"confirm=True needs introspection=Introspection"):
        Issuer(GOOGLE, introspection=TokenInfo(), confirm=True)
    assert Introspection.takes_jwts


def test_an_id_token_is_verified_at_once_an_access_token_is_not() -> None:
    google = Google()
    verifier = verifier_of(google, id_tokens=True)
    assert isinstance(verifier, JWTOrOpaqueVerifier)
    asyncio.run(verifier.warm_up())

    known = verifier.verify_now(id_token())
    assert known is not None
    assert known.user_id == USER
    assert verifier.verify_now(TOKENS[0]) is None
    assert not google.requests
