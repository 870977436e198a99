"""Whose tokens do the tests of the verifier accept, and which tokens are good?

An issuer of the kit has one kind of key; this one has two, as an attacker wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from toolguard.principal import Principal
from toolguard.testing import LocalIssuer
from toolguard.testing.issuer import Algorithm
from toolguard.testing.providers import RFC_9068
from toolguard.tokens.keys import StaticKeys

__all__ = [
    "AUDIENCE",
    "CLAIMS",
    "ES256",
    "ISSUER",
    "NOW",
    "RS256",
    "claims",
    "issuing",
    "mint",
    "verify",
]

ISSUER = "https://auth.example.com"
AUDIENCE = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
# What a token is has to be seen from its claims where its header does not say so.
_UNTYPED = replace(RFC_9068, typ=None)


def issuing(algorithm: Algorithm = "ES256") -> LocalIssuer:
    """Return somebody who signs in the name of the issuer, with a new key."""
    return LocalIssuer(
        ISSUER, audience=AUDIENCE, algorithm=algorithm, provider=_UNTYPED, clock=lambda: NOW
    )


ES256 = issuing()
RS256 = issuing("RS256")
_ALICES: dict[str, Any] = {
    "scopes": ["read", "write"],
    "expires_in": 600,
    "client_id": "desktop",
}


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with ``changes``; None leaves a claim out."""
    return ES256.claims("alice", **{**_ALICES, **changes})


def mint(headers: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """Return a token with good claims but for ``changes``."""
    return ES256.sign(claims(**changes), headers=headers)


CLAIMS: Mapping[str, Any] = claims()

_VERIFIER = ES256.verifier(
    keys=StaticKeys({"keys": [*ES256.jwks()["keys"], *RS256.jwks()["keys"]]})
)


def verify(token: str) -> Principal:
    """Return whom ``token`` speaks for, here and now, under both of the keys."""
    principal = _VERIFIER.verify_now(token)
    assert principal is not None
    return principal
