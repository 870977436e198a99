"""Does one source of keys serve any number of calls, event loops, threads and processes?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.issuing import OUTAGE, URL, Endpoint, held, names, refresh, settle, source_of
from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock
from toolguard.tokens.jwks import JWKS, _RunningFetch


async def ask(source: JWKS, count: int) -> list[list[str | None] | None]:
    async def call() -> list[str | None] | None:
        if names(source) is None:
            await source.refresh()
        return names(source)

    return await asyncio.gather(*(call() for _ in range(count)))


def test_any_number_of_waiting_calls_share_one_fetch(source: JWKS, endpoint: Endpoint) -> None:
    assert asyncio.run(ask(source, 500)) == [["a"]] * 500
    assert len(endpoint.calls) == 1


def in_threads(count: int, work: Callable[[], None]) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_one_source_serves_several_event_loops(source: JWKS, endpoint: Endpoint) -> None:
    answers: list[Any] = []
    together = threading.Barrier(4)

    def one_loop() -> None:
        together.wait(20)
        answers.extend(asyncio.run(ask(source, 20)))

    in_threads(4, one_loop)
    assert answers == [["a"]] * 80
    assert len(endpoint.calls) == 1


def test_of_many_threads_that_find_old_keys_one_fetches(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    together = threading.Barrier(16)

    def one_thread() -> None:
        together.wait(20)
        assert names(warm) == ["a"]

    clock.advance(240)
    with held(endpoint, warm):
        in_threads(16, one_thread)
        fetching = [each for each in threading.enumerate() if each.name == "toolguard-keys"]
        # A process that ends does not wait for a fetch.
        assert [each.daemon for each in fetching] == [True]
    assert len(endpoint.calls) == 2


def test_a_fetch_that_another_has_made_needless_does_not_start(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    late = _RunningFetch(clock(), clock() + 5.5)
    warm._start(late)
    asyncio.run(late.wait(0))
    assert late._landed.done()
    assert len(endpoint.calls) == 1


def test_a_cancelled_wait_cancels_nobody_elses(source: JWKS, endpoint: Endpoint) -> None:
    async def cancel_one() -> list[list[str | None] | None]:
        cancelled, other = (asyncio.ensure_future(ask(source, 1)) for _ in range(2))
        await asyncio.sleep(0)
        cancelled.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled
        endpoint.released.set()
        return await other

    endpoint.released.clear()
    assert asyncio.run(cancel_one()) == [["a"]]
    assert len(endpoint.calls) == 1


def test_a_fetch_outlives_the_loop_that_waited_for_it(
    source: JWKS, endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    async def give_up() -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(source.refresh(), 0)

    async def start_and_give_up() -> None:
        waiting = asyncio.ensure_future(source.refresh())
        await asyncio.sleep(0)
        waiting.cancel()

    with held(endpoint, source):
        asyncio.run(start_and_give_up())
        asyncio.run(give_up())
    assert names(source) == ["a"]
    assert caplog.messages == []


def test_keys_age_from_fetch_start_failures_from_fetch_end(
    endpoint: Endpoint, clock: FrozenClock
) -> None:
    def slow(url: str, timeout: float) -> bytes:
        clock.advance(2)
        return endpoint(url, timeout)

    source = JWKS(url=URL, fetch=slow, clock=clock, jitter=lambda: 0.0)
    refresh(source)
    clock.advance(238)
    assert names(source) == ["a"]
    settle(source)
    assert len(endpoint.calls) == 2
    endpoint.error = OUTAGE
    clock.advance(10_000)
    for wait in (1, 2, 4):
        with pytest.raises(KeysUnavailableError) as caught:
            refresh(source)
        assert caught.value.retry_after == wait
        clock.advance(wait)


def test_without_a_thread_to_fetch_in_the_call_fails_cleanly(
    source: JWKS, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeysUnavailableError):
        refresh(source)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
may_fork = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


def exit_code_of_child(check: Callable[[], bool]) -> int:
    pid = os.fork()
    if pid == 0:  # pragma: no cover - coverage does not follow
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
@may_fork
def test_a_forked_child_keeps_the_keys_and_fetches_for_itself(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    def check() -> bool:
        kept = names(warm) == ["a"]
        endpoint.serve("b")
        clock.advance(240)
        refresh(warm)
        return kept and names(warm, "b") == ["b"]

    assert exit_code_of_child(check) == 0


@needs_fork
@may_fork
def test_a_child_forked_during_a_fetch_does_not_wait_for_it(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    def check() -> bool:
        endpoint.released = threading.Event()
        endpoint.released.set()
        kept = names(warm) == ["a"]
        refresh(warm)
        return kept and names(warm, "b") == ["b"]

    endpoint.serve("a", "b")
    clock.advance(240)
    with held(endpoint, warm):
        assert names(warm) == ["a"]
        assert exit_code_of_child(check) == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.5, 1.0, 10.0, 29.0, 30.0, 60.0, 240.0, 300.0, 4_000.0]),
            st.booleans(),
            st.sampled_from(["a", "b", "a", "report_bad_signature"]),
        ),
        max_size=40,
    )
)
def test_no_course_of_events_loses_good_keys_or_floods_the_issuer(
    events: list[tuple[float, bool, str]],
) -> None:
    clock, endpoint = FrozenClock(1_000), Endpoint("a")
    source = source_of(endpoint, clock)
    fetches: list[tuple[float, bool]] = []
    waits: list[int] = []
    last_success = None
    for pause, is_up, what in events:
        clock.advance(pause)
        endpoint.error = None if is_up else OUTAGE
        before = len(endpoint.calls)
        try:
            wanted = (
                source.report_bad_signature("a")
                if what == "report_bad_signature"
                else names(source, what) is None
            )
            if wanted:
                refresh(source)
            settle(source)
            answer = names(source, "a")
        except KeysUnavailableError as error:
            settle(source)
            waits.append(error.retry_after)
            answer = None
        made = len(endpoint.calls) - before
        assert made <= 1
        fetches.extend([(clock(), is_up)] * made)
        if made and is_up:
            last_success = clock()
        served = last_success is not None and clock() < last_success + 3_900
        if what == "a":
            assert (answer == ["a"]) is served
    assert all(1 <= wait <= 60 for wait in waits)
    for (earlier, succeeded), (later, _) in pairwise(fetches):
        assert succeeded or later - earlier >= 1
    for start, _ in fetches:
        assert len([time for time, _ in fetches if start <= time < start + 60]) <= 11
