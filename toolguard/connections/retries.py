"""May a request be sent again, and after how long?

Deciding is a pure function of what went wrong before; whoever sends does the waiting.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Literal

import anyio

from toolguard.errors import ConnectionTokenError

__all__ = [
    "MAX_RETRY_AFTER",
    "NO_RETRIES",
    "Failure",
    "FaultKind",
    "Retries",
    "retry_after_seconds",
]

#: A vault may ask for patience, not for eternity (seconds).
MAX_RETRY_AFTER = 3_600

FaultKind = Literal["unsent", "unanswered", "rate_limited", "final"]
"""How far an attempt came.

``unsent``: the request never left. ``unanswered``: it may have been acted on. ``rate_limited``: it
was not acted on (429). ``final``: another attempt would end the same way.
"""

_MOST = 2
# Seconds. A tool call waits for this: what takes longer is better told to the caller.
_LONGEST_RETRY_AFTER = 2
_FIRST_BACKOFF = 0.1


@dataclass(frozen=True)
class Failure:
    """An attempt that brought no answer.

    Attributes:
        error: what the caller is told if there is no further attempt.
        kind: how far it came.
        retry_after: the seconds that the server asked to wait; None if it did not.
    """

    error: ConnectionTokenError
    kind: FaultKind = "final"
    retry_after: int | None = None


@dataclass(frozen=True)
class Retries:
    """How often a request is sent again, and after which wait.

    Again is sent what never left; what may be sent twice, if there was no answer; and, once, what
    was refused with 429 and a ``Retry-After`` of at most 2 s. Never what was answered.

    Attributes:
        most: further attempts after the first, 0 to 2.
        sleep: waits for a number of seconds.
        jitter: gives numbers from 0 to 1, so that callers who failed together part.

    Raises:
        ValueError: if ``most`` is not 0, 1 or 2.
    """

    most: int = _MOST
    sleep: Callable[[float], Awaitable[None]] = field(default=anyio.sleep, repr=False)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if self.most not in range(_MOST + 1):
            raise ValueError("write most=2, 1 or 0: more attempts would only hold the caller up")

    def delay(
        self, failure: Failure, earlier: Sequence[FaultKind], *, is_idempotent: bool
    ) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is none.

        Args:
            failure: what became of the last attempt.
            earlier: what kinds of failure there were before that.
            is_idempotent: whether the request may be acted on twice.
        """
        wait = failure.retry_after or 0
        if len(earlier) >= self.most or wait > _LONGEST_RETRY_AFTER:
            return None
        allowed = {
            "unsent": True,
            "unanswered": is_idempotent,
            "rate_limited": wait > 0 and "rate_limited" not in earlier,
            "final": False,
        }
        if not allowed[failure.kind]:
            return None
        return wait + _FIRST_BACKOFF * 2.0 ** len(earlier) * (1 + self.jitter())


NO_RETRIES = Retries(most=0)
"""One attempt, whatever becomes of it."""


def retry_after_seconds(value: str | None, now: float) -> int | None:
    """Return how long a ``Retry-After`` header asks to wait (RFC 9110 §10.2.3), in seconds.

    Args:
        value: the header: a number of seconds, or an HTTP date.
        now: seconds since the epoch.

    Returns:
        A number from 1 to :data:`MAX_RETRY_AFTER`; None if there is no header or it is neither.

    >>> retry_after_seconds("120", now=0.0)
    120
    """
    if value is None:
        return None
    if re.fullmatch("[0-9]{1,10}", value):
        return _bounded(int(value))
    try:
        moment = parsedate_to_datetime(value)
        # `-0000` gives a date without a zone; HTTP knows only GMT.
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return _bounded(math.ceil(aware.timestamp() - now))
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: int) -> int:
    return min(max(seconds, 1), MAX_RETRY_AFTER)
