"""What stands behind a cache of connections, and what is seen of it from there?

Providers that number their tokens and keep callers waiting, and a cache that notes what is asked
of it; the provider of the kit answers at once, as a user's tests want it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from copy import copy
from typing import Any, Literal

from support.callers import ISSUER, TOKEN
from toolguard.connections import Connection, ConnectionProvider, ConnectionRequest
from toolguard.connections.cache import CachedConnections, MemoryTokenCache
from toolguard.errors import ToolGuardError
from toolguard.principal import Principal
from toolguard.testing import FrozenClock

__all__ = [
    "Gate",
    "Ledger",
    "Upstream",
    "asked",
    "cached",
    "fetched",
    "outcome",
    "settle",
    "tokens",
]


class Gate(asyncio.Event):
    """Closed until it is set; ``reached`` says that somebody waits at it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


class Ledger(MemoryTokenCache):
    """A shared cache, in that it says so; ``entries`` are what it was asked to do."""

    shared = True

    def __init__(self) -> None:
        super().__init__(clock=FrozenClock())
        self.entries: list[str] = []

    async def get(self, key: str) -> Connection | None:
        self.entries.append("get")
        return await super().get(key)

    async def put(self, key: str, connection: Connection, ttl: float) -> None:
        self.entries.append(f"put for {ttl:g} s")
        await super().put(key, connection, ttl)

    async def drop(self, key: str) -> None:
        self.entries.append("drop")
        await super().drop(key)

    async def claim(self, key: str) -> Connection | None:
        self.entries.append("claim")
        return await super().claim(key)


class Upstream:
    """A provider that numbers the tokens it gives, and remembers what it was asked for.

    Attributes:
        asked: the requests, in their order.
        failure: what it raises instead of giving a token.
        expires_at: when the tokens expire.
        gate: what a request waits for before it is answered.
    """

    def __init__(self) -> None:
        self.asked: list[ConnectionRequest] = []
        self.failure: Exception | None = None
        self.expires_at: float | None = None
        self.gate: asyncio.Event | None = None

    async def fetch(self, request: ConnectionRequest) -> Connection:
        self.asked.append(request)
        number, gate, failure = len(self.asked), self.gate, self.failure
        if gate is not None:
            await gate.wait()
        if failure is not None:
            raise copy(failure)
        return Connection(
            f"{request.principal.user_id}-{number}", scopes=("read",), expires_at=self.expires_at
        )


def asked(
    user_id: str | None = "alice",
    *,
    name: str = "google-calendar",
    scopes: Iterable[str] = (),
    access_token: str | None = TOKEN,
    tenant_id: str | None = None,
    fresh: bool = False,
    rejected: Connection | None = None,
    **facts: Any,
) -> ConnectionRequest:
    principal = Principal(user_id, **{"issuer": ISSUER, **facts})
    return ConnectionRequest(
        name, tuple(scopes), principal, access_token, tenant_id, fresh, rejected
    )


def cached(
    upstream: Upstream, clock: FrozenClock | None = None, **settings: Any
) -> CachedConnections:
    """Return a cache on a clock that says the time and how much of it has passed."""
    clock = clock or FrozenClock()
    return CachedConnections(upstream, clock=clock, timer=clock, **settings)


def tokens(connections: CachedConnections, *requests: ConnectionRequest) -> list[str]:
    """Return the tokens that one call after the other gets."""

    async def calls() -> list[str]:
        return [(await connections.fetch(request)).token for request in requests]

    return asyncio.run(calls())


async def fetched(connections: ConnectionProvider, request: ConnectionRequest) -> str:
    """Return the token of one call, or the kind of its failure."""
    try:
        return (await connections.fetch(request)).token
    except ToolGuardError as error:
        return type(error).__name__


def outcome(connections: ConnectionProvider, request: ConnectionRequest | None = None) -> str:
    """Make one call in an event loop of its own: of a usual caller, if none is named."""
    return asyncio.run(fetched(connections, asked() if request is None else request))


async def settle() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(10):
        await asyncio.sleep(0)
