"""Caches in the memory of this process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Generic, TypeVar

from cachetools import TLRUCache

from toolguard.connections.protocol import Connection

__all__ = ["MemoryTokenCache", "TTLCache", "connection_length"]

ValueT = TypeVar("ValueT")


class MemoryTokenCache:
    """Stores connections in this process, for all its threads and event loops.

    Args:
        max_entries: the maximum number of entries; the least recently used is dropped first.
        max_bytes: the maximum length of all entries together. A connection that is longer than
            this is not stored.
        clock: a monotonic clock, in seconds.

    Raises:
        ValueError: if ``max_entries`` or ``max_bytes`` is not positive.
    """

    def __init__(
        self,
        max_entries: int = 10_000,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries: TTLCache[Connection] = TTLCache(
            max_entries, clock, max_bytes=max_bytes, length=connection_length
        )

    @property
    def shared(self) -> bool:
        """False: the cache belongs to this process."""
        return False

    async def get(self, key: str) -> Connection | None:
        """Return the connection stored under ``key``; None if there is none."""
        return self._entries.get(key)

    async def put(self, key: str, connection: Connection, ttl: float) -> None:
        """Store ``connection`` for ``ttl`` seconds."""
        self._entries.put(key, connection, ttl)

    async def drop(self, key: str) -> None:
        """Delete the entry under ``key``."""
        self._entries.drop(key)

    async def claim(self, key: str) -> Connection | None:  # noqa: ARG002 - of the protocol
        """Return None: no other process fetches."""
        return None

    def __repr__(self) -> str:
        return f"<MemoryTokenCache: at most {self._entries.max_entries} connections>"


def connection_length(connection: Connection) -> int:
    """Return the length of the text in a connection, to limit how much is kept."""
    return len(connection.token) + sum(map(len, connection.scopes))


class TTLCache(Generic[ValueT]):
    """A bounded cache of values, each with its own time to live; thread-safe.

    Each process has its own: another thread may hold the lock while a process forks.

    Args:
        max_entries: the maximum number of entries; the least recently used is dropped first.
        clock: a monotonic clock, in seconds.
        max_bytes: the maximum length of all values together; a longer value is not stored.
        length: returns the length of a value.

    Raises:
        ValueError: if ``max_entries`` or ``max_bytes`` is not positive.
    """

    def __init__(
        self,
        max_entries: int,
        clock: Callable[[], float],
        *,
        max_bytes: float = math.inf,
        length: Callable[[ValueT], int] = lambda _: 0,
    ) -> None:
        if max_entries < 1:
            raise ValueError("write max_entries=10_000: how many connections are kept at most")
        if max_bytes < 1:
            raise ValueError("write max_bytes=64 * 1024 * 1024: how much is kept at most")
        self.max_entries = max_entries
        self._max_bytes = max_bytes
        self._length = length
        self._clock = clock
        self._by_process: dict[int, tuple[Lock, TLRUCache[str, tuple[ValueT, float]]]] = {}

    def get(self, key: str) -> ValueT | None:
        """Return the value; None if there is none, or it has expired."""
        lock, values = self._here()
        with lock:
            try:
                return values[key][0]
            except KeyError:
                return None

    def put(self, key: str, value: ValueT, ttl: float) -> None:
        """Store ``value`` for ``ttl`` seconds."""
        lock, values = self._here()
        with lock:
            try:
                values[key] = (value, ttl)
            except ValueError:  # longer than everything that may be kept
                values.pop(key, None)

    def drop(self, key: str) -> None:
        """Delete the value, if there is one."""
        lock, values = self._here()
        # An expired entry is deleted and raises KeyError nevertheless.
        with lock, suppress(KeyError):
            del values[key]

    def _here(self) -> tuple[Lock, TLRUCache[str, tuple[ValueT, float]]]:
        process = os.getpid()
        if process not in self._by_process:
            values: TLRUCache[str, tuple[ValueT, float]] = TLRUCache(
                self.max_entries,
                ttu=lambda _, value, now: now + value[1],
                timer=self._clock,
                getsizeof=self._share,
            )
            # Atomic: all threads get the same.
            self._by_process.setdefault(process, (Lock(), values))
        return self._by_process[process]

    def _share(self, value: tuple[ValueT, float]) -> float:
        """Return how many of ``max_entries`` a value takes: 1, or more if it is longer."""
        return max(1.0, self._length(value[0]) * self.max_entries / self._max_bytes)
