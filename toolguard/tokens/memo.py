"""Remember the results of token verification.

A result holds only what follows from the bytes of the token, the key that verified it and the
settings of the verifier. Results are keyed by a digest: the memo holds no token.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from toolguard.principal import Principal
from toolguard.tokens.claims import Times
from toolguard.tokens.keys import Key

__all__ = ["Memo", "Verified", "digest_of", "own_claims"]


class Verified:
    """The result of verifying a token, apart from the checks that depend on time.

    Args:
        algorithm: the ``alg`` of the token's header.
        kid: the ``kid`` of the token's header; None if it has none.
        key: the key object that verified the signature.
        times: the period in which the token is valid.
        principal: the principal of the token.
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
        #: Whether the claims contain no mutable object.
        self.is_flat = {dict, list}.isdisjoint(map(type, principal.claims.values()))

    def own_principal(self) -> Principal:
        """Return the principal with claims that share no mutable object with another message."""
        made = object.__new__(Principal)
        # What replace() does, in a tenth of the time: this is done for each call.
        claims = MappingProxyType(own_claims(self.principal.claims))
        vars(made).update(vars(self.principal), claims=claims)
        return made


class Memo:
    """The results of at most ``size`` tokens, the most recently used; thread-safe.

    There are two generations: used results move to the young one; when that is full it replaces
    the old one. There is no lock, which a forked process could inherit in its locked state.
    """

    def __init__(self, size: int) -> None:
        self._half = size // 2
        self._young: dict[bytes, Verified] = {}
        self._old: dict[bytes, Verified] = {}

    def recall(self, digest: bytes) -> Verified | None:
        """Return the result for the token with this digest; None if it is not known."""
        known = self._young.get(digest)
        if known is None and (known := self._old.get(digest)) is not None:
            self.keep(digest, known)
        return known

    def keep(self, digest: bytes, verified: Verified) -> None:
        """Remember the result for a valid token."""
        if not self._half:
            return
        if digest not in self._young and len(self._young) >= self._half:
            self._young, self._old = {}, self._young
        self._young[digest] = verified
        self._old.pop(digest, None)

    def __len__(self) -> int:
        return len(self._young) + len(self._old)


def digest_of(token: str) -> bytes:
    """Return the digest by which what is known of a token is kept."""
    # Lone surrogates are encoded as well: no two texts share a digest. BLAKE2 starts in half the
    # time of the hashes of OpenSSL.
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def own_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of JSON claims that shares no mutable object with them."""
    return {
        name: _own(value) if isinstance(value, (dict, list)) else value
        for name, value in claims.items()
    }


def _own(value: Any) -> Any:
    if isinstance(value, dict):
        return own_claims(value)
    return [_own(item) for item in value] if isinstance(value, list) else value
