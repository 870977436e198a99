"""Fetch a connection again because a service no longer accepts its token."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from copy import copy

import anyio

from toolguard.connections.protocol import Connection
from toolguard.errors import ToolGuardError
from toolguard.tokens.per_loop import PerLoop

__all__ = ["RENEWAL_PAUSE", "Renewal"]

#: Seconds after a renewal in which the same connection is not renewed again: if the service does
#: not accept the fresh token either, a further one does not help.
RENEWAL_PAUSE = 30.0


class Renewal:
    """The connection of one call, renewed once for one token however often it is rejected.

    Args:
        connection: the connection that was fetched for the call.
        fetch: fetches a fresh one instead of the rejected one it is given.
        check: raises if the call may not fetch any more.
        clock: returns the time in seconds.
    """

    __slots__ = ("_again_at", "_check", "_clock", "_current", "_failure", "_fetch", "_locks")

    def __init__(
        self,
        connection: Connection,
        fetch: Callable[[Connection], Awaitable[Connection]],
        check: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        self._current = connection
        self._fetch = fetch
        self._check = check
        self._clock = clock
        self._again_at = -math.inf
        self._failure: ToolGuardError | None = None
        self._locks: PerLoop[anyio.Lock] | None = None

    @property
    def connection(self) -> Connection:
        """The current connection, with a ``refetch`` that renews it."""
        current = self._current

        async def refetch() -> Connection:
            return await self._instead_of(current)

        return current.with_refetch(refetch)

    async def _instead_of(self, rejected: Connection) -> Connection:
        self._check()
        if self._locks is None:
            self._locks = PerLoop(anyio.Lock)
        async with self._locks.get():
            if rejected.token == self._current.token and self._clock() >= self._again_at:
                await self._renew(rejected)
            failure = self._failure
        if failure is not None:
            # Each request raises its own copy: a traceback grows with every raise.
            raise copy(failure)
        return self.connection

    async def _renew(self, rejected: Connection) -> None:
        try:
            self._current, self._failure = await self._fetch(rejected), None
        except ToolGuardError as failure:
            self._failure = failure.with_traceback(None)
        self._again_at = self._clock() + RENEWAL_PAUSE
