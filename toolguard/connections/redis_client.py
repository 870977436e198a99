"""A client of a Redis: bounded in time and connections, bypassed for a while when it is down."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

from toolguard.parts.extras import explained
from toolguard.tokens.per_loop import PerLoop

with explained():
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["RedisClient"]

_log = logging.getLogger("toolguard.connections")

_MAX_CONNECTIONS = 20
# Seconds for which an unavailable Redis is bypassed, and between two log lines about it.
_PAUSE = 1.0
_QUIET = 30.0
_TIMEOUTS = (asyncio.TimeoutError, TimeoutError, RedisTimeoutError)


class RedisClient:
    """Sends commands to a Redis, from any event loop; an outage is no exception.

    Args:
        url: the URL of Redis: ``"rediss://user:password@host:6379/0"``; ``redis://`` without
            TLS, ``unix://`` for a socket.
        example: the call with a proper URL, for the error message.
        without: what the callers do while Redis is unavailable, for the log.
        timeout: seconds for one exchange with Redis.
        clock: a monotonic clock, in seconds.

    Raises:
        ValueError: if ``url`` is not a Redis URL, or ``timeout`` is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        example: str,
        without: str,
        timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise ValueError("write timeout=0.25: seconds for one exchange, more than 0")
        self._url = url
        self._without = without
        self._timeout = timeout
        self._clock = clock
        self._resume_at = self._log_at = -math.inf
        self._exchanges = 0
        self._room = PerLoop(lambda: asyncio.Semaphore(_MAX_CONNECTIONS))
        self._clients = PerLoop(lambda: Redis.from_pool(self._new_pool()))
        _check_url(self._new_pool, example)

    async def ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Send commands and return the answers; no answers if Redis is unavailable."""
        # The queue for a connection is of this process's making, and not in the time of Redis.
        async with self._room.get():
            if self._clock() < self._resume_at:
                return []
            began = self._exchanges
            try:
                # A limit for the whole exchange: the client's limit restarts with every step.
                answers = await asyncio.wait_for(self._exchange(commands), self._timeout)
            # ValueError: for some answers of servers that are not Redis, and some host names.
            except (RedisError, OSError, ValueError, asyncio.TimeoutError) as fault:
                # Redis has answered others meanwhile: this process is what is slow.
                if not (isinstance(fault, _TIMEOUTS) and self._exchanges > began):
                    self._resume_at = self._clock() + _PAUSE
                    self._log_outage(fault)
                return []
            self._exchanges += 1
        for answer in answers:
            if isinstance(answer, RedisError):
                self._log_outage(answer)
        return answers

    async def _exchange(self, commands: tuple[tuple[Any, ...], ...]) -> list[Any]:
        async with self._clients.get().pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return await pipeline.execute(raise_on_error=False)

    def _log_outage(self, fault: Exception) -> None:
        now = self._clock()
        if now >= self._log_at:
            self._log_at = now + _QUIET
            # Only its kind: the text of one may quote what was sent.
            _log.warning("Redis is unavailable (%s): %s", type(fault).__name__, self._without)

    def _new_pool(self) -> BlockingConnectionPool:
        return BlockingConnectionPool.from_url(
            self._url,
            max_connections=_MAX_CONNECTIONS,
            timeout=self._timeout,
            socket_timeout=self._timeout,
            socket_connect_timeout=self._timeout,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later use opens new ones."""
        client = self._clients.pop()
        if client is not None:
            await client.aclose()


def _check_url(new_pool: Callable[[], BlockingConnectionPool], example: str) -> None:
    try:
        pool = new_pool()
        # Opens no TCP connection, and raises for unknown options.
        pool.connection_class(**pool.connection_kwargs)
    except (ValueError, TypeError):
        usable = False
    else:
        usable = True
    # Raised here, where no exception is being handled: one about a URL may quote its password.
    if not usable:
        raise ValueError(
            f"write {example}, with what is not a letter or a digit in the password percent-encoded"
        )
