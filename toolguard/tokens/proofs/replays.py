"""The proofs that were accepted, so that none is accepted twice (RFC 9449 §11.1)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["MemoryReplays", "Replays"]

# About 100 bytes for each. With a window of 300 seconds, that many proofs are made within 10
# minutes by 160 requests a second; with more requests, the window is shorter.
_MAX_PROOFS = 100_000
_MAX_OF_ONE_KEY = 20_000


class Replays(Protocol):
    """The proofs that were accepted within the window."""

    async def is_first(self, key: str, proof_id: bytes, until: float) -> bool:
        """Record that a proof is used now; return whether that is its first use.

        Args:
            key: the thumbprint of the key that signed it.
            proof_id: a digest of the key and of the ``jti``.
            until: when the proof is too old to be accepted, in seconds since the epoch.

        Raises:
            KeysUnavailableError: if that cannot be told now.
        """
        ...


class _OfOneKey:
    """The proofs of one key: their ids, and until when each is kept."""

    __slots__ = ("forgotten", "kept")

    def __init__(self) -> None:
        self.kept: dict[bytes, tuple[float, object]] = {}
        #: Proofs that are good until then, or shorter, count as used.
        self.forgotten = -math.inf

    @property
    def ends(self) -> float:
        """Until when something of this key has to be kept."""
        return max((until for until, _ in tuple(self.kept.values())), default=self.forgotten)

    def shrink(self, keep: int) -> None:
        """Forget all proofs but the newest: those that are as old are refused from now on."""
        # In place and in this order: what another thread adds meanwhile is not lost.
        known = tuple((until, name) for name, (until, _) in tuple(self.kept.items()))
        ends = sorted(until for until, _ in known)
        if len(ends) > keep:
            self.forgotten = max(self.forgotten, ends[-keep - 1])
        for until, name in known:
            if until <= self.forgotten:
                self.kept.pop(name, None)


class MemoryReplays:
    """The proofs that this process has accepted; for a server of one process.

    The memory is bounded. When it is full, the oldest proofs of the keys with the most proofs are
    forgotten, and proofs of those keys which are as old are refused from then on: no proof is
    accepted twice, and a key with few proofs keeps its whole window.

    Args:
        limit: the maximum number of proofs.
        limit_of_one: the maximum number of proofs of one key.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if a limit is less than 2.
    """

    def __init__(
        self,
        *,
        limit: int = _MAX_PROOFS,
        limit_of_one: int = _MAX_OF_ONE_KEY,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if min(limit, limit_of_one) < 2:  # noqa: PLR2004 - half of them are forgotten at once
            raise ValueError("limit and limit_of_one are numbers of proofs: write 2 or more")
        self._limit = limit
        self._limit_of_one = min(limit, limit_of_one)
        self._clock = clock
        self._keys: dict[str, _OfOneKey] = {}
        self._forgotten = -math.inf
        self._count = 0

    async def is_first(self, key: str, proof_id: bytes, until: float) -> bool:
        """Record that a proof is used now; return whether that is its first use.

        Args:
            key: the thumbprint of the key that signed it.
            proof_id: a digest of the key and of the ``jti``.
            until: when the proof is too old to be accepted, in seconds since the epoch.
        """
        known = self._keys.get(key) or self._keys.setdefault(key, _OfOneKey())
        if until <= max(known.forgotten, self._forgotten):
            return False
        # One step, so that of two threads only one is the first. There is no lock, which a forked
        # process could inherit in its locked state.
        mark = (until, object())
        if known.kept.setdefault(proof_id, mark) is not mark:
            return False
        self._count += 1
        if len(known.kept) > self._limit_of_one:
            known.shrink(self._limit_of_one // 2)
            self._count -= self._limit_of_one // 2
        if self._count > self._limit:
            self._make_room()
        return until > max(known.forgotten, self._forgotten)

    def _make_room(self) -> None:
        """Drop what is too old, then what is beyond an equal share of half of the memory."""
        now, room = self._clock(), self._limit // 2
        live = [(each.ends, key) for key, each in tuple(self._keys.items())]
        live.sort()
        # As many keys as fit; the others are forgotten as a whole.
        excess = max(0, len(live) - room)
        if excess:
            self._forgotten = max(self._forgotten, live[excess - 1][0])
        for ends, key in live:
            if ends <= max(now, self._forgotten):
                self._keys.pop(key, None)
        for each in tuple(self._keys.values()):
            each.shrink(max(1, room // len(self._keys)))
        self._count = sum(len(each.kept) for each in tuple(self._keys.values()))

    def __repr__(self) -> str:
        return f"<MemoryReplays: at most {self._limit} proofs>"
