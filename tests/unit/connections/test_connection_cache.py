"""Which connections are kept, for whom, and for how long?"""

from __future__ import annotations

import asyncio
import gc
import weakref
from copy import copy

import pytest

from support.keeping import Ledger, Upstream, asked, cached, fetched, outcome, tokens
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.cache import CachedConnections, MemoryTokenCache, build_provider
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.testing import FrozenClock

ALICE = asked()
FRESH = asked(fresh=True)
NOT_CONNECTED = ConnectionRequiredError(
    "Connect it first",
    connection="google-calendar",
    connect_url="https://vault.example/connect/alice",
    missing_scopes=["read"],
)
OUT_OF_ORDER = ConnectionUnavailableError("Try again", connection="google-calendar")
FAILURES = [
    OUT_OF_ORDER,
    ConnectionDeniedError("No", connection="google-calendar"),
    ConnectionRateLimitedError("Later", connection="google-calendar"),
    ConnectionResponseError("What?", connection="google-calendar"),
]


def test_a_kept_connection_is_the_one_that_was_fetched(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    upstream.expires_at = clock() + 3_600

    assert tokens(connections, ALICE) == ["alice-1"]
    assert asyncio.run(connections.fetch(ALICE)) == Connection(
        "alice-1", scopes=("read",), expires_at=clock() + 3_600
    )
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("age", "token"), [(59.0, "alice-1"), (60.0, "alice-2")])
def test_a_connection_is_kept_for_a_minute_however_long_it_is_good(
    connections: CachedConnections, clock: FrozenClock, age: float, token: str
) -> None:
    tokens(connections, ALICE)
    clock.advance(age)

    assert outcome(connections) == token


@pytest.mark.parametrize(("age", "token"), [(9.0, "alice-1"), (10.0, "alice-2")])
def test_a_connection_is_kept_until_half_a_minute_before_it_expires(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock, age: float, token: str
) -> None:
    upstream.expires_at = clock() + 40
    tokens(connections, ALICE)
    clock.advance(age)

    assert outcome(connections) == token


@pytest.mark.parametrize("life", [30.0, 1.0, 0.0, -5.0, float("nan")])
def test_a_connection_that_expires_soon_is_handed_on_and_not_kept(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock, life: float
) -> None:
    upstream.expires_at = clock() + life

    assert tokens(connections, ALICE, ALICE) == ["alice-1", "alice-2"]


def test_a_cache_that_keeps_too_long_is_not_believed(
    upstream: Upstream, clock: FrozenClock
) -> None:
    connections = CachedConnections(upstream, cache=MemoryTokenCache(), clock=clock)
    upstream.expires_at = clock() + 40
    tokens(connections, ALICE)
    clock.advance(10)

    assert outcome(connections) == "alice-2"


def test_a_clock_that_is_set_back_keeps_nothing_longer(
    upstream: Upstream, clock: FrozenClock
) -> None:
    wall = [7_200.0]
    connections = CachedConnections(upstream, clock=lambda: wall[-1], timer=clock)
    tokens(connections, ALICE)
    wall.append(3_600.0)
    clock.advance(60)

    assert outcome(connections) == "alice-2"


def test_an_age_of_nothing_turns_the_cache_off(upstream: Upstream) -> None:
    connections = cached(upstream, max_age=0)

    async def at_once() -> list[str]:
        return await asyncio.gather(*(fetched(connections, ALICE) for _ in range(2)))

    assert asyncio.run(at_once()) == ["alice-1", "alice-2"]
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    upstream.failure = None
    assert outcome(connections) == "alice-4"


@pytest.mark.parametrize(
    ("life", "last"), [(None, "put for 55 s"), (31, "put for 1 s"), (30, "drop"), (-5, "drop")]
)
def test_a_cache_forgets_connections_that_expire_soon(
    upstream: Upstream, clock: FrozenClock, life: float | None, last: str
) -> None:
    ledger = Ledger()
    upstream.expires_at = None if life is None else clock() + life
    tokens(cached(upstream, clock, cache=ledger, namespace="vault"), ALICE)

    assert ledger.entries == ["get", "claim", last]


