"""Which laws hold for every token, whoever made it?

Any text is a principal or an ``InvalidTokenError`` and never anything else; and what is accepted
here is accepted, with the same claims, by PyJWT and joserfc.
"""

from __future__ import annotations

import json
import string
from typing import Any

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey
from joserfc.jwt import JWTClaimsRegistry
from joserfc.jwt import decode as joserfc_decode
from jwt.utils import base64url_encode

from support.trusted import AUDIENCE, CLAIMS, ES256, ISSUER, NOW, verify
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal

(JWK,) = ES256.jwks()["keys"]


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def outcome(token: str) -> Principal | InvalidTokenError:
    try:
        return verify(token)
    except InvalidTokenError as error:
        return error


BASE64URL = string.ascii_letters + string.digits + "-_"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
NEARLY_CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([ISSUER, "x"]) | JSON,
        "aud": st.sampled_from([AUDIENCE, [AUDIENCE, "x"]]) | JSON,
        "exp": st.sampled_from([NOW + 60, NOW + 60.5, NOW]) | JSON,
        **dict.fromkeys(
            (
                *("sub", "jti", "iat", "nbf", "cnf", "typ", "token_use", "nonce", "events"),
                *("scope", "scp", "scopes", "roles", "permissions", "tenants", "realm_access"),
                *("client_id", "azp", "dct", "tid", "user", "userId", "cognito:groups"),
            ),
            JSON,
        ),
    },
)
NEARLY_HEADER = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("alg", "kid", "typ", "crit", "jwk", "x5t", "zip"), JSON)
)


@given(st.text())
def test_any_text_is_a_principal_or_a_refusal(token: str) -> None:
    assert isinstance(outcome(token), InvalidTokenError)


@given(st.text(BASE64URL + ".=", max_size=400))
def test_any_text_of_the_alphabet_is_a_principal_or_a_refusal(token: str) -> None:
    assert isinstance(outcome(token), InvalidTokenError)


@given(st.binary(), st.binary(), st.binary())
def test_any_bytes_in_three_segments_are_a_principal_or_a_refusal(
    header: bytes, payload: bytes, signature: bytes
) -> None:
    token = b".".join(map(base64url_encode, (header, payload, signature))).decode()
    assert isinstance(outcome(token), InvalidTokenError)


@given(st.binary())
def test_any_signed_bytes_are_a_principal_or_a_refusal(payload: bytes) -> None:
    assert isinstance(outcome(ES256.sign_bytes(payload)), InvalidTokenError)


@given(NEARLY_HEADER)
def test_any_signed_header_is_a_principal_or_a_refusal(header: dict[str, Any]) -> None:
    usual = {"alg": "ES256", "kid": ES256.key_id}
    token = ES256.sign_bytes(to_json(CLAIMS), headers=to_json({**usual, **header}))

    assert isinstance(outcome(token), (Principal, InvalidTokenError))


@given(st.dictionaries(st.text(), JSON) | JSON)
def test_any_signed_json_is_a_principal_or_a_refusal(value: object) -> None:
    assert isinstance(outcome(ES256.sign_bytes(to_json(value))), (Principal, InvalidTokenError))


def expected_by_others(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the claims as PyJWT and as joserfc verify them."""
    pyjwt = jwt.decode(
        token,
        jwt.PyJWK(JWK).key,
        algorithms=["ES256"],
        issuer=ISSUER,
        audience=AUDIENCE,
        # PyJWT has no clock to set; joserfc judges the times.
        options={"require": ["exp", "aud", "iss"], "verify_exp": False, "verify_iat": False},
    )
    joserfc = joserfc_decode(token, ECKey.import_key(JWK), algorithms=["ES256"]).claims
    JWTClaimsRegistry(
        now=NOW,
        leeway=5,
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        exp={"essential": True},
    ).validate(joserfc)
    return pyjwt, joserfc


@settings(max_examples=5 * settings().max_examples)
@given(NEARLY_CLAIMS, st.dictionaries(st.text(max_size=8), JSON, max_size=3))
def test_what_is_accepted_here_is_accepted_by_others_with_the_same_claims(
    nearly: dict[str, Any], extra: dict[str, Any]
) -> None:
    token = ES256.sign({**extra, "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60, **nearly})
    found = outcome(token)

    if isinstance(found, Principal):
        assert expected_by_others(token) == (found.claims, found.claims)


@given(st.sampled_from(sorted(CLAIMS)), JSON)
def test_one_changed_claim_never_makes_a_token_speak_for_another_user(
    name: str, value: object
) -> None:
    found = outcome(ES256.sign({**CLAIMS, name: value}))

    if isinstance(found, Principal) and name != "sub":
        assert (found.user_id, found.issuer) == ("alice", ISSUER)
