"""The protocol of token verifiers."""

from __future__ import annotations

from typing import Protocol

from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.principal import Principal

__all__ = ["Verifier", "scope_names_of"]


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
