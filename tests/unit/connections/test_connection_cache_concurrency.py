"""Who waits for whose request, in how many event loops, threads and processes?"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import threading
from dataclasses import replace
from typing import Any

import pytest

from support.keeping import Ledger, Upstream, asked, cached, fetched, outcome, settle
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.cache import CachedConnections, MemoryTokenCache
from toolguard.errors import ConnectionRequiredError
from toolguard.testing import FrozenClock

ALICE = asked()
FRESH = asked(fresh=True)
CONNECT_URL = "https://vault.example/connect/alice"
NOT_CONNECTED = ConnectionRequiredError(
    "Connect it first", connection="google-calendar", connect_url=CONNECT_URL
)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_thousand_calls_of_one_user_make_one_request(
    connections: CachedConnections, upstream: Upstream, fresh: bool
) -> None:
    async def calls() -> list[str]:
        return await asyncio.gather(
            *(fetched(connections, replace(ALICE, fresh=fresh)) for _ in range(1_000))
        )

    assert asyncio.run(calls()) == ["alice-1"] * 1_000
    assert len(upstream.asked) == 1


def test_a_thousand_calls_of_one_user_look_into_a_shared_cache_once(upstream: Upstream) -> None:
    ledger = Ledger()
    connections = cached(upstream, cache=ledger, namespace="vault", local_age=0)

    async def calls() -> list[str]:
        return await asyncio.gather(*(fetched(connections, ALICE) for _ in range(1_000)))

    assert outcome(connections) == "alice-1"
    ledger.entries.clear()
    assert asyncio.run(calls()) == ["alice-1"] * 1_000
    assert ledger.entries == ["get"]


def test_calls_that_wait_for_one_request_fail_alike_and_each_by_itself(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = NOT_CONNECTED

    async def calls() -> list[Any]:
        waiting = (connections.fetch(ALICE) for _ in range(100))
        return await asyncio.gather(*waiting, return_exceptions=True)

    errors = asyncio.run(calls())

    assert {type(error) for error in errors} == {ConnectionRequiredError}
    assert {error.connect_url for error in errors} == {CONNECT_URL}
    assert len({id(error) for error in errors}) == 100
    assert [error.__context__ for error in errors] == [None] * 100
    assert len(upstream.asked) == 1


def test_a_fresh_request_does_not_wait_for_one_that_is_not(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> list[str]:
        upstream.gate = asyncio.Event()
        waiting = [
            asyncio.ensure_future(fetched(connections, request))
            for request in (ALICE, FRESH, FRESH, ALICE)
        ]
        await settle()
        upstream.gate.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(calls()) == ["alice-1", "alice-2", "alice-2", "alice-2"]


def test_the_request_goes_on_when_the_call_that_began_it_is_cancelled(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> list[Any]:
        upstream.gate = asyncio.Event()
        leader, *others = (asyncio.ensure_future(fetched(connections, ALICE)) for _ in range(3))
        await settle()
        leader.cancel()
        await settle()
        upstream.gate.set()
        return await asyncio.gather(leader, *others, return_exceptions=True)

    leader, *others = asyncio.run(calls())

    assert isinstance(leader, asyncio.CancelledError)
    assert others == ["alice-1", "alice-1"]
    assert len(upstream.asked) == 1


def test_what_nobody_waits_for_any_more_is_kept_for_the_retry(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> str:
        upstream.gate = asyncio.Event()
        leader = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        leader.cancel()
        await settle()
        upstream.gate.set()
        return await fetched(connections, ALICE)

    assert asyncio.run(calls()) == "alice-1"


def test_a_failure_that_nobody_waits_for_is_not_logged_with_what_it_holds(
    connections: CachedConnections, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.failure = RuntimeError("ya29.secret")

    async def calls() -> None:
        upstream.gate = asyncio.Event()
        leader = asyncio.ensure_future(connections.fetch(ALICE))
        await settle()
        leader.cancel()
        await settle()
        upstream.gate.set()
        await settle()

    asyncio.run(calls())
    gc.collect()

    assert len(upstream.asked) == 1
    assert "RuntimeError in" in caplog.text
    assert "ya29.secret" not in caplog.text


def test_an_error_that_is_not_ours_reaches_everybody_who_waits(
    connections: CachedConnections, upstream: Upstream
) -> None:
    upstream.failure = RuntimeError("a mistake in the provider")

    async def calls() -> list[Any]:
        waiting = (connections.fetch(ALICE) for _ in range(3))
        return await asyncio.gather(*waiting, return_exceptions=True)

    failed = "The provider of google-calendar failed"
    assert [str(error) for error in asyncio.run(calls())] == [failed] * 3
    upstream.failure = None
    assert outcome(connections) == "alice-2"


def test_a_provider_that_cancels_itself_cancels_no_call(
    clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Cancelled:
        async def fetch(self, request: ConnectionRequest) -> Connection:
            raise asyncio.CancelledError

    connections = CachedConnections(Cancelled(), clock=clock)

    assert outcome(connections) == "ConnectionUnavailableError"
    assert [each for each in caplog.records if each.name != "toolguard"] == []


def test_calls_of_several_users_do_not_wait_for_each_other(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def calls() -> str:
        upstream.gate = asyncio.Event()
        waiting = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        upstream.gate = None
        token = await fetched(connections, asked("bob"))
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        return token

    assert asyncio.run(calls()) == "bob-2"


def test_one_cache_serves_several_event_loops_in_several_threads(
    connections: CachedConnections, upstream: Upstream
) -> None:
    answers: list[str] = []
    together = threading.Barrier(4)

    async def calls() -> list[str]:
        return await asyncio.gather(*(fetched(connections, ALICE) for _ in range(50)))

    def one_loop() -> None:
        together.wait(20)
        answers.extend(asyncio.run(calls()))

    threads = [threading.Thread(target=one_loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert len(answers) == 200
    assert set(answers) <= {"alice-1", "alice-2", "alice-3", "alice-4"}
    # Each loop makes one request at most, and none once there is something to find.
    assert len(upstream.asked) <= 4
    assert outcome(connections).startswith("alice-")
    assert len(upstream.asked) <= 4


def test_a_loop_that_was_closed_on_its_way_leaves_nothing_behind(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def give_up() -> None:
        upstream.gate = asyncio.Event()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(connections.fetch(ALICE), 0.001)

    for _ in range(3):
        asyncio.run(give_up())
    upstream.gate = None

    assert outcome(connections) == "alice-4"
    assert len(connections._in_flight._by_loop) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_does_not_wait_for_a_lock_of_its_parent(clock: FrozenClock) -> None:
    cache = MemoryTokenCache(clock=clock)
    asyncio.run(cache.put("key", Connection("token"), 60))
    lock, _ = cache._entries._here()
    with lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if asyncio.run(cache.get("key")) is None else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert asyncio.run(cache.get("key")) == Connection("token")


def test_a_fresh_request_overtakes_an_older_one_whose_answer_is_not_kept(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def overtaken() -> list[str]:
        held = upstream.gate = asyncio.Event()
        slow = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        upstream.gate = None
        fresh = await fetched(connections, FRESH)
        held.set()
        return [await slow, fresh, await fetched(connections, ALICE)]

    assert asyncio.run(overtaken()) == ["alice-1", "alice-2", "alice-2"]


def test_what_was_overtaken_and_lands_first_takes_nothing_from_the_fresh_one(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def overtaken() -> list[str]:
        slow_gate = upstream.gate = asyncio.Event()
        slow = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        fresh_gate = upstream.gate = asyncio.Event()
        fresh = asyncio.ensure_future(fetched(connections, FRESH))
        await settle()
        slow_gate.set()
        first = await slow
        await settle()
        joined = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        fresh_gate.set()
        return [first, await fresh, await joined, await fetched(connections, ALICE)]

    assert asyncio.run(overtaken()) == ["alice-1", "alice-2", "alice-2", "alice-2"]


def test_a_refusal_that_was_overtaken_drops_and_notes_nothing(
    connections: CachedConnections, upstream: Upstream
) -> None:
    async def overtaken() -> list[str]:
        held = upstream.gate = asyncio.Event()
        upstream.failure = NOT_CONNECTED
        slow = asyncio.ensure_future(fetched(connections, ALICE))
        await settle()
        upstream.gate = upstream.failure = None
        fresh = await fetched(connections, FRESH)
        held.set()
        return [await slow, fresh, await fetched(connections, ALICE)]

    assert asyncio.run(overtaken()) == ["ConnectionRequiredError", "alice-2", "alice-2"]
