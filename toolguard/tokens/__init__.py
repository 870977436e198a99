"""Verify bearer access tokens: syntax, signature, keys, claims and times. Public."""

import importlib
from typing import TYPE_CHECKING, Any

from toolguard.tokens.verifier import Verifier

if TYPE_CHECKING:
    from toolguard.tokens.jwks import JWKS
    from toolguard.tokens.jwt import JWTVerifier
    from toolguard.tokens.keys import KeySource, StaticKeys

__all__ = ["JWKS", "JWTVerifier", "KeySource", "StaticKeys", "Verifier"]

_HOMES = {"JWKS": "jwks", "JWTVerifier": "jwt", "KeySource": "keys", "StaticKeys": "keys"}


def __getattr__(name: str) -> Any:
    """Import slow modules on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
