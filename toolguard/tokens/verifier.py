"""Who answers whom a token speaks for?"""

from __future__ import annotations

from typing import Protocol

from toolguard.principal import Principal

__all__ = ["Verifier"]


class Verifier(Protocol):
    """Answers whom a token speaks for; write one's own with :meth:`Principal.from_claims`."""

    async def verify(self, token: str) -> Principal:
        """Return the caller that ``token`` speaks for.

        Raises:
            InvalidTokenError: if the token does not hold up, for whatever reason.
            KeysUnavailableError: if nobody can tell right now.
        """
        ...