def test_what_fetches_anew_for_one_call_is_not_handed_to_the_next(clock: FrozenClock) -> None:
    class Refetching:
        async def fetch(self, request: ConnectionRequest) -> Connection:
            async def refetch() -> Connection:
                return Connection("of one call")

            return Connection("token", refetch=refetch)

    connections = CachedConnections(Refetching(), clock=clock, timer=clock)

    async def twice() -> list[object]:
        return [(await connections.fetch(ALICE)).refetch for _ in range(2)]

    assert asyncio.run(twice()) == [None, None]


def test_of_too_many_entries_the_one_unused_for_longest_goes(
    upstream: Upstream, clock: FrozenClock
) -> None:
    connections = cached(upstream, clock, cache=MemoryTokenCache(2, clock=clock))
    alice, bob, carol = asked("alice"), asked("bob"), asked("carol")

    assert tokens(connections, alice, bob, alice, carol) == [
        "alice-1",
        "bob-2",
        "alice-1",
        "carol-3",
    ]
    assert tokens(connections, alice, carol, bob) == ["alice-1", "carol-3", "bob-4"]


def test_a_caller_with_many_tokens_evicts_no_other_caller(upstream: Upstream) -> None:
    connections = cached(upstream, cache=MemoryTokenCache(1_000))
    others = [asked(f"user-{n}") for n in range(100)]
    before = tokens(connections, *others)
    tokens(connections, *(asked(access_token=f"token-{n}") for n in range(1_000)))

    assert tokens(connections, *others) == before
    assert len(upstream.asked) == 1_100


def test_the_newest_entries_of_a_caller_are_kept(upstream: Upstream) -> None:
    connections = cached(upstream)
    requests = [asked(access_token=f"token-{n}") for n in range(101)]
    first, *kept = tokens(connections, *requests)

    assert tokens(connections, *requests[1:]) == kept
    assert tokens(connections, requests[0]) != [first]


def test_a_cache_holds_no_more_bytes_than_it_may(clock: FrozenClock) -> None:
    cache = MemoryTokenCache(max_bytes=1_000, clock=clock)

    async def kept() -> list[int]:
        for key in range(10):
            await cache.put(str(key), Connection("x" * 300, scopes=("y" * 20,)), 60)
        return [key for key in range(10) if await cache.get(str(key)) is not None]

    assert asyncio.run(kept()) == [7, 8, 9]


def test_a_connection_longer_than_the_cache_leaves_no_older_one(clock: FrozenClock) -> None:
    cache = MemoryTokenCache(max_bytes=1_000, clock=clock)

    async def kept() -> Connection | None:
        await cache.put("key", Connection("old"), 60)
        await cache.put("key", Connection("x" * 1_001), 60)
        return await cache.get("key")

    assert asyncio.run(kept()) is None


def test_nothing_is_kept_for_a_caller_who_is_no_user(connections: CachedConnections) -> None:
    nobody, unnamed = asked(None), asked("")

    assert tokens(connections, nobody, nobody) == ["None-1", "None-2"]
    assert tokens(connections, unnamed, unnamed) == ["-3", "-4"]


def test_tenant_connections_are_cached_for_callers_without_user(
    connections: CachedConnections,
) -> None:
    service = asked(None, tenant_id="T1")

    assert tokens(connections, service, service) == ["None-1", "None-1"]


def test_two_providers_of_one_kind_share_nothing_in_one_cache(clock: FrozenClock) -> None:
    cache = MemoryTokenCache(clock=clock)
    one, other = cached(Upstream(), clock, cache=cache), cached(Upstream(), clock, cache=cache)
    tokens(one, asked("bob"), ALICE)

    assert (outcome(one), outcome(other)) == ("alice-2", "alice-1")


def test_providers_that_name_themselves_alike_share_a_cache(clock: FrozenClock) -> None:
    class Named(Upstream):
        cache_namespace = "vault of project-1"

    cache = MemoryTokenCache(clock=clock)
    one, other = cached(Named(), clock, cache=cache), cached(Named(), clock, cache=cache)
    elsewhere = cached(Named(), clock, cache=cache, namespace="vault of project-2")
    tokens(one, asked("bob"), ALICE)

    assert (outcome(other), outcome(elsewhere)) == ("alice-2", "alice-1")


def test_a_fresh_connection_takes_the_place_of_the_kept_one(connections: CachedConnections) -> None:
    assert tokens(connections, ALICE, FRESH, ALICE) == ["alice-1", "alice-2", "alice-2"]


