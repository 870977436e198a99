"""Which connections are at hand already, and for whom exactly?

:class:`CachedConnections` goes around a provider. An entry belongs to one caller with one grant:
its key covers everything that the provider's answer can depend on, the caller's own token
included. So neither another user nor the same user with other rights is served from it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Coroutine, Iterable
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import anyio

from toolguard.connections.memory import MemoryTokenCache, Shelf
from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    ToolGuardError,
)

if TYPE_CHECKING:
    import asyncio

__all__ = ["CachedConnections", "MemoryTokenCache", "TokenCache", "provider_for"]


class TokenCache(Protocol):
    """Keeps connections under keys that mean nothing to it.

    It may lose an entry at any time, and an outage of it is a miss: none of these raises for one.
    """

    @property
    def shared(self) -> bool:
        """Whether other processes read it and write to it."""
        ...

    async def get(self, key: str) -> Connection | None:
        """Return what is kept under ``key``."""
        ...

    async def put(self, key: str, connection: Connection, ttl: float) -> None:
        """Keep ``connection`` for ``ttl`` seconds, more than 0, and end the claim on ``key``."""
        ...

    async def drop(self, key: str) -> None:
        """Forget what is kept under ``key``, and end the claim on it."""
        ...

    async def claim(self, key: str) -> Connection | None:
        """Return None to have the caller fetch, after which it calls :meth:`put` or :meth:`drop`.

        Called after a miss. Where another process fetches already, wait a short while for what
        it brings and return that.
        """
        ...


class CachedConnections:
    """A provider that asks another one only for what it does not have at hand.

    Concurrent calls for one entry make one request, which goes on if the call that began it is
    cancelled. Failures are not kept, except for a moment that the user has not connected; a
    request that is ``fresh`` is always passed on, and what it brings takes the entry's place.
    A caller who is no user is kept for only where the connection is that of a tenant.

    Args:
        provider: the provider to ask. One that may share entries between processes says in
            ``cache_namespace: str`` what its answers depend on beside the request, such as its
            address and account; it holds no secret.
        cache: what keeps the connections; a :class:`MemoryTokenCache` of its own by default.
        namespace: instead of the provider's ``cache_namespace``.
        max_age: for how many seconds at most; policies may change at any time. 0 for not at all.
        skew: how many seconds before it expires a connection is no longer served.
        not_connected_for: for how many seconds "not connected" is remembered, in this process.
            As long as that, a user who connects meanwhile is told so again. 0 for not at all.
        timeout: seconds for one request to the provider.
        clock: gives seconds since the epoch.
        timer: gives seconds that only grow.

    Raises:
        ValueError: if a number is out of range, or the cache is shared and the provider has no
            namespace.
        TypeError: if ``provider`` is none.

    >>> from toolguard.connections import StaticConnections
    >>> CachedConnections(StaticConnections({"google-calendar": "a-token"}))
    <CachedConnections: StaticConnections, 60 s in <MemoryTokenCache: at most 10000 connections>>
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        provider: ConnectionProvider,
        *,
        cache: TokenCache | None = None,
        namespace: str | None = None,
        max_age: float = 60.0,
        skew: float = 30.0,
        not_connected_for: float = 2.0,
        timeout: float = 30.0,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not isinstance(provider, ConnectionProvider):
            raise TypeError("write CachedConnections(provider): an object with an async fetch()")
        if not all(0 <= seconds < math.inf for seconds in (max_age, skew, not_connected_for)):
            raise ValueError("max_age, skew and not_connected_for are seconds, 0 or more")
        if not 0 < timeout < math.inf:
            raise ValueError("write timeout=30.0: seconds for one request, more than 0")
        self._provider = provider
        self._cache: TokenCache = MemoryTokenCache(clock=timer) if cache is None else cache
        self._namespace = _namespace(provider, namespace, shared=self._cache.shared)
        self._max_age = max_age
        self._skew = skew
        self._not_connected_for = not_connected_for
        self._timeout = timeout
        self._clock = clock
        self._not_connected: Shelf[ConnectionRequiredError] = Shelf(10_000, timer)
        self._flights = _Flights()

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection, kept or fetched.

        Raises:
            ConnectionTokenError: what the provider raises.
            ConnectionUnavailableError: if it does not answer within ``timeout``.
        """
        key = _key(self._namespace, request)
        if key is None or self._max_age == 0:
            return await self._provider.fetch(request)
        if not request.fresh:
            kept = None if self._cache.shared else await self._kept(key)
            if kept is not None:
                return kept
            refusal = self._not_connected.get(key)
            if refusal is not None:
                raise copy(refusal)
        task = self._flights.join(key, partial(self._obtain, key, request), fresh=request.fresh)
        # Unlike awaiting the task, this does not cancel it with the call that waits.
        await _ended(task)
        return _result(task, request.name)

    @property
    def provider(self) -> ConnectionProvider:
        """The provider behind it."""
        return self._provider

    async def aclose(self) -> None:
        """Close what the provider keeps open in the running event loop."""
        aclose = getattr(self._provider, "aclose", None)
        if aclose is not None:
            await aclose()

    async def _obtain(self, key: str, request: ConnectionRequest, flight: _Flight) -> Connection:
        if not request.fresh:
            kept = await self._kept(key) or await self._kept(key, claim=True)
            if kept is not None:
                return kept
        try:
            connection = await self._ask(request)
        except ConnectionTokenError as error:
            if self._flights.is_latest(key, flight):
                await self._note(key, error, fresh=request.fresh)
            raise
        if self._flights.is_latest(key, flight):
            await self._keep(key, connection)
        return connection

    async def _ask(self, request: ConnectionRequest) -> Connection:
        with anyio.move_on_after(self._timeout):
            # What fetches anew acts for one call and belongs to it.
            return (await self._provider.fetch(request)).with_refetch(None)
        raise ConnectionUnavailableError(
            f"The provider did not answer in {self._timeout:g} s: try again",
            connection=request.name,
        )

    async def _kept(self, key: str, *, claim: bool = False) -> Connection | None:
        connection = await (self._cache.claim(key) if claim else self._cache.get(key))
        # Again: the cache counts seconds by a clock of its own.
        return connection if connection is not None and self._ttl(connection) > 0 else None

    async def _keep(self, key: str, connection: Connection) -> None:
        self._not_connected.drop(key)
        ttl = self._ttl(connection)
        if ttl > 0:
            await self._cache.put(key, connection, ttl)
        else:
            await self._cache.drop(key)

    async def _note(self, key: str, error: ConnectionTokenError, *, fresh: bool) -> None:
        refused = isinstance(error, (ConnectionRequiredError, ConnectionDeniedError))
        # That a provider is out of order says nothing against what it gave earlier.
        if refused or not fresh:
            await self._cache.drop(key)
        if isinstance(error, ConnectionRequiredError) and not fresh:
            self._not_connected.put(key, copy(error), self._not_connected_for)

    def _ttl(self, connection: Connection) -> float:
        if connection.expires_at is None:
            return self._max_age
        return min(connection.expires_at - self._skew - self._clock(), self._max_age)

    def __repr__(self) -> str:
        return (
            f"<CachedConnections: {type(self._provider).__name__}, {self._max_age:g} s "
            f"in {self._cache!r}>"
        )


@dataclass(frozen=True)
class _FunctionProvider:
    """Lets a plain async function stand in for a provider."""

    function: ConnectionFunction

    async def fetch(self, request: ConnectionRequest) -> Connection:
        return await self.function(request)


def provider_for(
    connections: ConnectionProvider | ConnectionFunction | None,
    max_age: float,
    clock: Callable[[], float],
) -> ConnectionProvider | None:
    """Return what a guard fetches from: the provider or function it was given, with a cache.

    Raises:
        ValueError: if ``max_age`` is no number of seconds.
        TypeError: if ``connections`` is neither.
    """
    if not 0 <= max_age < math.inf:
        raise ValueError("connection_max_age is a number of seconds, 0 or more")
    if connections is None or isinstance(connections, CachedConnections):
        return connections
    if not isinstance(connections, ConnectionProvider):
        if not callable(connections):
            raise TypeError(
                "connections= takes a provider with an async fetch(), or such a function"
            )
        connections = _FunctionProvider(connections)
    # "Not connected" is not remembered: a user who connects and tries again is served at once.
    return CachedConnections(connections, max_age=max_age, not_connected_for=0, clock=clock)


def _namespace(provider: ConnectionProvider, given: str | None, *, shared: bool) -> str:
    namespace = getattr(provider, "cache_namespace", None) if given is None else given
    if namespace is None and not shared:
        # By chance, not by address: an address is used again.
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
    """Return the name of the one entry that may answer ``request``; None if none may.

    Two requests have the same name exactly if they are equal in all that is listed here. The
    token stands for what a provider may read in it beside the facts of the principal (an actor,
    a custom claim); the facts for what introspection may say anew of the same token.
    """
    caller = request.principal
    if not caller.user_id and not request.tenant_id:
        return None
    subject = [caller.issuer, caller.user_id, caller.tenant_id, caller.client_id]
    grant = [caller.scopes, caller.permissions, caller.roles, caller.tenant_ids]
    asked = [request.name, request.tenant_id, _as_set(request.scopes)]
    parts = [namespace, *subject, *map(_as_set, grant), *asked, request.access_token]
    # JSON, so that no value can run into the next; not in ASCII, which writes a character beyond
    # U+FFFF and its two surrogates alike.
    return sha256(_encode(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _as_set(values: Iterable[str]) -> list[str]:
    return sorted(set(values))


@dataclass(eq=False)
class _Flight:
    """One request to the provider, for any number of waiting calls in one event loop."""

    fresh: bool
    task: asyncio.Task[Connection] = field(init=False)


class _Flights:
    """The requests on their way, by key; each event loop has its own, for a task belongs to one."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, dict[str, _Flight]] = {}

    def join(
        self, key: str, start: Callable[[_Flight], Coroutine[Any, Any, Connection]], *, fresh: bool
    ) -> asyncio.Task[Connection]:
        """Return the request for ``key``; start it if there is none, or none that is fresh."""
        flights = self._here()
        flight = flights.get(key)
        if flight is None or (fresh and not flight.fresh):
            flight = flights[key] = _Flight(fresh)
            flight.task = _running_loop().create_task(start(flight))
            flight.task.add_done_callback(partial(_land, flights, key, flight))
        return flight.task

    def is_latest(self, key: str, flight: _Flight) -> bool:
        """Return whether no fresh one overtook it: what it brings may then be the older."""
        return self._here().get(key) is flight

    def _here(self) -> dict[str, _Flight]:
        loop = _running_loop()
        flights = self._by_loop.get(loop)
        if flights is None:
            for closed in [other for other in list(self._by_loop) if other.is_closed()]:
                self._by_loop.pop(closed, None)
            flights = self._by_loop[loop] = {}
        return flights


def _running_loop() -> asyncio.AbstractEventLoop:
    import asyncio  # noqa: PLC0415 - takes long to import

    return asyncio.get_running_loop()


async def _ended(task: asyncio.Task[Connection]) -> None:
    import asyncio  # noqa: PLC0415 - takes long to import

    await asyncio.wait({task})


def _land(
    flights: dict[str, _Flight], key: str, flight: _Flight, task: asyncio.Task[Connection]
) -> None:
    if flights.get(key) is flight:
        del flights[key]
    if not task.cancelled():
        # Looked at, or asyncio logs it with its traceback where all who waited have left.
        task.exception()


def _result(task: asyncio.Task[Connection], name: str) -> Connection:
    if task.cancelled():
        raise ConnectionUnavailableError("The request was broken off: try again", connection=name)
    error = task.exception()
    if error is None:
        return task.result()
    # Each call raises one of its own: a traceback grows with every raise.
    raise copy(error) if isinstance(error, ToolGuardError) else error
