"""The protocol of token verifiers."""

from __future__ import annotations

from typing import Protocol

from toolguard.principal import Principal

__all__ = ["Verifier"]


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
