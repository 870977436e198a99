"""Verify the signature of a JWS with one key (RFC 7515 §5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from toolguard.tokens.jws import CompactJWS
from toolguard.tokens.keys import Key

__all__ = ["DEFAULT_ALGORITHMS", "is_signed"]

DEFAULT_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""All supported signature algorithms: asymmetric ones (RFC 7518 §3.1, RFC 8037, RFC 9864)."""

_HASHES: Mapping[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
# The parameters of a verification, made once: RFC 7518 §3.3, §3.4 and §3.5; none for EdDSA.
_PARAMETERS: Mapping[str, tuple[Any, ...]] = {
    **{f"RS{bits}": (PKCS1v15(), hashed) for bits, hashed in _HASHES.items()},
    **{f"PS{b}": (PSS(MGF1(hashed), hashed.digest_size), hashed) for b, hashed in _HASHES.items()},
    **{f"ES{bits}": (ECDSA(hashed),) for bits, hashed in _HASHES.items()},
    **dict.fromkeys(("EdDSA", "Ed25519"), ()),
}
# RFC 7518 §3.4: the curve of each algorithm, and the octets of each of the two numbers.
_CURVES: Mapping[str, tuple[str, int]] = {
    "ES256": ("secp256r1", 32),
    "ES384": ("secp384r1", 48),
    "ES512": ("secp521r1", 66),
}


def is_signed(jws: CompactJWS, key: Key) -> bool:
    """Return whether ``key`` verifies the signature of ``jws``.

    Args:
        jws: the parsed token; its ``alg`` is a supported one.
        key: the key; it verifies its own algorithms only.
    """
    algorithm, signature = jws.algorithm, jws.signature
    # RFC 8725 §3.1: a key is used with one algorithm, which is checked at every use.
    if algorithm not in key.algorithms:
        return False
    material: Any = key.material  # maybe not of the kind that its algorithms are for
    try:
        if algorithm in _CURVES:
            curve, size = _CURVES[algorithm]
            if material.curve.name != curve or len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            signature = encode_dss_signature(r, s)
        material.verify(signature, jws.signing_input, *_PARAMETERS[algorithm])
    except (InvalidSignature, AttributeError, TypeError):
        return False
    return True
