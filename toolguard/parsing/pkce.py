"""Compute the code challenges of PKCE (RFC 7636)."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hashlib import sha256

__all__ = ["s256_challenge"]


def s256_challenge(verifier: str) -> str:
    """Return the S256 challenge of a verifier (RFC 7636 §4.2).

    >>> s256_challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
    """
    return urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
