"""How often is a provider asked that fails, and whom does its failure concern?"""

from __future__ import annotations

import asyncio

import pytest

from support.keeping import Upstream, asked, cached, fetched, outcome, settle
from toolguard.connections import CachedConnections, Connection
from toolguard.connections.in_flight import _MAX_OF_ONE_CALLER, _MAX_OF_ONE_CONNECTION
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.testing import FrozenClock

ALICE, NAME = asked(), "google-calendar"
DOWN = ConnectionUnavailableError("Down", connection=NAME)
REPEATED = [
    DOWN,
    ConnectionDeniedError("No", connection=NAME),
    ConnectionRateLimitedError("Later", connection=NAME),
    ConnectionResponseError("What?", connection=NAME),
]


@pytest.mark.parametrize("failure", REPEATED, ids=lambda failure: failure.error)
def test_a_failure_that_comes_twice_is_remembered_for_a_second(
    connections: CachedConnections,
    upstream: Upstream,
    clock: FrozenClock,
    failure: ConnectionTokenError,
) -> None:
    upstream.failure = failure
    assert [outcome(connections) for _ in range(50)] == [type(failure).__name__] * 50
    assert len(upstream.asked) == 2

    upstream.failure = None
    clock.advance(1)
    assert outcome(connections) == "alice-3"


def test_a_rate_limit_is_remembered_for_as_long_as_it_says(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    upstream.failure = ConnectionRateLimitedError("Later", connection=NAME, retry_after=5)
    for _ in range(5):
        assert outcome(connections) == "ConnectionRateLimitedError"
        clock.advance(0.99)
    assert len(upstream.asked) == 1

    clock.advance(0.05)
    outcome(connections)
    assert len(upstream.asked) == 2


def test_a_failure_of_one_user_is_not_another_users(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = ConnectionDeniedError("No", connection=NAME)
    for _ in range(3):
        outcome(connections)
    upstream.failure = None

    assert outcome(connections, asked("bob")) == "bob-3"


def test_a_renewal_that_failed_is_remembered_and_what_is_kept_is_not_lost(
    connections: CachedConnections, upstream: Upstream, clock: FrozenClock
) -> None:
    rejected = asyncio.run(connections.fetch(ALICE))
    upstream.failure = DOWN
    renewing = asked(fresh=True, rejected=rejected)

    assert {outcome(connections, renewing) for _ in range(20)} == {"ConnectionUnavailableError"}
    assert len(upstream.asked) == 3
    assert outcome(connections) == "alice-1"
    upstream.failure = None
    clock.advance(1)
    assert outcome(connections, renewing) == "alice-4"


def test_an_outage_for_several_callers_is_asked_about_from_time_to_time(
    connections: CachedConnections,
    upstream: Upstream,
    clock: FrozenClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    upstream.failure = DOWN
    for n in range(200):
        assert outcome(connections, asked(f"user-{n}")) == "ConnectionUnavailableError"
    assert len(upstream.asked) == 3
    assert [name in message for name, message in zip([NAME], caplog.messages, strict=True)]

    clock.advance(1)
    for n in range(200):
        outcome(connections, asked(f"user-{n}"))
    assert len(upstream.asked) == 4

    upstream.failure = None
    clock.advance(2)
    found = [outcome(connections, asked(f"user-{n}")) for n in range(200)]
    assert "ConnectionUnavailableError" not in found


def test_an_outage_of_one_connection_leaves_the_others_alone(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = DOWN
    for n in range(5):
        outcome(connections, asked(f"user-{n}"))
    upstream.failure = None

    assert outcome(connections) == "ConnectionUnavailableError"
    assert outcome(connections, asked(name="slack")) == "alice-4"


def test_refusals_of_a_provider_are_no_outage(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = ConnectionRequiredError("Connect it", connection=NAME)
    for n in range(50):
        outcome(connections, asked(f"user-{n}"))

    assert len(upstream.asked) == 50


def test_a_provider_that_hangs_for_several_callers_is_an_outage(upstream: Upstream) -> None:
    connections = cached(upstream, timeout=0.01)

    async def calls() -> list[str]:
        upstream.gate = asyncio.Event()
        return [await fetched(connections, asked(f"user-{n}")) for n in range(20)]

    assert asyncio.run(calls()) == ["ConnectionUnavailableError"] * 20
    assert len(upstream.asked) == 3


def test_a_caller_who_left_many_requests_waits_for_their_end(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> list[str]:
        upstream.gate = asyncio.Event()
        for n in range(_MAX_OF_ONE_CALLER):
            leaving = asyncio.ensure_future(connections.fetch(asked(access_token=f"token-{n}")))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            leaving.cancel()
        await settle()
        refused = await fetched(connections, asked(access_token="one more"))
        bob = asyncio.ensure_future(fetched(connections, asked("bob")))
        await settle()
        upstream.gate.set()
        served = [await bob]
        await settle()
        for _ in range(_MAX_OF_ONE_CALLER):
            await settle()
        return [refused, *served, await fetched(connections, asked(access_token="one more"))]

    refused, bob, later = asyncio.run(calls())

    assert refused == "ConnectionUnavailableError"
    assert bob.startswith("bob-")
    assert later.startswith("alice-")


def test_requests_under_way_for_one_connection_are_limited(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> tuple[list[str], int]:
        upstream.gate = asyncio.Event()
        requests = [asked(f"user-{n}") for n in range(_MAX_OF_ONE_CONNECTION + 5)]
        waiting = [asyncio.ensure_future(fetched(connections, each)) for each in requests]
        await settle()
        other = asyncio.ensure_future(fetched(connections, asked(name="slack")))
        await settle()
        upstream.gate.set()
        return [*(await asyncio.gather(*waiting)), await other], len(upstream.asked)

    found, made = asyncio.run(calls())

    assert found[-6:-1] == ["ConnectionUnavailableError"] * 5
    assert "ConnectionUnavailableError" not in {*found[:-6], found[-1]}
    assert made == _MAX_OF_ONE_CONNECTION + 1


def test_nothing_is_counted_once_all_requests_have_ended(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> int:
        await asyncio.gather(*(fetched(connections, asked(f"user-{n}")) for n in range(20)))
        upstream.failure = RuntimeError("a mistake")
        with pytest.raises(ConnectionResponseError):
            await connections.fetch(asked(fresh=True))
        await settle()
        return len(connections._in_flight._by_loop.get().numbers)

    assert asyncio.run(calls()) == 0


def test_a_kept_connection_is_served_during_an_outage(
    connections: CachedConnections, upstream: Upstream
) -> None:
    assert outcome(connections) == "alice-1"
    upstream.failure = DOWN
    for n in range(5):
        outcome(connections, asked(f"user-{n}"))

    assert asyncio.run(connections.fetch(ALICE)) == Connection("alice-1", scopes=("read",))
