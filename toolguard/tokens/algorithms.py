"""The signature algorithms of keys (RFC 7518 §3, RFC 8037 §3.1)."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BY_CURVE", "MIN_RSA_BITS"]

#: The minimum length of an RSA key (RFC 7518 §3.3).
MIN_RSA_BITS = 2048

BY_CURVE: Mapping[str, str] = {
    "secp256r1": "ES256",
    "secp384r1": "ES384",
    "secp521r1": "ES512",
}
"""The algorithm of each elliptic curve, by cryptography's name of the curve."""
