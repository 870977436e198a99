"""Does a key verify signatures of its own algorithms, made by it, and no others?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from toolguard.tokens.jws import CompactJWS
from toolguard.tokens.keys import Key
from toolguard.tokens.signatures import DEFAULT_ALGORITHMS, is_signed

_RSA = rsa.generate_private_key(65537, 2048)
_EDDSA = ed25519.Ed25519PrivateKey.generate()
PRIVATE: dict[str, Any] = {
    "RS": _RSA,
    "PS": _RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "Ed": _EDDSA,
}
ALL = frozenset(DEFAULT_ALGORITHMS)


def private_of(algorithm: str) -> Any:
    return next(key for name, key in PRIVATE.items() if algorithm.startswith(name))


def signed(algorithm: str, signing_input: bytes = b"header.payload") -> CompactJWS:
    signer = get_default_algorithms()["EdDSA" if algorithm == "Ed25519" else algorithm]
    signature = signer.sign(signing_input, private_of(algorithm))
    return CompactJWS(algorithm, None, "jwt", b"payload", signing_input, signature)


def key_of(algorithm: str, algorithms: frozenset[str] = ALL) -> Key:
    return Key(None, algorithms, private_of(algorithm).public_key())


@pytest.mark.parametrize("algorithm", DEFAULT_ALGORITHMS)
def test_a_key_verifies_what_pyjwt_signs(algorithm: str) -> None:
    jws = signed(algorithm)

    assert is_signed(jws, key_of(algorithm))
    assert not is_signed(replace(jws, signing_input=b"header.other"), key_of(algorithm))
    for signature in (b"", jws.signature[:-1], jws.signature + b"\0", bytes(len(jws.signature))):
        assert not is_signed(replace(jws, signature=signature), key_of(algorithm))


@pytest.mark.parametrize("algorithm", DEFAULT_ALGORITHMS)
def test_a_key_verifies_its_own_algorithms_only(algorithm: str) -> None:
    assert not is_signed(signed(algorithm), key_of(algorithm, ALL - {algorithm}))


@pytest.mark.parametrize("algorithm", DEFAULT_ALGORITHMS)
@pytest.mark.parametrize("other", sorted(PRIVATE))
def test_a_key_of_another_kind_verifies_nothing(algorithm: str, other: str) -> None:
    key = Key(None, ALL, PRIVATE[other].public_key())

    assert is_signed(signed(algorithm), key) is (PRIVATE[other] is private_of(algorithm))


def test_a_key_of_another_curve_verifies_nothing() -> None:
    private = ec.generate_private_key(ec.SECP256K1())
    signature = get_default_algorithms()["ES256K"].sign(b"a.b", private)
    jws = CompactJWS("ES256", None, "jwt", b"", b"a.b", signature)

    assert not is_signed(jws, Key(None, ALL, private.public_key()))
