"""Is the operator told what is wrong with a setting, and never a token?"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from toolguard.errors import InvalidTokenError
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.tokens.discovery import read_metadata
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import KeySetError, StaticKeys
from toolguard.tokens.trust import TrustedIssuers, trusted

CLOCK = FrozenClock(1_800_000_000)
LOCAL = LocalIssuer("https://a.test", algorithm="ES256", clock=CLOCK)


def refused(caplog: pytest.LogCaptureFixture, token: str, **settings: Any) -> list[str]:
    """Return what is logged when a token is refused twice."""
    verifier = LOCAL.verifier(**settings)
    for _ in range(2):
        with pytest.raises(InvalidTokenError):
            verifier.verify_now(token)
    assert token not in caplog.text
    assert all(part not in caplog.text for part in token.split("."))
    return caplog.messages


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        (
            {"aud": "https://mcp.test/mcp/x"},
            (
                "tokens are refused (https://a.test): aud is 'https://mcp.test/mcp/x', expected "
                "https://mcp.test/mcp: have the authorization server name this server in it"
            ),
        ),
        (
            {"aud": ["https://mcp.test/mcp//"]},
            (
                "tokens are refused (https://a.test): aud is ['https://mcp.test/mcp//'], expected "
                "https://mcp.test/mcp"
            ),
        ),
        ({"aud": None}, "tokens are refused (https://a.test): aud is missing, expected "),
        ({"aud": 5}, "tokens are refused (https://a.test): aud is a int, expected "),
        ({"aud": "account"}, "Keycloak gives it to every client of the realm"),
        ({"iss": "https://a.test/"}, "iss is 'https://a.test/', expected https://a.test: they"),
        ({"iss": "x\n\u202e"}, "iss is 'x\\n\\u202e', expected"),
        ({"iss": "https://b.test"}, "expected https://a.test: write the issuer exactly as its tok"),
        (
            {"iss": "https://api.workos.com/user_management/client_1"},
            "sessions of user management name no audience",
        ),
    ],
)
def test_a_claim_that_differs_is_logged_once(
    caplog: pytest.LogCaptureFixture, claims: dict[str, Any], said: str
) -> None:
    (message,) = refused(caplog, LOCAL.mint("alice", **claims))

    assert said in message
    assert caplog.records[0].levelno == logging.WARNING


def test_an_issuer_that_is_found_later_is_logged_by_its_keys(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = "https://a.test/.well-known/openid-configuration"
    verifier = JWTVerifier(keys=JWKS(well_known_url=url), issuer=None, audience="https://mcp.test")

    with pytest.raises(InvalidTokenError):
        verifier.verify_now("opaque")

    assert f"tokens are refused (<JWKS: {url}>): format is" in caplog.text


def test_a_key_that_is_not_there_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    (message,) = refused(caplog, LOCAL.mint("alice", headers={"kid": "gone"}))

    assert "kid is 'gone', expected one that the issuer publishes" in message


def test_a_fault_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = FrozenClock(1_800_000_000)
    local = LocalIssuer("https://a.test", algorithm="ES256", clock=clock)
    verifier = local.verifier()
    for _ in range(121):
        with pytest.raises(InvalidTokenError):
            verifier.verify_now(local.mint("alice", aud="x"))
        clock.advance(1)

    assert len(caplog.messages) == 3


@pytest.mark.parametrize("audience", ["account", "authenticated"])
def test_an_audience_of_everybody_is_warned_of(
    caplog: pytest.LogCaptureFixture, audience: str
) -> None:
    LOCAL.verifier(audience=audience)

    assert caplog.messages[0].startswith(f"audience '{audience}' lets the tokens of other appl")


def test_an_unknown_issuer_is_logged_with_the_known_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = [LocalIssuer(f"https://{name}.test", algorithm="ES256") for name in "bc"]
    verifier = trusted([each.described for each in others], ["https://mcp.test/mcp"], CLOCK)
    assert isinstance(verifier, TrustedIssuers)

    with pytest.raises(InvalidTokenError):
        verifier.verify_now(LOCAL.mint("alice"))
    assert "iss is 'https://a.test', expected https://b.test or https://c.test" in caplog.text


def test_metadata_that_differs_by_a_slash_says_so() -> None:
    document = {"issuer": "https://a.test/", "jwks_uri": "https://a.test/jwks"}

    with pytest.raises(KeySetError, match=r"expected 'https://a\.test', found 'https://a\.test/'"):
        read_metadata(document, issuer="https://a.test", source="https://a.test")


def test_what_is_right_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    LOCAL.verifier(keys=StaticKeys(LOCAL.jwks())).verify_now(LOCAL.mint("alice"))

    assert caplog.messages == []
