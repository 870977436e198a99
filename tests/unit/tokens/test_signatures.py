"""Does a key verify signatures of its own algorithms, made by it, and no others?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidKeyError

from support.client_keys import private_key
from toolguard.tokens.jws import CompactJWS
from toolguard.tokens.keys import Key
from toolguard.tokens.signatures import DEFAULT_ALGORITHMS, is_signed

_RSA = private_key("RS256")
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


# Signing takes long; what is mutated are these.
SIGNED = {algorithm: signed(algorithm) for algorithm in DEFAULT_ALGORITHMS}
P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def flipped(data: bytes, bit: int) -> bytes:
    number = int.from_bytes(data, "big") ^ 1 << bit % max(8 * len(data), 1)
    return number.to_bytes(len(data) or 1, "big")


def as_der(data: bytes, _: int) -> bytes:
    half = len(data) // 2
    return encode_dss_signature(*(int.from_bytes(n, "big") for n in (data[:half], data[half:])))


def with_equal_numbers(data: bytes, which: int) -> bytes:
    """Return a signature whose numbers are the same, modulo the order of P-256 or by its sign."""
    r, s = int.from_bytes(data[:32], "big"), int.from_bytes(data[32:64], "big")
    r, s = ((r, P256 - s), (r + P256, s), (r, s + P256), (0, s), (r, 0), (P256, P256))[which % 6]
    size = max(32, (r.bit_length() + 7) // 8, (s.bit_length() + 7) // 8)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


MUTATIONS: tuple[Callable[[bytes, int], bytes], ...] = (
    lambda data, _: data,
    flipped,
    as_der,
    with_equal_numbers,
    lambda data, at: data[: at % (len(data) + 1)],
    lambda data, at: bytes(at % 70) + data,
    lambda data, at: data + bytes(at % 70),
    lambda data, at: data[: len(data) // 2].lstrip(b"\0") + bytes(at % 2) + data[len(data) // 2 :],
    lambda data, _: data[len(data) // 2 :] + data[: len(data) // 2],
)


@given(
    st.sampled_from(DEFAULT_ALGORITHMS),
    st.none() | st.sampled_from(DEFAULT_ALGORITHMS),
    st.none() | st.sampled_from(sorted(PRIVATE)),
    st.lists(st.tuples(st.sampled_from(MUTATIONS), st.integers(0, 5_000)), max_size=2),
    st.sampled_from([b"header.payload", b"header.payloae", b""]),
)
def test_the_verdict_on_any_signature_is_that_of_pyjwt(
    algorithm: str,
    signer: str | None,
    key: str | None,
    mutations: list[tuple[Callable[[bytes, int], bytes], int]],
    signing_input: bytes,
) -> None:
    private = private_of(algorithm) if key is None else PRIVATE[key]
    signature, material = SIGNED[signer or algorithm].signature, private.public_key()
    for mutate, at in mutations:
        signature = mutate(signature, at)
    jws = CompactJWS(algorithm, None, "jwt", b"payload", signing_input, signature)

    assert is_signed(jws, Key(None, ALL, material)) is by_pyjwt(jws, material)


def by_pyjwt(jws: CompactJWS, material: Any) -> bool:
    """Return the verdict of PyJWT, which is False for a key that the algorithm is not for."""
    known = get_default_algorithms()["EdDSA" if jws.algorithm == "Ed25519" else jws.algorithm]
    try:
        key = known.prepare_key(material)
    except (InvalidKeyError, TypeError):
        return False
    return bool(known.verify(jws.signing_input, key, jws.signature))
