"""Sign JWTs with a private key: assertions of a client, a service account or an app (RFC 7515)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from toolguard.tokens.algorithms import BY_CURVE, MIN_RSA_BITS

__all__ = ["PrivateKey", "SigningKey"]

PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
"""A private key that can sign an assertion."""

# RFC 7518 §3.1, RFC 8037 §3.1. The first algorithm of a key is its default.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_UNUSABLE = "a client signs with an RSA key of 2,048 bits or more, P-256, P-384, P-521 or Ed25519"


class SigningKey:
    """Signs claims. Its representation shows the algorithm only.

    Args:
        private_key: a key, or its PEM text without a password. RSA from 2,048 bits, P-256, P-384,
            P-521 or Ed25519.
        algorithm: the signature algorithm; None takes the usual one of the key.
        header: further members of the JOSE header, such as ``kid``; None values are left out.

    Raises:
        ValueError: if the key cannot be read, or does not sign with this algorithm.
    """

    def __init__(
        self,
        private_key: str | bytes | PrivateKey,
        algorithm: str | None = None,
        header: Mapping[str, str | None] | None = None,
    ) -> None:
        self._key = _loaded(private_key)
        self._header = {name: value for name, value in (header or {}).items() if value}
        #: The signature algorithm (RFC 7518 §3.1).
        self.algorithm = _algorithm(self._key, algorithm)

    def sign(self, claims: Mapping[str, Any]) -> str:
        """Return the claims as a signed JWT."""
        return jwt.encode(dict(claims), self._key, algorithm=self.algorithm, headers=self._header)

    def __repr__(self) -> str:
        return f"<SigningKey: {self.algorithm}>"


def _loaded(private_key: str | bytes | PrivateKey) -> PrivateKey:
    if not isinstance(private_key, (str, bytes)):
        return private_key
    pem = private_key.encode() if isinstance(private_key, str) else private_key
    try:
        loaded = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            "this is not a private key: write the PEM that begins -----BEGIN PRIVATE KEY-----, "
            "without a password"
        ) from None
    if not isinstance(loaded, (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey)):
        raise ValueError(_UNUSABLE)  # noqa: TRY004 - the type is fine, the key is not
    return loaded


def _algorithm(key: PrivateKey, algorithm: str | None) -> str:
    usable = _algorithms(key)
    if not usable:
        raise ValueError(_UNUSABLE)
    if algorithm is not None and algorithm not in usable:
        raise ValueError(
            f"this key signs with {' or '.join(usable)}: write algorithm={usable[0]!r}"
        )
    return algorithm or usable[0]


def _algorithms(key: object) -> tuple[str, ...]:
    if isinstance(key, RSAPrivateKey):
        return _RSA if key.key_size >= MIN_RSA_BITS else ()
    if isinstance(key, EllipticCurvePrivateKey):
        name = BY_CURVE.get(key.curve.name)
        return (name,) if name else ()
    return ("EdDSA",) if isinstance(key, Ed25519PrivateKey) else ()
