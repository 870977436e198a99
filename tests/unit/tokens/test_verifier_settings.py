"""Which settings does a verifier take, and what does it answer to wrong ones?"""

from __future__ import annotations

from typing import Any

import pytest

from toolguard.testing import LocalIssuer
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys

LOCAL = LocalIssuer("https://auth.example.com", algorithm="ES256")
ISSUER, AUDIENCE = LOCAL.issuer, LOCAL.audience


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": ""},
        {"audience": ""},
        {"audience": []},
        {"audience": None},
        {"audience": [AUDIENCE, ""]},
        {"algorithms": []},
        {"algorithms": "RS256"},
        {"token_types": []},
        {"token_types": "at+jwt"},
    ],
    ids=str,
)
def test_an_empty_setting_is_answered_with_what_to_write(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="write "):
        LOCAL.verifier(**settings)


def test_a_dict_of_keys_is_answered_with_what_to_write() -> None:
    jwks: Any = {"keys": []}

    with pytest.raises(TypeError, match="StaticKeys"):
        JWTVerifier(issuer=ISSUER, audience=AUDIENCE, keys=jwks)


def test_a_verifier_says_whose_tokens_it_accepts_for_whom() -> None:
    several = LOCAL.verifier(audience=["P2abc", "https://MCP.example.com"])

    assert several.issuer == "https://auth.example.com"
    assert several.audiences == ("P2abc", "https://MCP.example.com")
    assert repr(several) == (
        "<JWTVerifier: tokens of https://auth.example.com for P2abc, https://MCP.example.com>"
    )


@pytest.mark.parametrize("algorithm", ["HS256", "HS512", "none", "None", "", "RS1", "ES256K"])
def test_what_a_public_key_cannot_check_cannot_be_configured(algorithm: str) -> None:
    with pytest.raises(ValueError, match="choose among RS256"):
        LOCAL.verifier(algorithms=["RS256", algorithm])


@pytest.mark.parametrize(
    "leeway", [-1, 300.5, 1e9, float("inf"), float("-inf"), float("nan")], ids=str
)
def test_a_leeway_that_is_no_few_minutes_cannot_be_configured(leeway: float) -> None:
    with pytest.raises(ValueError, match="seconds from 0 to 300"):
        LOCAL.verifier(leeway=leeway)


@pytest.mark.parametrize("leeway", [0, 0.5, 300])
def test_a_leeway_of_up_to_five_minutes_can_be_configured(leeway: float) -> None:
    assert LOCAL.verifier(leeway=leeway).leeway == leeway


def test_an_issuer_that_nothing_will_discover_has_to_be_given() -> None:
    with pytest.raises(ValueError, match="write issuer="):
        JWTVerifier(issuer=None, audience=AUDIENCE, keys=StaticKeys(LOCAL.jwks()))
