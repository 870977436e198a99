"""Stop asking a provider that does not answer, and try one request from time to time."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable

__all__ = ["Breaker"]

# An outage concerns several callers; what fails for one of them is not held against the others.
_CALLERS = 3
# Seconds within which their failures count together.
_WINDOW = 60.0
# Seconds between two trial requests: doubled each time one fails.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0


class Breaker:
    """Refuses requests once the last ones of several callers had no answer.

    After a pause one request is admitted as a trial. Any answer of the provider, also a refusal,
    ends the outage.

    Args:
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failed_at: dict[Hashable, float] = {}
        self._pause = 0.0
        self._until = -math.inf
        self._is_trying = False

    @property
    def wait(self) -> float:
        """The seconds for which requests are refused; 0 if one may be made now."""
        return max(0.0, self._until - self._clock())

    def admit(self) -> bool:
        """Return whether a request may be made now; during an outage it is the trial."""
        if self.wait:
            return False
        if self._pause:
            self._is_trying = True
            self._until = self._clock() + self._pause
        return True

    def answered(self) -> None:
        """Record an answer of the provider."""
        self._failed_at.clear()
        self._pause, self._until, self._is_trying = 0.0, -math.inf, False

    def failed(self, caller: Hashable) -> bool:
        """Record that a request of ``caller`` had no answer; return whether an outage begins."""
        now = self._clock()
        if self._pause:
            # Requests that were made before the outage end one by one: only the trial counts.
            if self._is_trying:
                self._is_trying = False
                self._pause = min(self._pause * 2, _LONGEST_PAUSE)
                self._until = now + self._pause
            return False
        recent = {each: at for each, at in self._failed_at.items() if now - at < _WINDOW}
        self._failed_at = {**recent, caller: now}
        if len(self._failed_at) < _CALLERS:
            return False
        self._pause = _FIRST_PAUSE
        self._until = now + self._pause
        return True
