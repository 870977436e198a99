"""The protocol of token verifiers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.principal import Principal
from toolguard.tokens.proofs.settings import Mode

__all__ = ["Verifier", "dpop_of", "scope_names_of"]


class Verifier(Protocol):
    """Verifies bearer tokens; to write your own, return :meth:`Principal.from_claims`."""

    async def verify(self, token: str) -> Principal:
        """Verify ``token`` and return its principal.

        Args:
            token: the bearer token, without the scheme.

        Raises:
            InvalidTokenError: if the token is not valid, for any reason.
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        ...


def scope_names_of(verifier: object, issuer: str | None) -> ScopeNames:
    """Return how scopes are called at ``issuer``; None is the first one."""
    find = getattr(verifier, "scope_names_of", None)
    names = SAME if find is None else find(issuer)
    return names if isinstance(names, ScopeNames) else SAME


def dpop_of(verifier: object, issuer: str) -> Mode | None:
    """Return whether bound tokens of ``issuer`` are accepted; None if that is left open."""
    find: Callable[[str], Mode | None] | None = getattr(verifier, "dpop_of", None)
    if find is not None:
        return find(issuer)
    mode: Mode | None = getattr(getattr(verifier, "profile", None), "dpop", None)
    return mode
