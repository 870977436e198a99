"""How often does a verifier ask for keys? Sources that count it, for no test of a user's."""

from __future__ import annotations

from toolguard.testing import LocalIssuer
from toolguard.tokens.keys import Key, StaticKeys

__all__ = ["Keys", "published"]


def published(issuer: LocalIssuer) -> Key:
    """Return the key that ``issuer`` signs with, as a verifier knows it."""
    (key,) = StaticKeys(issuer.jwks()).find(issuer.key_id, issuer.algorithm)
    return key


class Keys:
    """A source of given keys that counts how often it was refreshed.

    Args:
        keys: what the issuer publishes.
        fetched: whether the keys are at hand before the first refresh.
        issuer: what discovery will say.
        replaced: the keys before the first refresh, where the issuer has changed them.
    """

    def __init__(
        self,
        *keys: Key,
        fetched: bool = True,
        issuer: str | None = None,
        replaced: tuple[Key, ...] | None = None,
    ) -> None:
        self._keys = keys
        self._known = (keys if replaced is None else replaced) if fetched else None
        self._issuer = issuer
        self.refreshes = 0

    @property
    def issuer(self) -> str | None:
        return self._issuer if self._known is not None else None

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        if self._known is None:
            return None
        return tuple(
            key for key in self._known if kid in (None, key.kid) and algorithm in key.algorithms
        )

    def report_bad_signature(self, kid: str | None) -> bool:
        return self.refreshes == 0

    async def refresh(self) -> None:
        self.refreshes += 1
        self._known = self._keys
