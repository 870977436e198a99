"""Keep the credential of one server's connection: one fetch for each expiry, ahead of it."""

from __future__ import annotations

import logging
import math
from contextvars import Context
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from toolguard.connections.faults import read_fault
from toolguard.connections.protocol import Connection
from toolguard.connections.server.source import ServerSource, SourceRequest
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parts.contained import contained
from toolguard.tokens.per_loop import PerLoop, running_loop

if TYPE_CHECKING:
    import asyncio

__all__ = ["ServerTokens"]

_log = logging.getLogger("toolguard")

# Seconds for which a credential without an expiry is kept.
_KEPT_FOR = 300.0
# Seconds after which such a one is no longer served if it cannot be fetched again.
_STALE_FOR = 3_600.0
# Seconds ahead of the expiry; of a short-lived one, this part of its lifetime.
_AHEAD, _PART = 60.0, 0.25
# Seconds within which a credential that an API refused is not replaced a second time.
_AGAIN_AFTER = 10.0
# Seconds for which nothing is asked after a failure.
_PAUSE = 2.0
# What a function of a user's raises to withdraw a key; another failure leaves a good one in use.
_WITHDRAWN = (ConnectionDeniedError, ConnectionRequiredError)


@dataclass(frozen=True)
class _Kept:
    """A credential, and when it is to be replaced.

    Attributes:
        connection: the credential.
        issued_at: when it was issued.
        refresh_at: from when it is replaced while callers still get it.
        wait_at: from when callers wait for the next one.
        good_until: until when it is served although there is no next one.
    """

    connection: Connection
    issued_at: float
    refresh_at: float
    wait_at: float
    good_until: float


@dataclass(frozen=True)
class _Failed:
    error: ConnectionTokenError
    at: float
    until: float

    def holds(self, now: float) -> bool:
        """Return whether the service is not to be asked; a clock that was set back ends that."""
        return self.at <= now < self.until


class ServerTokens:
    """The credential of one connection that belongs to the server, for all callers.

    Args:
        source: issues it.
    """

    def __init__(self, source: ServerSource) -> None:
        self._source = source
        # By scopes, which come from the declarations of tools.
        self._kept: dict[frozenset[str], _Kept] = {}
        self._failed: dict[frozenset[str], _Failed] = {}
        self._running: PerLoop[dict[frozenset[str], asyncio.Task[None]]] = PerLoop(dict)

    async def get(self, request: SourceRequest, *, fresh: bool) -> Connection:
        """Return the credential; callers at the same time share one fetch.

        A fetch continues if the call that started it is cancelled.

        Args:
            request: what is asked for.
            fresh: whether an API has just refused the kept one.

        Raises:
            ConnectionTokenError: if there is none that can be used.
        """
        key = frozenset(request.scopes)
        kept, now = self._kept.get(key), request.clock()
        if kept is not None and fresh and 0 <= now - kept.issued_at < _AGAIN_AFTER:
            fresh = False
        if kept is not None and not fresh and now < kept.refresh_at:
            return kept.connection
        failed = self._failed.get(key)
        if failed is None or not failed.holds(now):
            task = self._join(key, request)
            if kept is not None and not fresh and now < kept.wait_at:
                return kept.connection
            import asyncio  # noqa: PLC0415 - takes long to import

            # Unlike awaiting the task, this does not cancel it with the call that waits.
            await asyncio.wait({task})
        return self._outcome(key, request, kept if fresh else None)

    def _outcome(
        self, key: frozenset[str], request: SourceRequest, refused: _Kept | None
    ) -> Connection:
        kept, failed, now = self._kept.get(key), self._failed.get(key), request.clock()
        withdrawn = failed is not None and isinstance(failed.error, _WITHDRAWN)
        if kept is not None and kept is not refused and now < kept.good_until and not withdrawn:
            return kept.connection
        if failed is None:
            raise ConnectionUnavailableError(
                f"The request for {request.connection} was broken off: try again",
                connection=request.connection,
            )
        # A copy: a traceback belongs to one raise.
        error = copy(failed.error)
        if isinstance(error, ConnectionRateLimitedError) and error.retry_after is not None:
            error.retry_after = max(1, math.ceil(failed.until - now))
        del kept, refused
        raise error

    def _join(self, key: frozenset[str], request: SourceRequest) -> asyncio.Task[None]:
        running = self._running.get()
        task = running.get(key)
        if task is None:
            # In a context of its own: the credential depends on nothing of the call that starts it.
            task = Context().run(running_loop().create_task, self._replace(key, request))
            running[key] = task
            task.add_done_callback(partial(_forget, running, key))
        return task

    async def _replace(self, key: frozenset[str], request: SourceRequest) -> None:
        try:
            with contained():
                issued = await self._source.issue(request)
        except ConnectionTokenError as error:
            issued = error.with_traceback(None)
        except Exception as error:  # noqa: BLE001 - of another's code: its text may hold a key
            issued = read_fault(error, request.connection)
        now = request.clock()
        if isinstance(issued, Connection) and issued.is_expired(now):
            issued = ConnectionResponseError(
                f"The new token of {request.connection} has expired already: check this machine's "
                "clock",
                connection=request.connection,
            )
        if isinstance(issued, Connection):
            self._failed.pop(key, None)
            self._kept[key] = _kept(issued, now)
            return
        _log.warning("%s, a connection of the server: %s", request.connection, issued)
        wait = issued.retry_after if isinstance(issued, ConnectionRateLimitedError) else None
        self._failed[key] = _Failed(issued, now, now + max(_PAUSE, wait or 0.0))


def _kept(connection: Connection, now: float) -> _Kept:
    expires_at = connection.expires_at
    if expires_at is None:
        return _Kept(connection, now, now + _KEPT_FOR, now + _KEPT_FOR, now + _STALE_FOR)
    ahead = min(_AHEAD, (expires_at - now) * _PART)
    # Within the second half of that time callers wait: what they get has to last for their call.
    return _Kept(connection, now, expires_at - ahead, expires_at - ahead / 2, expires_at)


def _forget(
    running: dict[frozenset[str], asyncio.Task[None]], key: frozenset[str], task: asyncio.Task[None]
) -> None:
    running.pop(key, None)
    if not task.cancelled():
        # Retrieved, or asyncio logs it with its traceback if all waiting calls are gone.
        task.exception()
