"""With which keys do clients sign their assertions? Private ones, which the kit hands to nobody."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

__all__ = ["private_key"]

_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(algorithm: str = "ES256", *, owner: str = "client") -> Any:
    """Return the private key that ``owner`` signs with, the same one every time."""
    # One RSA key signs with every algorithm of its kind, and takes long to make.
    return _generate("RSA" if algorithm[0] in "RP" else algorithm, owner)


@lru_cache
def _generate(algorithm: str, owner: str) -> Any:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
