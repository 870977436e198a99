"""Cache connections by caller and grant.

:class:`CachedConnections` wraps a provider. An entry belongs to one caller with one grant: its key
covers everything that the provider's answer can depend on, including the caller's access token.
So neither another user nor the same user with other rights is served from it.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from copy import copy
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import anyio

from toolguard.connections.breaker import Breaker
from toolguard.connections.failures import RecentFailures
from toolguard.connections.faults import read_fault
from toolguard.connections.functions import as_provider
from toolguard.connections.in_flight import InFlight, RequestsInFlight, caller_of
from toolguard.connections.lanes import Lanes
from toolguard.connections.memory import MemoryTokenCache, TTLCache, connection_length
from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
    is_of_server,
    names_of,
)
from toolguard.connections.renewal import RENEWAL_PAUSE
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    ToolGuardError,
)
from toolguard.parsing.kinds import of_kind
from toolguard.parts.contained import contained
from toolguard.parts.figures import Figure, figures_of
from toolguard.parts.lifecycle import close, warm_up

if TYPE_CHECKING:
    import asyncio

__all__ = ["CachedConnections", "MemoryTokenCache", "TokenCache", "build_provider"]

_log = logging.getLogger("toolguard.connections")

# Further ones wait: a caller whose requests hang leaves the provider to the others.
_REQUESTS_OF_ONE_CALLER = 10
# The oldest goes for a further one: a caller with many tokens evicts nobody else's connections.
_ENTRIES_OF_ONE_CALLER = 100
_RENEWED_BYTES = 16 * 1024 * 1024


class TokenCache(Protocol):
    """Stores connections under opaque keys.

    It may lose an entry at any time, and an outage is a miss: no method raises because of one.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes read from it and write to it."""
        ...

    async def get(self, key: str) -> Connection | None:
        """Return the connection stored under ``key``; None if there is none."""
        ...

    async def put(self, key: str, connection: Connection, ttl: float) -> None:
        """Store ``connection`` for ``ttl`` seconds, more than 0, and end the claim on ``key``."""
        ...

    async def drop(self, key: str) -> None:
        """Delete the entry under ``key``, and end the claim on it."""
        ...

    async def claim(self, key: str) -> Connection | None:
        """Claim the fetch for ``key`` after a miss; None lets the calling code fetch.

        The calling code then calls :meth:`put` or :meth:`drop`. If another process holds the
        claim, wait briefly for its connection and return that.
        """
        ...


class CachedConnections:
    """A provider that caches the connections of another one.

    Concurrent calls for one entry make one request, which continues if the call that started it is
    cancelled; their number is limited. A failure that comes twice in a row is remembered for a
    second, "not connected" for ``not_connected_for``, and a rate limit for as long as it says.
    While the provider does not answer several callers, one request is tried from time to time and
    the others fail at once. A request with ``fresh`` is passed on, and its connection replaces the
    entry. Connections of a caller that is not a user (a client) are cached only if they belong to
    a tenant.

    Args:
        provider: the provider to cache, or an async function. To share entries between processes,
            it states in ``cache_namespace: str`` what its answers depend on beside the request,
            such as its URL and account; this must not contain a secret.
        cache: stores the connections; by default a new :class:`MemoryTokenCache`.
        namespace: replaces the provider's ``cache_namespace``.
        max_age: the maximum age of an entry in seconds; policies may change at any time. 0
            disables the cache.
        skew: seconds before its expiry from which a connection is no longer served.
        not_connected_for: seconds for which "not connected" is remembered, in this process. A
            user who connects within that time is asked to connect once more. 0 disables this.
        not_connected_after: the number of times in a row, each within ``not_connected_for``, that
            the provider says so before it is remembered. A guard without a cache of its own has
            2: a user who connects at once and tries again is served.
        local_age: seconds for which this process serves an entry of a shared cache from its own
            memory, at most half of ``max_age``, which it counts towards. What another process
            replaces is served for so long. 0 asks the shared cache for every call.
        timeout: seconds for one request to the provider.
        clock: returns the time, in seconds since the epoch.
        timer: a monotonic clock, in seconds.

    Raises:
        ValueError: if a number is out of range, or the cache is shared and the provider has no
            namespace.
        TypeError: if ``provider`` is not a connection provider.

    >>> from toolguard.connections import StaticConnections
    >>> CachedConnections(StaticConnections({"google-calendar": "a-token"}))
    <CachedConnections: StaticConnections, 60 s in <MemoryTokenCache: at most 10000 connections>>
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        provider: ConnectionProvider | ConnectionFunction,
        *,
        cache: TokenCache | None = None,
        namespace: str | None = None,
        max_age: float = 60.0,
        skew: float = 30.0,
        not_connected_for: float = 2.0,
        not_connected_after: int = 1,
        local_age: float = 5.0,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        provider = as_provider(provider)
        durations = (max_age, skew, not_connected_for, local_age)
        for seconds in (*durations, timeout):
            of_kind(
                "max_age, skew, timeout, ..._for or local_age", seconds, (int, float), "seconds"
            )
        if not all(0 <= seconds < math.inf for seconds in durations):
            raise ValueError("max_age, skew, ..._for and local_age are seconds, 0 or more")
        if not 0 < timeout < math.inf:
            raise ValueError("write timeout=30.0: seconds for one request, more than 0")
        if not_connected_after < 1:
            raise ValueError("write not_connected_after=1: after how many refusals, 1 or more")
        self._provider = provider
        own = MemoryTokenCache(clock=timer)
        self._cache: TokenCache = own if cache is None else cache
        # What is in front of a shared cache: it is not asked for every call, and may be away.
        self._front: TokenCache = own if self._cache.shared else self._cache
        self._front_age = min(local_age, max_age / 2)
        self._namespace = _namespace(provider, namespace, shared=self._cache.shared)
        self._max_age = max_age
        self._skew = skew
        self._timeout = timeout
        self._clock = clock
        self._failures = RecentFailures(
            not_connected_for=not_connected_for,
            not_connected_after=not_connected_after,
            timer=timer,
        )
        self._breakers = defaultdict[str, Breaker](partial(Breaker, timer))
        self._keys: TTLCache[tuple[str, ...]] = TTLCache(10_000, timer)
        self._renewals: TTLCache[Connection] = TTLCache(
            10_000, timer, max_bytes=_RENEWED_BYTES, length=connection_length
        )
        self._in_flight = RequestsInFlight()
        self._lanes = Lanes(_REQUESTS_OF_ONE_CALLER)
        self._fetches: Counter[tuple[str, str]] = Counter()
        self._hits: Counter[str] = Counter()

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection, from the cache or from the provider.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionTokenError: as raised by the provider.
            ConnectionUnavailableError: if the provider does not answer within ``timeout``.
        """
        key = _key(self._namespace, request)
        if key is None or self._max_age == 0:
            return await self._counted(request)
        if not request.fresh:
            cached = self._usable(await self._front.get(key))
            if cached is not None:
                self._hits[request.name] += 1
                return cached
            self._failures.check(key)
        elif request.rejected is not None:
            renewed = await self._renewed(key, request.rejected)
            if renewed is not None:
                return renewed
            self._failures.check(_renewal(key))
        task = self._in_flight.join(key, request, partial(self._fetch_and_store, key, request))
        import asyncio  # noqa: PLC0415 - takes long to import

        # Unlike awaiting the task, this does not cancel it with the call that waits.
        await asyncio.wait({task})
        return _result(task, request.name)

    @property
    def provider(self) -> ConnectionProvider:
        """The provider whose connections are cached."""
        return self._provider

    @property
    def connection_names(self) -> frozenset[str] | None:
        """The names of all connections; None if the provider may have any."""
        return names_of(self._provider)

    def is_of_server(self, name: str) -> bool:
        """Return whether this connection belongs to the server.

        Args:
            name: the name of the connection.
        """
        return is_of_server(self._provider, name)

    async def warm_up(self) -> None:
        """Warm up the provider, if it has something to warm up; raises what it raises."""
        await warm_up(self._provider)

    def figures(self) -> Iterator[Figure]:
        """Return how often the provider was asked, and the cache had a connection."""
        for (name, outcome), number in self._fetches.copy().items():
            about = {"connection": name, "outcome": outcome}
            yield Figure("connections.fetches", number, about)
        for name, number in self._hits.copy().items():
            yield Figure("connections.cache.hits", number, {"connection": name})
        yield from figures_of(self._provider)

    async def aclose(self) -> None:
        """Close the TCP connections of the provider and of the cache in the running event loop."""
        async with AsyncExitStack() as closing:
            # All of them, whatever one of them raises.
            for each in (self._cache, self._provider):
                closing.push_async_callback(close, each)

    async def _fetch_and_store(
        self, key: str, request: ConnectionRequest, current: InFlight
    ) -> Connection:
        if not request.fresh:
            cached = await self._read_cache(key)
            if cached is not None:
                self._hits[request.name] += 1
                return cached
        is_known = False
        try:
            connection = await self._ask_provider(request)
            is_known = True
        except ConnectionTokenError as error:
            is_known = True
            if self._in_flight.is_latest(key, current):
                await self._record_failure(key, error, request)
            raise
        finally:
            if not is_known and not request.fresh:
                # Whatever the provider raised: other processes must not wait for this one.
                await self._cache.drop(key)
        if request.fresh:
            self._renewals.put(key, connection, RENEWAL_PAUSE)
        if self._in_flight.is_latest(key, current):
            await self._write(key, request, connection)
        return connection

    async def _renewed(self, key: str, rejected: Connection) -> Connection | None:
        """Return what another call has fetched instead of ``rejected``, or has fetched just now."""
        for cache in dict.fromkeys((self._front, self._cache)):
            kept = self._usable(await cache.get(key))
            if kept is not None and kept.token != rejected.token:
                return kept
        renewed = self._renewals.get(key)
        return None if renewed is None or renewed.is_expired(self._clock()) else renewed

    async def _ask_provider(self, request: ConnectionRequest) -> Connection:
        caller, breaker = caller_of(request), self._breakers[request.name]
        is_asked = False
        if not breaker.wait:
            with anyio.move_on_after(self._timeout):
                async with self._lanes.enter(caller):
                    is_asked = breaker.admit()
                    if is_asked:
                        return await self._answer(request, breaker)
        if is_asked:
            self._record_outage(request, breaker)
            raise ConnectionUnavailableError(
                f"The provider did not answer in {self._timeout:g} s: try again",
                connection=request.name,
            )
        raise ConnectionUnavailableError(
            f"The provider of {request.name} does not answer: try again later",
            connection=request.name,
        )

    async def _counted(self, request: ConnectionRequest) -> Connection:
        outcome = "error"  # the call is cancelled
        try:
            with contained():
                connection = await self._provider.fetch(request)
        except ToolGuardError as error:
            outcome = error.error
            raise
        except Exception as error:  # noqa: BLE001 - fail closed: its text may hold a token
            fault = read_fault(error, request.name)
            outcome = fault.error
        else:
            outcome = "success"
            return connection
        finally:
            self._fetches[request.name, outcome] += 1
        # Raised here, where no exception is being handled. It is remembered like other failures.
        raise fault

    async def _answer(self, request: ConnectionRequest, breaker: Breaker) -> Connection:
        try:
            connection = await self._counted(request)
        except ConnectionTokenError as error:
            if isinstance(error, ConnectionUnavailableError):
                self._record_outage(request, breaker)
            else:
                breaker.answered()
            raise
        breaker.answered()
        # The `refetch` function acts for one call only, so it is not cached.
        return connection.with_refetch(None)

    def _record_outage(self, request: ConnectionRequest, breaker: Breaker) -> None:
        if breaker.failed(caller_of(request)):
            _log.warning(
                "connection %s: its provider had no answer for several callers; from now on one "
                "request is tried from time to time",
                request.name,
            )

    async def _read_cache(self, key: str) -> Connection | None:
        """Return what is in the cache, or what another process brings; None after a claim."""
        found = self._usable(await self._cache.get(key))
        found = found or self._usable(await self._cache.claim(key))
        if found is not None and self._cache.shared and self._front_age:
            await self._front.put(key, found, min(self._ttl(found), self._front_age))
        return found

    def _usable(self, connection: Connection | None) -> Connection | None:
        # Checked again: the cache has a clock of its own.
        return connection if connection is not None and self._ttl(connection) > 0 else None

    async def _write(self, key: str, request: ConnectionRequest, connection: Connection) -> None:
        self._failures.forget(key, _renewal(key))
        ttl = self._ttl(connection)
        if ttl <= 0:
            await self._drop(key)
            return
        if self._cache.shared:
            # In the memory of another process it may grow older by that much.
            await self._cache.put(key, connection, min(ttl, self._max_age - self._front_age))
            ttl = min(ttl, self._front_age)
        if ttl > 0:
            await self._front.put(key, connection, ttl)
        for oldest in self._beyond_room(key, request):
            await self._front.drop(oldest)

    async def _drop(self, key: str) -> None:
        for cache in dict.fromkeys((self._front, self._cache)):
            await cache.drop(key)

    def _beyond_room(self, key: str, request: ConnectionRequest) -> tuple[str, ...]:
        """Return the keys of the caller that make room for ``key``, which was just written."""
        caller = repr(caller_of(request))
        keys = (*(each for each in self._keys.get(caller) or () if each != key), key)
        self._keys.put(caller, keys[-_ENTRIES_OF_ONE_CALLER:], self._max_age)
        return keys[:-_ENTRIES_OF_ONE_CALLER]

    async def _record_failure(
        self, key: str, error: ConnectionTokenError, request: ConnectionRequest
    ) -> None:
        refused = isinstance(error, (ConnectionRequiredError, ConnectionDeniedError))
        # An outage of the provider does not invalidate the entry.
        if refused or not request.fresh:
            await self._drop(key)
        if not request.fresh:
            self._failures.record(key, error)
        elif request.rejected is not None:
            self._failures.record(_renewal(key), error)

    def _ttl(self, connection: Connection) -> float:
        if connection.expires_at is None:
            return self._max_age
        return min(connection.expires_at - self._skew - self._clock(), self._max_age)

    def __repr__(self) -> str:
        return (
            f"<CachedConnections: {type(self._provider).__name__}, {self._max_age:g} s "
            f"in {self._cache!r}>"
        )


def build_provider(
    connections: ConnectionProvider | ConnectionFunction | None,
    clock: Callable[[], float],
) -> ConnectionProvider | None:
    """Return the provider of a guard: the given provider or function, with a cache.

    Raises:
        TypeError: if ``connections`` is neither a provider nor a function.
    """
    if connections is None or isinstance(connections, CachedConnections):
        return connections
    # A user who connects and tries again is served at once; who only tries again is not asked for.
    return CachedConnections(connections, not_connected_after=2, clock=clock)


def _namespace(provider: ConnectionProvider, given: str | None, *, shared: bool) -> str:
    namespace = getattr(provider, "cache_namespace", None) if given is None else given
    if namespace is None and not shared:
        # A random value, not the object's id: ids are reused.
        return f"{type(provider).__qualname__} {uuid4()}"
    if not isinstance(namespace, str) or not namespace:
        raise ValueError(
            "entries of this cache need a name for the provider that is the same in every process "
            'and differs from any other provider: write namespace="vault of project-1", or let '
            "the provider have such a cache_namespace"
        )
    return namespace


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _key(namespace: str, request: ConnectionRequest) -> str | None:
    """Return the key of the entry for ``request``; None if it must not be cached.

    Two requests have the same key if and only if they are equal in all values listed here. The
    token covers what a provider may read in it beyond the facts of the principal (a custom
    claim); the facts cover what introspection may report anew for the same token.
    """
    caller = request.principal
    if not caller.user_id and not request.tenant_id:
        return None
    grant = [caller.scopes, caller.permissions, caller.roles, caller.tenant_ids]
    asked = [request.name, request.tenant_id, _as_set(request.scopes)]
    actors = [[actor.issuer, actor.subject] for actor in caller.actors]
    owner = [*caller.owner_key]
    parts = [namespace, owner, *map(_as_set, grant), *asked, actors, request.access_token]
    # JSON, so that values cannot run together; not in ASCII, which writes a character beyond
    # U+FFFF and its two surrogates alike.
    return sha256(_encode(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _renewal(key: str) -> str:
    return f"{key} renewal"


def _as_set(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


def _result(task: asyncio.Task[Connection], name: str) -> Connection:
    if task.cancelled():
        raise ConnectionUnavailableError("The request was broken off: try again", connection=name)
    error = task.exception()
    if error is None:
        return task.result()
    # Each call raises its own copy: a traceback grows with every raise.
    raise copy(error) if isinstance(error, ToolGuardError) else error
