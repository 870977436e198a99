"""Decide whether a request may be repeated, and after which delay.

The decision is a pure function of the earlier failures; the HTTP client does the waiting.
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

#: The maximum that is read from a ``Retry-After`` header, in seconds.
MAX_RETRY_AFTER = 3_600

FaultKind = Literal["unsent", "unanswered", "rate_limited", "final"]
"""How an attempt failed.

``unsent``: the request was not sent. ``unanswered``: it may have been processed. ``rate_limited``:
it was not processed (429). ``final``: another attempt would fail in the same way.
"""

_MAX_RETRIES = 2
# Seconds. A tool call waits for this: longer waits are reported to the caller instead.
_LONGEST_RETRY_AFTER = 2
_FIRST_BACKOFF = 0.1


@dataclass(frozen=True)
class Failure:
    """An attempt without an answer.

    Attributes:
        error: the error to raise if there is no further attempt.
        kind: how the attempt failed.
        retry_after: the ``Retry-After`` of the server in seconds; None if it sent none.
    """

    error: ConnectionTokenError
    kind: FaultKind = "final"
    retry_after: int | None = None


@dataclass(frozen=True)
class Retries:
    """How often a request is repeated, and after which delay.

    A request is repeated if it was not sent; if it is idempotent and had no answer; and, once, if
    it was refused with 429 and a ``Retry-After`` of at most 2 s. Others are never repeated.

    Attributes:
        max_retries: the maximum number of further attempts, 0 to 2.
        sleep: waits for a number of seconds.
        jitter: returns numbers from 0 to 1, which spread callers that failed at the same time.

    Raises:
        ValueError: if ``most`` is not 0, 1 or 2.
    """

    max_retries: int = _MAX_RETRIES
    sleep: Callable[[float], Awaitable[None]] = field(default=anyio.sleep, repr=False)
    jitter: Callable[[], float] = field(default=random.random, repr=False)

    def __post_init__(self) -> None:
        if self.max_retries not in range(_MAX_RETRIES + 1):
            raise ValueError(
                "write max_retries=2, 1 or 0: more attempts would only hold the caller up"
            )

    def delay(
        self, failure: Failure, earlier: Sequence[FaultKind], *, is_idempotent: bool
    ) -> float | None:
        """Return the seconds to wait before the next attempt; None if there is none.

        Args:
            failure: the failure of the last attempt.
            earlier: the kinds of the failures before that.
            is_idempotent: whether the vault may safely process the request twice.
        """
        wait = failure.retry_after or 0
        if len(earlier) >= self.max_retries or wait > _LONGEST_RETRY_AFTER:
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


NO_RETRIES = Retries(max_retries=0)
"""One attempt only."""


def retry_after_seconds(value: str | None, now: float) -> int | None:
    """Return the delay of a ``Retry-After`` header (RFC 9110 §10.2.3), in seconds.

    Args:
        value: the header: a number of seconds, or an HTTP date.
        now: seconds since the epoch.

    Returns:
        A number from 1 to :data:`MAX_RETRY_AFTER`; None if the header is absent or invalid.

    >>> retry_after_seconds("120", now=0.0)
    120
    """
    if value is None:
        return None
    if re.fullmatch("[0-9]{1,10}", value):
        return _bounded(int(value))
    try:
        moment = parsedate_to_datetime(value)
        # `-0000` results in a date without a time zone; HTTP dates are always in GMT.
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return _bounded(math.ceil(aware.timestamp() - now))
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: int) -> int:
    return min(max(seconds, 1), MAX_RETRY_AFTER)