def test_a_fresh_connection_that_cannot_be_kept_leaves_none(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    tokens(connections, ALICE)
    upstream.expires_at = clock() + 1

    assert tokens(connections, FRESH, ALICE) == ["alice-2", "alice-3"]


@pytest.mark.parametrize("refusal", [NOT_CONNECTED, FAILURES[1]], ids=["not connected", "denied"])
def test_what_the_provider_no_longer_gives_is_no_longer_kept(
    connections: CachedConnections, upstream: Upstream, refusal: ConnectionTokenError
) -> None:
    tokens(connections, ALICE)
    upstream.failure = refusal

    assert outcome(connections, FRESH) == type(refusal).__name__
    assert outcome(connections) == type(refusal).__name__


def test_an_outage_says_nothing_against_what_is_kept(
    connections: CachedConnections, upstream: Upstream
) -> None:
    tokens(connections, ALICE)
    upstream.failure = OUT_OF_ORDER

    assert outcome(connections, FRESH) == "ConnectionUnavailableError"
    assert outcome(connections) == "alice-1"


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.error)
def test_a_failure_that_comes_once_is_not_kept(
    connections: CachedConnections, upstream: Upstream, failure: ConnectionTokenError
) -> None:
    upstream.failure = failure
    assert outcome(connections) == type(failure).__name__

    upstream.failure = None
    assert outcome(connections) == "alice-2"


