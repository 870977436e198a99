"""Is every invalid token bad in the one respect that is its name, and in no other?"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any, get_args

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from support.subjects import subjects
from toolguard.errors import InvalidTokenError, InvalidTokenReason
from toolguard.principal import Principal
from toolguard.testing.bad_tokens import INVALID_TOKENS, BadTokens
from toolguard.testing.issuer import Algorithm, LocalIssuer
from toolguard.testing.providers import PROVIDERS, ProviderName
from toolguard.testing.strategies import scope_tokens
from toolguard.tokens.jwt import JWTVerifier

NOW = 1_800_000_000
HOUR = 3_600
ISSUERS: dict[Algorithm, LocalIssuer] = {
    algorithm: LocalIssuer(algorithm=algorithm, clock=lambda: NOW)
    for algorithm in ("RS256", "ES256", "EdDSA")
}
ISSUER = ISSUERS["ES256"]
NAMES = tuple(INVALID_TOKENS)


def refusal(verifier: JWTVerifier, token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        verifier.verify_now(token)
    return caught.value.reason


def accepted(verifier: JWTVerifier, token: str) -> Principal:
    principal = verifier.verify_now(token)
    assert principal is not None
    return principal


# --- the registry


def test_every_method_that_mints_a_bad_token_is_registered() -> None:
    methods = {name for name in vars(BadTokens) if name.startswith("mint_")}

    assert methods - {"mint_invalid"} == {f"mint_{name}" for name in INVALID_TOKENS}


def test_every_reason_to_refuse_a_token_has_a_token() -> None:
    # Only an issuer that is asked can say that a token is not active.
    assert {*INVALID_TOKENS.values(), "inactive"} == set(get_args(InvalidTokenReason))


def test_the_registry_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        INVALID_TOKENS["mine"] = "claims"  # type: ignore[index]


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'expird'.*: write one of expired, not_yet_valid, "):
        ISSUER.mint_invalid("expird")


# --- each of them


@pytest.mark.parametrize("algorithm", ISSUERS)
@pytest.mark.parametrize(("name", "reason"), INVALID_TOKENS.items(), ids=NAMES)
def test_a_bad_token_is_refused_for_its_reason(
    algorithm: Algorithm, name: str, reason: str
) -> None:
    issuer = ISSUERS[algorithm]

    assert accepted(issuer.verifier(), issuer.mint("bob", scopes=["read"])).user_id == "bob"
    assert refusal(issuer.verifier(), issuer.mint_invalid(name, "bob", scopes=["read"])) == reason


@pytest.mark.parametrize("provider", PROVIDERS)
def test_bad_tokens_of_every_provider_are_refused_for_their_reasons(
    provider: ProviderName,
) -> None:
    issuer = LocalIssuer.like(provider, algorithm="ES256", clock=lambda: NOW)
    verifier = issuer.verifier()
    tokens = issuer.invalid_tokens("bob", scopes=["read", "openid"])

    assert accepted(verifier, issuer.mint("bob", scopes=["read", "openid"])).user_id == "bob"
    # XSUAA has jku in every header, where it is ignored: what is wrong is the signature.
    differing = {"own_key_url": "signature"} if provider == "xsuaa" else {}
    refused = {name: refusal(verifier, token) for name, token in tokens.items()}
    assert refused == {**INVALID_TOKENS, **differing}


@given(
    name=st.sampled_from(NAMES),
    user=st.none() | subjects(10),
    scopes=st.lists(scope_tokens(), unique=True, max_size=3),
    expires_in=st.integers(1, 86_400),
    leeway=st.integers(0, 300),
)
def test_a_bad_token_is_bad_whoever_holds_it_and_however_lenient_the_verifier(
    name: str, user: str | None, scopes: list[str], expires_in: int, leeway: int
) -> None:
    wishes: dict[str, Any] = {"scopes": scopes, "expires_in": expires_in}
    verifier = ISSUER.verifier(leeway=leeway)

    accepted(verifier, ISSUER.mint(user, **wishes))
    assert refusal(verifier, ISSUER.mint_invalid(name, user, **wishes)) == INVALID_TOKENS[name]


def test_the_methods_take_what_mint_takes() -> None:
    token = ISSUER.mint_expired("bob", scopes=["read"], roles=["admin"], headers={"x5t": "abc"})
    claims = parsed(token)["claims"]

    assert jwt.get_unverified_header(token)["x5t"] == "abc"
    assert (claims["sub"], claims["scope"], claims["roles"]) == ("bob", "read", ["admin"])


# --- in one respect


def decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "==")


def parsed(token: str) -> dict[str, Any]:
    """Return what a lenient reader sees of a token of three parts."""
    header, payload, signature = token.split(".")
    key = jwt.PyJWKSet.from_dict(ISSUER.jwks()).keys[0]
    assert key.Algorithm is not None
    signed = key.Algorithm.verify(f"{header}.{payload}".encode(), key.key, decoded(signature))
    return {
        "header": json.loads(decoded(header)),
        "claims": json.loads(decoded(payload)),
        "signed": signed,
    }


def differences(token: str, good: str) -> set[str]:
    """Return the names of the header parameters and the claims that differ, and ``signature``."""
    ours, theirs = parsed(token), parsed(good)
    names = set() if ours["signed"] else {"signature"}
    for part in ("header", "claims"):
        names |= {
            f"{part} {name}"
            for name in ours[part].keys() | theirs[part].keys()
            if (name in ours[part], ours[part].get(name))
            != (name in theirs[part], theirs[part].get(name))
        }
    return names


RESPECTS = {
    "expired": {"claims exp", "claims iat"},
    "not_yet_valid": {"claims nbf", "claims exp"},
    "issued_in_the_future": {"claims iat", "claims exp"},
    "without_expiry": {"claims exp"},
    "expiry_as_text": {"claims exp"},
    "expiry_in_milliseconds": {"claims exp"},
    "wrong_audience": {"claims aud"},
    "lookalike_audience": {"claims aud"},
    "without_audience": {"claims aud"},
    "wrong_issuer": {"claims iss"},
    "lookalike_issuer": {"claims iss"},
    "without_issuer": {"claims iss"},
    "numeric_subject": {"claims sub"},
    "unknown_kid": {"header kid"},
    "wrong_key": {"signature"},
    "own_key": {"header jwk", "signature"},
    "own_key_url": {"header jku", "signature"},
    "bad_signature": {"signature"},
    "tampered_payload": {"claims sub", "signature"},
    "unsigned": {"signature"},
    "alg_none": {"header alg", "signature"},
    "alg_none_with_signature": {"header alg", "signature"},
    "hs256_with_public_key": {"header alg", "signature"},
    "id_token": {"header typ", "claims nonce", "claims at_hash"},
    "refresh_token": {"header typ", "claims typ"},
    "logout_token": {"header typ", "claims events"},
    "wrong_type": {"header typ"},
    "bound": {"claims cnf"},
    "duplicate_claim": {"claims sub"},
    "unknown_critical_header": {"header crit", "header https://toolguard.test/extension"},
    "oversized": {"claims padding"},
}
UNREADABLE = {"truncated", "five_parts", "payload_not_json"}


def test_every_bad_token_has_its_respects() -> None:
    assert RESPECTS.keys() | UNREADABLE == INVALID_TOKENS.keys()


@pytest.mark.parametrize(("name", "respects"), RESPECTS.items(), ids=RESPECTS)
def test_a_bad_token_differs_from_a_good_one_in_what_its_name_says(
    name: str, respects: set[str]
) -> None:
    wishes: dict[str, Any] = {"scopes": ["read"], "jti": "b6f1"}

    good = ISSUER.mint("alice", **wishes)

    assert differences(ISSUER.mint_invalid(name, "alice", **wishes), good) == respects


def test_two_good_tokens_of_the_same_claims_do_not_differ() -> None:
    assert differences(ISSUER.mint(jti="b6f1"), ISSUER.mint(jti="b6f1")) == set()


def test_a_truncated_token_needs_only_its_signature_to_be_good() -> None:
    claims, headers = ISSUER.claims("alice"), {"typ": "at+jwt"}
    token = ISSUER.sign(claims, headers=headers)

    assert token.startswith(f"{ISSUER.mint_truncated('alice', jti=claims['jti'])}.")


def test_five_parts_begin_with_the_three_of_a_good_token() -> None:
    first_three = ISSUER.mint_five_parts("alice").removesuffix(".AAAA.AAAA")

    assert accepted(ISSUER.verifier(), first_three).user_id == "alice"


def test_a_payload_that_is_no_json_lacks_a_brace_under_a_good_signature() -> None:
    token = ISSUER.mint_payload_not_json("alice")
    key = jwt.PyJWKSet.from_dict(ISSUER.jwks()).keys[0]
    payload = jwt.api_jws.decode(token, key, algorithms=["ES256"])

    assert json.loads(payload + b"}")["sub"] == "alice"


# --- what a careless server would make of them


def test_an_expired_token_was_good_an_hour_and_a_second_ago() -> None:
    token = ISSUER.mint_expired("alice", nbf=NOW)

    assert accepted(ISSUER.verifier(clock=lambda: NOW - HOUR - 10), token).user_id == "alice"


def test_tokens_of_the_future_will_be_good_in_an_hour() -> None:
    verifier = ISSUER.verifier(clock=lambda: NOW + HOUR)

    assert accepted(verifier, ISSUER.mint_not_yet_valid("alice")).user_id == "alice"
    assert accepted(verifier, ISSUER.mint_issued_in_the_future("alice")).user_id == "alice"


@pytest.mark.parametrize("name", ["wrong_audience", "lookalike_audience"])
def test_a_token_for_another_server_is_good_there(name: str) -> None:
    token = ISSUER.mint_invalid(name)
    there = parsed(token)["claims"]["aud"]

    assert accepted(ISSUER.verifier(audience=there), token).user_id == "alice"


def test_only_this_server_is_replaced_among_several_audiences() -> None:
    token = ISSUER.mint_wrong_audience(aud=["https://b.test", ISSUER.audience])

    assert parsed(token)["claims"]["aud"] == ["https://other-server.test/mcp", "https://b.test"]


def test_the_public_key_as_a_secret_gives_the_mac_of_hs256() -> None:
    for issuer in ISSUERS.values():
        key: Any = jwt.PyJWKSet.from_dict(issuer.jwks()).keys[0].key
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signing_input, _, signature = issuer.mint_hs256_with_public_key().rpartition(".")

        mac = hmac.new(pem, signing_input.encode(), hashlib.sha256).digest()
        assert decoded(signature) == mac


def test_it_is_the_current_key_that_is_taken_for_a_secret() -> None:
    issuer = LocalIssuer(algorithm="ES256", clock=lambda: NOW)
    issuer.rotate()

    assert refusal(issuer.verifier(), issuer.mint_hs256_with_public_key()) == "algorithm"


@pytest.mark.parametrize("name", ["alg_none", "unsigned"])
def test_a_token_without_a_signature_has_three_parts_nevertheless(name: str) -> None:
    assert ISSUER.mint_invalid(name).split(".")[2:] == [""]


def test_whoever_believes_the_key_in_a_token_believes_the_token() -> None:
    token = ISSUER.mint_own_key("mallory")
    key = jwt.PyJWK(jwt.get_unverified_header(token)["jwk"])

    assert json.loads(jwt.api_jws.decode(token, key, algorithms=["ES256"]))["sub"] == "mallory"


def test_whoever_lets_the_last_claim_win_sees_another_user() -> None:
    token = ISSUER.mint_duplicate_claim("alice")
    pairs = json.loads(decoded(token.split(".")[1]), object_pairs_hook=list)

    assert [value for name, value in pairs if name == "sub"] == ["alice", "not-alice"]
    assert parsed(token)["claims"]["sub"] == "not-alice"


def test_a_strangers_key_is_none_of_the_issuers() -> None:
    issuer = LocalIssuer(algorithm="ES256", clock=lambda: NOW)
    token = issuer.mint_wrong_key("alice")
    issuer.rotate()

    assert refusal(issuer.verifier(), token) == "signature"
