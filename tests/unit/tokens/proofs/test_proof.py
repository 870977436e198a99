"""Which DPoP proof is one for this request?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_encode

from toolguard.errors import InvalidProofError
from toolguard.testing import hostile
from toolguard.testing.proofs import INVALID_PROOFS, ProofKey
from toolguard.tokens.proofs.proof import Proof, Request, check_proof, read_proof
from toolguard.tokens.proofs.settings import DPoP

URL = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
TOKEN = "header.payload.signature"
KEY = ProofKey(clock=lambda: NOW)


def checked(*headers: str, now: float = NOW, key: str = KEY.thumbprint) -> Proof:
    sent = [(b"dpop", each.encode()) for each in headers]
    return check_proof(
        read_proof(sent),
        Request("POST", URL, TOKEN, key),
        now=now,
        window=300,
        algorithms=DPoP().algorithms,
    )


def reason_for(*headers: str, **request: Any) -> str:
    with pytest.raises(InvalidProofError) as caught:
        checked(*headers, **request)
    assert caught.value.__cause__ is None
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "EdDSA", "RS256", "PS256"])
def test_a_proof_for_the_request_is_accepted(algorithm: Any) -> None:
    key = ProofKey(algorithm, clock=lambda: NOW)

    proof = checked(key.prove("POST", URL, TOKEN, jti="a", nonce="b"), key=key.thumbprint)

    assert proof == Proof(key.thumbprint, "a", NOW, "b")


@pytest.mark.parametrize("name", INVALID_PROOFS)
def test_an_invalid_proof_is_refused_for_its_reason(name: str) -> None:
    headers = KEY.prove_invalid(name, "POST", URL, TOKEN)

    assert reason_for(*headers) == INVALID_PROOFS[name]


def test_at_least_twenty_kinds_of_invalid_proof_have_names() -> None:
    assert len(INVALID_PROOFS) >= 20


def test_an_unknown_kind_of_invalid_proof_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="unknown kind of proof 'odd': write one of"):
        KEY.prove_invalid("odd", "POST", URL, TOKEN)


@given(st.floats(-300, 300))
def test_a_proof_is_accepted_within_its_window(age: float) -> None:
    assert checked(KEY.prove("POST", URL, TOKEN), now=NOW + age).issued_at == NOW


@given(st.floats(300.001, 1e12) | st.floats(-1e9, -300.001))
def test_a_proof_is_refused_beyond_its_window(age: float) -> None:
    assert reason_for(KEY.prove("POST", URL, TOKEN), now=NOW + age) == "time"


@pytest.mark.parametrize("iat", [float("inf"), 10**400, [], {}, None])
def test_a_proof_at_no_time_is_refused(iat: Any) -> None:
    assert reason_for(KEY.prove("POST", URL, TOKEN, iat=iat)) in ("time", "malformed")


@pytest.mark.parametrize("target", ["", URL])
def test_no_proof_is_for_a_request_without_a_canonical_url(target: str) -> None:
    with pytest.raises(InvalidProofError) as caught:
        check_proof(
            KEY.prove("POST", URL, TOKEN, htu=target),
            Request("POST", "", TOKEN, KEY.thumbprint),
            now=NOW,
            window=300,
            algorithms=DPoP().algorithms,
        )
    assert caught.value.reason == "target"


def test_a_proof_in_another_letter_case_of_its_type_is_accepted() -> None:
    checked(KEY.prove("POST", URL, TOKEN, headers={"typ": "application/DPoP+JWT"}))


def test_an_accepted_algorithm_is_one_of_the_settings() -> None:
    with pytest.raises(InvalidProofError) as caught:
        check_proof(
            KEY.prove("POST", URL, TOKEN),
            Request("POST", URL, TOKEN, KEY.thumbprint),
            now=NOW,
            window=300,
            algorithms=["EdDSA"],
        )
    assert caught.value.reason == "algorithm"


def test_a_proof_with_another_algorithm_than_its_key_has_is_refused() -> None:
    proof = KEY.prove("POST", URL, TOKEN, headers={"alg": "RS256"})

    assert reason_for(proof) == "signature"


def test_a_long_header_is_read_as_well() -> None:
    checked(KEY.prove("POST", URL, TOKEN, headers={"padding": "a" * 3_000}))


def test_a_proof_shows_neither_its_id_nor_its_nonce() -> None:
    assert "secret" not in repr(
        checked(KEY.prove("POST", URL, TOKEN, jti="secret", nonce="secret"))
    )


def test_a_nonce_that_is_no_text_is_refused() -> None:
    assert reason_for(KEY.prove("POST", URL, TOKEN, nonce=7)) == "nonce"  # type: ignore[arg-type]


@given(st.text())
def test_any_text_is_refused_as_a_proof(text: str) -> None:
    with pytest.raises(InvalidProofError):
        check_proof(text, Request("POST", URL), now=NOW, window=300, algorithms=["ES256"])


@given(st.binary(), st.lists(st.sampled_from([b"dpop", b"authorization"])))
def test_any_header_is_read_or_refused(value: bytes, names: list[bytes]) -> None:
    headers = [(name, value) for name in names]
    if names.count(b"dpop") == 1 and b"," not in value:
        assert read_proof(headers).encode("latin-1") == value.strip(b" \t")
    else:
        with pytest.raises(InvalidProofError):
            read_proof(headers)


@given(st.dictionaries(st.sampled_from(["typ", "alg", "jwk", "kid"]), hostile.json_values()))
def test_a_hostile_header_is_refused(members: dict[str, Any]) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": KEY.jwk, **members}
    parts = (json.dumps(header).encode(), b"{}", b"signature")

    assert reason_for(".".join(base64url_encode(part).decode() for part in parts)) != "replay"


@given(st.dictionaries(st.sampled_from(list(KEY.jwk)), hostile.json_values(), min_size=1))
def test_a_hostile_key_is_refused(members: dict[str, Any]) -> None:
    proof = KEY.prove("POST", URL, TOKEN, headers={"jwk": {**KEY.jwk, **members}})

    assert reason_for(proof) in ("key", "binding", "malformed")


@given(
    st.dictionaries(
        st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce", "exp"]), hostile.json_values()
    )
)
def test_hostile_claims_are_refused_or_those_of_a_proof(claims: dict[str, Any]) -> None:
    try:
        proof = checked(KEY.prove("POST", URL, TOKEN, **claims))
    except InvalidProofError:
        return
    assert claims.get("htm", "POST") == "POST"
    assert 0 < len(proof.id) <= 256
    assert abs(proof.issued_at - NOW) <= 300
