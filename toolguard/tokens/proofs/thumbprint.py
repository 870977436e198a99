"""The thumbprint of a public key (RFC 7638), to which tokens are bound."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

__all__ = ["is_thumbprint", "thumbprint"]

# RFC 7638 §3.2, RFC 8037 §2: the required members, in lexicographic order.
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
# 256 bits in base64url, with two bits over that are 0.
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of a public key in base64url (RFC 7638 §3).

    Args:
        jwk: a key of type EC, OKP or RSA, whose members are valid.

    >>> key = {"kty": "OKP", "crv": "Ed25519"}
    >>> thumbprint({**key, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k'
    """
    members = {name: jwk[name] for name in _MEMBERS[jwk["kty"]]}
    encoded = json.dumps(members, separators=(",", ":")).encode("ascii")
    return urlsafe_b64encode(sha256(encoded).digest()).decode("ascii").rstrip("=")


def is_thumbprint(value: object) -> bool:
    """Return whether ``value`` can be a SHA-256 thumbprint in base64url.

    >>> is_thumbprint("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"), is_thumbprint("kPrK")
    (True, False)
    """
    return isinstance(value, str) and _THUMBPRINT.fullmatch(value) is not None
