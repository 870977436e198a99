"""Remember for a moment that there is no connection: a loop of calls does not reach the provider.

What comes once may pass: whoever tries again is served. What comes again at once is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy

from toolguard.connections.memory import TTLCache
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionTokenError,
)

__all__ = ["RecentFailures"]

_MAX_ENTRIES = 10_000
# Seconds; and how often in a row within them.
_REMEMBERED_FOR = 1.0
_REMEMBERED_AFTER = 2
_LONGEST_RATE_LIMIT = 30.0


class RecentFailures:
    """The last failures by key, in this process.

    Args:
        not_connected_for: seconds for which "not connected" is remembered.
        not_connected_after: how often in a row it must come before it is remembered.
        timer: a monotonic clock, in seconds.
    """

    def __init__(
        self, *, not_connected_for: float, not_connected_after: int, timer: Callable[[], float]
    ) -> None:
        self._not_connected_for = not_connected_for
        self._not_connected_after = not_connected_after
        self._found: TTLCache[tuple[ConnectionTokenError, int]] = TTLCache(_MAX_ENTRIES, timer)

    def check(self, key: str) -> None:
        """Raise what is remembered under ``key``.

        Raises:
            ConnectionTokenError: a copy of the failure: a traceback grows with every raise.
        """
        found = self._found.get(key)
        if found is not None and found[1] >= self._terms(found[0])[1]:
            raise copy(found[0])

    def record(self, key: str, failure: ConnectionTokenError) -> None:
        """Record a failure of a request for ``key``."""
        before = self._found.get(key)
        times = before[1] + 1 if before is not None and before[0].error == failure.error else 1
        self._found.put(key, (copy(failure), times), self._terms(failure)[0])

    def forget(self, *keys: str) -> None:
        """Forget the failures under ``keys``."""
        for key in keys:
            self._found.drop(key)

    def _terms(self, failure: ConnectionTokenError) -> tuple[float, int]:
        """Return for how many seconds a failure is remembered, and after how many in a row."""
        if isinstance(failure, ConnectionRequiredError):
            return self._not_connected_for, self._not_connected_after
        if isinstance(failure, ConnectionRateLimitedError) and failure.retry_after is not None:
            return min(float(failure.retry_after), _LONGEST_RATE_LIMIT), 1
        return _REMEMBERED_FOR, _REMEMBERED_AFTER
