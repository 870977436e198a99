"""Refresh grants: once for all callers, loops, processes and machines.

One process claims the row, asks the service with nothing locked, and writes back over the version
that it read; again for a while if the database is away. A service that has just failed is not asked
again for a moment, and calls do not wait for that. If the process dies between the answer and
the write, or the database is away for longer, a service that rotates refresh tokens may have spent
the old one: it refuses the next refresh, and the user is asked to connect again. Nothing else can
lose a grant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import copy
from math import ceil
from uuid import uuid4

from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parts.figures import Figure
from toolguard.tokens.per_loop import PerLoop
from toolguard.vault.grants import Grant, GrantKey
from toolguard.vault.oauth_client import OAuthClient
from toolguard.vault.store import GrantStore, KeptGrant

__all__ = ["Refresher"]

_log = logging.getLogger("toolguard.vault")

# Longer than the service is given to answer, so that no two processes ask it at once.
_CLAIM = 30.0
# Seconds before its expiry from which an access token is refreshed.
_AHEAD = 60.0
# Seconds within which a token that an API refused is not refreshed a second time.
_AGAIN_AFTER = 10.0
# Seconds for which no process asks a service that has just failed.
_PAUSE = 2.0
# How long to wait for another process: 13 s, more than the service is given to answer.
_WAITS = (0.02, 0.05, 0.1, 0.2, 0.4) + (0.5,) * 24
# How long to try to write back: 16 s, so that the claim holds meanwhile.
_WRITE_WAITS = (0.05, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0)


class Refresher:
    """Returns grants whose access token is good.

    Args:
        store: the grants.
        clients: the services, by the name of the connection.
        clock: returns the time, in seconds since the epoch.
        sleep: waits for a number of seconds.
        told: called with the key of each grant that was refreshed.
    """

    def __init__(
        self,
        store: GrantStore,
        clients: Mapping[str, OAuthClient],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        told: Callable[[GrantKey], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._clients = clients
        self._clock = clock
        self._sleep = sleep
        self._told = told
        self._process = uuid4().hex
        self._refreshes: Counter[tuple[str, str]] = Counter()
        self._running: PerLoop[dict[GrantKey, asyncio.Task[Grant | ConnectionTokenError]]] = (
            PerLoop(dict)
        )

    def figures(self) -> Iterator[Figure]:
        """Return how often services were asked for new tokens."""
        for (name, outcome), number in self._refreshes.copy().items():
            about = {"connection": name, "outcome": outcome}
            yield Figure("connections.refreshes", number, about)

    def needs_refresh(self, grant: Grant, *, refused: bool) -> bool:
        """Return whether a grant is to be refreshed before its token is used.

        Args:
            grant: the grant.
            refused: whether an API has just refused a token of this grant.
        """
        if not grant.refresh_token:
            return False
        now = self._clock()
        # One that was issued in the future was issued by a clock that was wrong.
        is_new = 0 <= now - grant.obtained_at < _AGAIN_AFTER
        return not grant.outlives(now + _AHEAD) or (refused and not is_new)

    async def refreshed(self, kept: KeptGrant, *, refused: bool) -> Grant:
        """Return the grant with a fresh token; callers at the same time share one refresh.

        It continues if the call that started it is cancelled.

        Args:
            kept: the grant, as it was read.
            refused: whether an API has just refused its token.

        Raises:
            ConnectionTokenError: if there is no token that can be used.
        """
        running = self._running.get()
        task = running.get(kept.key)
        if task is None:
            task = asyncio.ensure_future(self._outcome(kept, refused=refused))
            running[kept.key] = task
            task.add_done_callback(lambda _: running.pop(kept.key, None))
        await asyncio.wait({task})
        outcome = task.result()
        if isinstance(outcome, Grant):
            return outcome
        # A copy: a traceback belongs to one raise.
        raise copy(outcome)

    async def _outcome(self, kept: KeptGrant, *, refused: bool) -> Grant | ConnectionTokenError:
        try:
            return await self._refresh_or_wait(kept, refused=refused)
        except ConnectionTokenError as error:
            return error

    async def _refresh_or_wait(self, kept: KeptGrant, *, refused: bool) -> Grant:
        for seconds in _WAITS:
            now = self._clock()
            if await self._store.claim(kept, self._process, now, now + _CLAIM):
                return await self._refresh(kept, refused=refused)
            if kept.grant.outlives(now) and not refused:
                return kept.grant
            if kept.pause(now):
                raise _paused(kept, now)
            await self._sleep(seconds)
            current = await self._store.get(kept.key)
            if current is None:
                raise ConnectionRequiredError.not_connected(kept.key.connection)
            if not self.needs_refresh(current.grant, refused=refused):
                return current.grant
            kept = current
        raise ConnectionUnavailableError(
            f"{kept.key.connection} is being refreshed elsewhere: try again",
            connection=kept.key.connection,
        )

    async def _refresh(self, kept: KeptGrant, *, refused: bool) -> Grant:
        name = kept.key.connection
        answer = await self._clients[name].refresh(kept.grant)
        outcome = "success" if isinstance(answer, Grant) else answer.error
        self._refreshes[name, outcome] += 1
        if isinstance(answer, Grant):
            return await self._written(kept, answer)
        if isinstance(answer, ConnectionRequiredError):
            if await self._store.replace(kept, kept.grant.without_tokens()):
                raise answer
            return await self._current(kept)
        wait = answer.retry_after if isinstance(answer, ConnectionRateLimitedError) else None
        free_from = self._clock() + max(_PAUSE, wait or 0.0)
        await self._store.release(kept, self._process, free_from)
        _log.warning("%s was not refreshed: %s", name, answer)
        if kept.grant.outlives(self._clock()) and not refused:
            return kept.grant
        raise answer

    async def _written(self, kept: KeptGrant, fresh: Grant) -> Grant:
        if await self._replaced(kept, fresh):
            self._told(kept.key)
            return fresh
        # The user connected again, disconnected, or was forgotten while the service answered.
        if await self._store.get(kept.key) is None:
            # What was revoked then is what this grant has replaced.
            await self._clients[kept.key.connection].revoke(fresh)
        return await self._current(kept)

    async def _replaced(self, kept: KeptGrant, fresh: Grant) -> bool:
        """Write back, again while the database is away: the old tokens may be spent."""
        for seconds in _WRITE_WAITS:
            try:
                return await self._store.replace(kept, fresh)
            except ConnectionUnavailableError:  # noqa: PERF203 - a retry
                await self._sleep(seconds)
        return await self._store.replace(kept, fresh)

    async def _current(self, kept: KeptGrant) -> Grant:
        """Return the grant that has replaced this one, refreshed if it has expired as well."""
        current = await self._store.get(kept.key)
        if current is None or not current.grant.is_usable:
            raise ConnectionRequiredError.not_connected(kept.key.connection)
        if self.needs_refresh(current.grant, refused=False):
            return await self._refresh_or_wait(current, refused=False)
        return current.grant


def _paused(kept: KeptGrant, now: float) -> ConnectionTokenError:
    """Return the error of a call for which the service is not asked: it has just failed."""
    name, seconds = kept.key.connection, kept.pause(now)
    if seconds > _PAUSE:  # as a rate limit asks for
        return ConnectionRateLimitedError(
            f"{name} is asked for new tokens too often: try again later",
            connection=name,
            retry_after=ceil(seconds),
        )
    return ConnectionUnavailableError(
        f"{name} gave no new token a moment ago: try again", connection=name
    )
