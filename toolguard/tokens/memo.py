"""What is already known of a token that was verified before?

Only what follows from its bytes, the key that verified it and the settings of the verifier. Keyed
by a digest: the memo holds no token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from toolguard.principal import Principal
from toolguard.tokens.claims import Times
from toolguard.tokens.keys import Key

__all__ = ["Memo", "Verified", "own_claims"]


class Verified:
    """What a token says whose signature a key verified, apart from what depends on time.

    Args:
        algorithm: the ``alg`` of its header.
        kid: the ``kid`` of its header.
        key: the very object that verified it.
        times: when it is good.
        principal: the caller.
    """

    __slots__ = ("algorithm", "is_flat", "issuer", "key", "kid", "principal", "times")

    def __init__(
        self, algorithm: str, kid: str | None, key: Key, times: Times, principal: Principal
    ) -> None:
        self.algorithm = algorithm
        self.kid = kid
        self.key = key
        self.times = times
        self.issuer = principal.issuer
        self.principal = principal
        #: Whether the claims have nothing in them that a tool could change.
        self.is_flat = {dict, list}.isdisjoint(map(type, principal.claims.values()))

    def own_principal(self) -> Principal:
        """Return the caller with claims that share nothing with those of another message."""
        claims = MappingProxyType(own_claims(self.principal.claims))
        return replace(self.principal, claims=claims)


class Memo:
    """At most ``size`` tokens, those that were used last; for any number of threads.

    Two generations: what is used moves to the young one; when that is full it becomes the old
    one, whose tokens are forgotten. There is no lock that a forked process could inherit locked.
    """

    def __init__(self, size: int) -> None:
        self._half = size // 2
        self._young: dict[bytes, Verified] = {}
        self._old: dict[bytes, Verified] = {}

    def recall(self, digest: bytes) -> Verified | None:
        """Return what is known of the token with this digest."""
        known = self._young.get(digest)
        if known is None and (known := self._old.get(digest)) is not None:
            self.keep(digest, known)
        return known

    def keep(self, digest: bytes, verified: Verified) -> None:
        """Remember a token that has just been found good."""
        if not self._half:
            return
        if digest not in self._young and len(self._young) >= self._half:
            self._young, self._old = {}, self._young
        self._young[digest] = verified
        self._old.pop(digest, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def own_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of JSON claims that shares nothing which could be changed."""
    return {
        name: _own(value) if isinstance(value, (dict, list)) else value
        for name, value in claims.items()
    }


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return own_claims(value)
    return [_own(item) for item in value] if isinstance(value, list) else value
