"""The sessions of signed-in people in memory, for approvals without a vault."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from toolguard.vault.grants import Owner
from toolguard.vault.oauth_client import new_secret
from toolguard.vault.slips import SESSION_SECONDS, Slip

__all__ = ["MemorySessions"]

_MAX_SESSIONS = 1_000


class MemorySessions:
    """The sessions of one process.

    Args:
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[Slip, float]] = {}
        self._lock = threading.Lock()

    async def issue(
        self, purpose: Literal["session"], owner: Owner, facts: Mapping[str, Any]
    ) -> str:
        """Return the secret of a new session.

        Args:
            purpose: what it is for.
            owner: the person who is signed in.
            facts: what is known about them.
        """
        del purpose  # there is one only
        secret, now = new_secret(), self._clock()
        with self._lock:
            live = {key: each for key, each in self._kept.items() if each[1] > now}
            for key in [*live][: max(0, len(live) - _MAX_SESSIONS + 1)]:
                del live[key]
            self._kept = {**live, secret: (Slip(owner, facts), now + SESSION_SECONDS)}
        return secret

    async def peek(self, purpose: Literal["session"], secret: str) -> Slip | None:
        """Return the session that ``secret`` stands for; None if there is none.

        Args:
            purpose: what it is for.
            secret: what :meth:`issue` returned.
        """
        del purpose
        slip, until = self._kept.get(secret, (None, 0.0))
        return slip if until > self._clock() else None
