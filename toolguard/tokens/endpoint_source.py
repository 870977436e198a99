"""Find an endpoint of an issuer when it is needed, off the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable

from toolguard.errors import KeysUnavailableError
from toolguard.tokens.discovery import EndpointLocation
from toolguard.tokens.fetching import Fetch
from toolguard.tokens.per_loop import PerLoop

__all__ = ["EndpointSource"]

_log = logging.getLogger("toolguard.tokens")

_MAX_BACKOFF = 60.0


class EndpointSource:
    """An endpoint of an issuer: one discovery at a time, which serves all waiting calls.

    After a failure the next attempt comes 1, 2, 4 ... 60 s later.

    Args:
        location: where the endpoint is.
        fetch: fetches a document of the metadata; called in a separate thread.
        timeout: seconds for a whole discovery.
        clock: returns the time, in seconds.
    """

    def __init__(
        self,
        location: EndpointLocation,
        *,
        fetch: Fetch,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._location = location
        self._fetch = fetch
        self._timeout = timeout
        self._clock = clock
        self._locks = PerLoop(asyncio.Lock)
        self._failures = 0
        self._retry_at = -math.inf

    async def find(self) -> str:
        """Return the URL of the endpoint.

        Raises:
            KeysUnavailableError: if it cannot be discovered, or it is too early to try again.
        """
        known = self._location.known(self._clock())
        if known is not None:
            return known
        async with self._locks.get():
            wait = self._retry_at - self._clock()
            if wait > 0:
                raise _unavailable(wait)
            try:
                found = await asyncio.to_thread(self._discover)
            except KeysUnavailableError as error:
                delay = min(2.0**self._failures, _MAX_BACKOFF)
                self._retry_at = self._clock() + delay
                self._failures = min(self._failures + 1, 10)
                _log.warning("no endpoint of %s: %s", self._location.address, error)
                raise _unavailable(delay) from None
        self._failures = 0
        return found

    def forget(self) -> None:
        """Discover again at the next ``find``: the endpoint may have moved."""
        self._location.forget()

    def _discover(self) -> str:
        ends_at = time.monotonic() + self._timeout

        def get(url: str) -> bytes:
            return self._fetch(url, max(0.0, ends_at - time.monotonic()))

        return self._location.find(get, self._clock())


def _unavailable(wait: float) -> KeysUnavailableError:
    return KeysUnavailableError(
        "The metadata of the authorization server names no such endpoint, or cannot be fetched",
        retry_after=math.ceil(wait),
    )