def test_that_a_user_has_not_connected_is_remembered_for_two_seconds(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    clock.advance(1.9)
    with pytest.raises(ConnectionRequiredError) as caught:
        tokens(connections, ALICE)
    with pytest.raises(ConnectionRequiredError) as caught_later:
        tokens(connections, ALICE)

    assert len(upstream.asked) == 1
    # One that is raised twice would hold on to the frames of both calls.
    assert caught.value is not caught_later.value
    assert len(caught.traceback) == len(caught_later.traceback)
    assert caught.value.to_dict() == {
        "error": "connection_required",
        "error_description": "Connect it first",
        "connection": "google-calendar",
        "connect_url": "https://vault.example/connect/alice",
        "missing_scopes": ["read"],
    }

    upstream.failure = None
    clock.advance(0.1)
    assert outcome(connections) == "alice-2"


def test_fifty_calls_of_an_unconnected_user_ask_a_guards_provider_twice(
    upstream: Upstream,
) -> None:
    upstream.failure = NOT_CONNECTED
    guarded = build_provider(upstream, FrozenClock())
    assert isinstance(guarded, CachedConnections)

    assert [outcome(guarded) for _ in range(50)] == ["ConnectionRequiredError"] * 50
    assert len(upstream.asked) == 2


def test_refusals_that_are_not_in_a_row_are_not_remembered(
    upstream: Upstream, clock: FrozenClock
) -> None:
    connections = cached(upstream, clock, not_connected_after=2)
    for _ in range(3):
        upstream.failure = NOT_CONNECTED
        outcome(connections)
        clock.advance(2)

    assert len(upstream.asked) == 3
    upstream.failure = None
    assert outcome(connections) == "alice-4"


def test_what_is_remembered_of_a_refusal_holds_no_token_of_the_caller(clock: FrozenClock) -> None:
    class Refusing:
        async def fetch(self, request: ConnectionRequest) -> Connection:
            raise copy(NOT_CONNECTED)

    connections = CachedConnections(Refusing(), clock=clock, timer=clock)
    request = asked()
    held = weakref.ref(request)
    outcome(connections, request)
    del request
    gc.collect()

    assert held() is None


def test_that_one_user_has_not_connected_is_nothing_that_another_hears(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    upstream.failure = None

    assert outcome(connections, asked("bob")) == "bob-2"
    assert outcome(connections, asked(scopes=["write"])) == "alice-3"
    assert outcome(connections, asked(access_token="another-token")) == "alice-4"


def test_a_fresh_request_finds_the_user_connected_and_so_does_the_next(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    upstream.failure = None

    assert tokens(connections, FRESH, ALICE) == ["alice-2", "alice-2"]


def test_a_fresh_request_leaves_no_note_that_the_user_has_not_connected(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = NOT_CONNECTED
    outcome(connections, FRESH)
    upstream.failure = None

    assert outcome(connections) == "alice-2"


def test_that_a_user_has_not_connected_need_not_be_remembered(upstream: Upstream) -> None:
    connections = cached(upstream, not_connected_for=0)
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    upstream.failure = None

    assert outcome(connections) == "alice-2"


def test_a_note_is_dropped_once_the_user_has_connected(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    upstream.failure = NOT_CONNECTED
    outcome(connections)
    upstream.failure, upstream.expires_at = None, clock() + 1
    outcome(connections, FRESH)

    assert outcome(connections) == "alice-3"


def test_a_provider_that_does_not_answer_does_not_hold_up_calls_for_ever(
    upstream: Upstream,
) -> None:
    connections = cached(upstream, timeout=0.01)

    async def held_up() -> list[str]:
        upstream.gate = asyncio.Event()
        first = await fetched(connections, ALICE)
        upstream.gate = None
        return [first, await fetched(connections, ALICE)]

    assert asyncio.run(held_up()) == ["ConnectionUnavailableError", "alice-2"]


class ClaimedCache(MemoryTokenCache):
    """Notes what is dropped, and that it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped: list[str] = []
        self.is_closed = False

    async def drop(self, key: str) -> None:
        self.dropped.append(key)
        await super().drop(key)

    async def aclose(self) -> None:
        self.is_closed = True


def test_a_claim_ends_whatever_the_provider_raises() -> None:
    async def broken(_: ConnectionRequest) -> Connection:
        raise ZeroDivisionError

    cache = ClaimedCache()
    connections = CachedConnections(broken, cache=cache)

    with pytest.raises(ConnectionResponseError):
        asyncio.run(connections.fetch(ALICE))
    assert len(cache.dropped) == 1


def test_closing_the_connections_closes_the_cache(upstream: Upstream) -> None:
    cache = ClaimedCache()

    asyncio.run(CachedConnections(upstream, cache=cache).aclose())

    assert cache.is_closed


def test_closing_the_connections_closes_the_cache_whatever_the_provider_does() -> None:
    class Stuck(Upstream):
        async def aclose(self) -> None:
            raise OSError

    cache = ClaimedCache()
    with pytest.raises(OSError):  # noqa: PT011 - which one it is does not matter
        asyncio.run(CachedConnections(Stuck(), cache=cache).aclose())

    assert cache.is_closed


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


def test_a_shared_cache_is_not_asked_for_what_this_process_has(
    upstream: Upstream, clock: FrozenClock, ledger: Ledger
) -> None:
    connections = cached(upstream, clock, cache=ledger, namespace="vault")
    tokens(connections, ALICE)
    ledger.entries.clear()

    assert tokens(connections, *[ALICE] * 100) == ["alice-1"] * 100
    assert ledger.entries == []
    clock.advance(5)
    assert tokens(connections, *[ALICE] * 100) == ["alice-1"] * 100
    assert ledger.entries == ["get"]


def test_a_connection_of_a_shared_cache_is_no_older_than_a_minute(
    upstream: Upstream, clock: FrozenClock, ledger: Ledger
) -> None:
    ledger._entries._clock = clock
    one, other = (cached(upstream, clock, cache=ledger, namespace="vault") for _ in range(2))
    tokens(one, ALICE)
    clock.advance(54.9)
    tokens(other, ALICE)
    clock.advance(5)

    assert tokens(other, ALICE) == ["alice-2"]


def test_a_rejected_connection_is_looked_up_in_the_shared_cache(
    upstream: Upstream, clock: FrozenClock, ledger: Ledger
) -> None:
    one, other = (
        cached(upstream, clock, cache=ledger, namespace="vault", not_connected_for=0)
        for _ in range(2)
    )
    rejected = asyncio.run(one.fetch(ALICE))
    tokens(other, FRESH)

    assert tokens(one, asked(fresh=True, rejected=rejected)) == ["alice-2"]
    assert len(upstream.asked) == 2


def test_a_refused_connection_is_dropped_from_memory_and_from_the_shared_cache(
    upstream: Upstream, clock: FrozenClock, ledger: Ledger
) -> None:
    connections = cached(upstream, clock, cache=ledger, namespace="vault")
    tokens(connections, ALICE)
    upstream.failure = NOT_CONNECTED
    outcome(connections, FRESH)

    assert outcome(connections) == "ConnectionRequiredError"
