"""A clock for tests."""

from __future__ import annotations

import math

__all__ = ["FrozenClock"]

_2026 = 1_767_225_600.0


class FrozenClock:
    """A clock that changes only by :meth:`advance`, so that tests do not wait.

    Pass it as ``clock=`` to the guard and to the issuer of the tokens.

    Args:
        now: its initial time, in seconds since the epoch; by default 2026-01-01T00:00:00Z.

    Raises:
        ValueError: if ``now`` is not a time.

    >>> clock = FrozenClock()
    >>> clock()
    1767225600.0
    >>> clock.advance(3600)
    >>> clock()
    1767229200.0
    """

    def __init__(self, now: float = _2026) -> None:
        if not 0 <= now < math.inf:
            raise ValueError("now is a time in seconds since the epoch: write FrozenClock()")
        self._now = float(now)

    def __call__(self) -> float:
        """Return the time in seconds since the epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Advance the time by ``seconds``.

        Raises:
            ValueError: if ``seconds`` is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError("time goes forward: write clock.advance(3600) for an hour")
        self._now += seconds

    def __repr__(self) -> str:
        return f"<FrozenClock: {self._now}>"
