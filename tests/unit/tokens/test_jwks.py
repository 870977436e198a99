"""When are keys fetched, and which keys serve meanwhile?

With a fake clock, and a fake endpoint that answers at once or when the test lets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import threading
from itertools import pairwise
from typing import Any

import pytest

from support.issuing import (
    OUTAGE,
    URL,
    Endpoint,
    held,
    jwk,
    names,
    refresh,
    settle,
    source_of,
)
from support.virtual_time import run_in_virtual_time
from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock
from toolguard.tokens.fetching import BusyError
from toolguard.tokens.jwks import JWKS

# Fresh keys


def test_the_first_call_fetches_and_later_ones_do_not(warm: JWKS, endpoint: Endpoint) -> None:
    for _ in range(100):
        assert names(warm) == ["a"]
        refresh(warm)
    assert len(endpoint.calls) == 1


def test_keys_are_fetched_ahead_of_their_time_without_a_wait(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(239.9)
    assert names(warm) == ["a"]
    assert len(endpoint.calls) == 1
    clock.advance(0.1)
    with held(endpoint, warm):
        for _ in range(100):
            assert names(warm) == ["a"]
    assert len(endpoint.calls) == 2
    clock.advance(239.9)
    assert names(warm) == ["a"]
    assert len(endpoint.calls) == 2


def test_a_refresh_replaces_every_key(warm: JWKS, endpoint: Endpoint, clock: FrozenClock) -> None:
    endpoint.serve("b")
    clock.advance(240)
    assert names(warm) == ["a"]
    settle(warm)
    assert names(warm, "b") == ["b"]
    assert names(warm, "a") is None
    refresh(warm)
    assert names(warm, "a") == []


# Unknown names and wrong signatures


def test_unknown_names_share_three_fetches_and_one_more_each_30_seconds(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    outages = []
    for second in range(120):
        for number in range(20):
            kid = f"{second}-{number}"
            try:
                assert names(warm, kid) is None
                refresh(warm)
                assert names(warm, kid) == []
            except KeysUnavailableError as outage:
                outages.append(outage.retry_after)
        clock.advance(1)
    assert len(endpoint.calls) == 1 + 3 + 3
    assert max(outages) == 30
    assert min(outages) == 1


def test_an_unknown_name_is_looked_up_once_in_30_seconds(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    assert names(warm, "b") is None
    refresh(warm)
    for _ in range(30):
        assert names(warm, "b") == []
        clock.advance(1)
    assert len(endpoint.calls) == 2
    assert names(warm, "b") is None


def test_a_key_published_just_after_a_fetch_is_found_at_once(
    warm: JWKS, endpoint: Endpoint
) -> None:
    endpoint.serve("a", "b")
    assert names(warm, "b") is None
    refresh(warm)
    assert names(warm, "b") == ["b"]


def test_a_fetch_that_started_before_the_question_does_not_answer_it(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(240)
    with held(endpoint, warm):
        assert names(warm, "a") == ["a"]
        assert names(warm, "b") is None
    assert names(warm, "b") is None
    refresh(warm)
    assert names(warm, "b") == []
    assert len(endpoint.calls) == 3


def test_known_names_do_not_wait_for_the_fetch_of_an_unknown_one(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(30)

    async def unknown_then_known() -> None:
        assert names(warm, "b") is None
        waiting = asyncio.ensure_future(warm.refresh())
        await asyncio.sleep(0)
        assert len(warm._running) == 1
        assert names(warm, "a") == ["a"]
        assert not waiting.done()
        endpoint.released.set()
        await waiting

    endpoint.released.clear()
    asyncio.run(unknown_then_known())


def test_a_key_replaced_under_its_name_is_found_at_once(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    before = warm.find("a", "EdDSA")
    endpoint.serve("a")
    assert warm.report_bad_signature("a") is True
    refresh(warm)
    assert warm.find("a", "EdDSA") != before
    assert len(endpoint.calls) == 2


def test_wrong_signatures_and_unknown_names_share_their_fetches(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    for kid in ("b", "c"):
        assert names(warm, kid) is None
        refresh(warm)
    assert warm.report_bad_signature("a") is True
    refresh(warm)
    assert warm.report_bad_signature("a") is False
    with pytest.raises(KeysUnavailableError) as caught:
        names(warm, "d")
    assert caught.value.retry_after == 30
    clock.advance(30)
    assert warm.report_bad_signature("a") is True
    refresh(warm)
    assert len(endpoint.calls) == 5


# Outages


def test_a_failed_refresh_never_drops_keys(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.error = OUTAGE
    clock.advance(240)
    assert names(warm) == ["a"]
    settle(warm)
    assert names(warm) == ["a"]
    assert caplog.messages == [f"<JWKS: {URL}>: no newer keys, try 1: {URL}: HTTP 500"]


def test_stale_keys_serve_until_max_stale_and_are_logged(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "toolguard.tokens.keys")
    endpoint.error = OUTAGE
    clock.advance(240)
    for _ in range(240, 3900):
        assert names(warm) == ["a"]
        settle(warm)
        clock.advance(1)
    assert len([m for m in caplog.messages if "using stale keys" in m]) == 3600
    assert clock() == 1_000 + 3_900
    with pytest.raises(KeysUnavailableError):
        names(warm)
    with pytest.raises(KeysUnavailableError):
        refresh(warm)
    # 5 tries until the keys were stale, then one a minute.
    assert len(endpoint.calls) == 67


def test_keys_come_back_after_an_outage(warm: JWKS, endpoint: Endpoint, clock: FrozenClock) -> None:
    endpoint.error = OUTAGE
    clock.advance(10_000)
    with pytest.raises(KeysUnavailableError):
        refresh(warm)
    endpoint.error = None
    clock.advance(1)
    assert names(warm) is None
    refresh(warm)
    assert names(warm) == ["a"]


def test_no_stale_keys_serve_where_max_stale_is_0(endpoint: Endpoint, clock: FrozenClock) -> None:
    source = source_of(endpoint, clock, max_stale=0)
    refresh(source)
    endpoint.error = OUTAGE
    clock.advance(299.9)
    assert names(source) == ["a"]
    settle(source)
    clock.advance(0.1)
    with pytest.raises(KeysUnavailableError):
        names(source)


def test_a_key_withdrawn_while_no_call_came_in_does_not_serve(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.serve("b")
    clock.advance(600)
    assert names(warm, "a") is None
    refresh(warm)
    settle(warm)
    assert names(warm, "a") is None
    refresh(warm)
    assert names(warm, "a") == []


def test_after_a_quiet_time_a_call_waits_300_ms_for_new_keys(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(600)
    with held(endpoint, warm):
        assert names(warm, "a") is None
        _, waited = run_in_virtual_time(warm.refresh())
        assert waited == pytest.approx(0.3)
        assert names(warm, "a") == ["a"]
        for _ in range(100):
            assert names(warm, "a") == ["a"]
    assert len(endpoint.calls) == 2


def test_calls_that_come_later_wait_for_the_rest_of_the_300_ms(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(600)
    with held(endpoint, warm):
        warm._begin_fetch(clock())
        clock.advance(0.25)
        assert names(warm, "a") is None
        clock.advance(0.1)
        assert names(warm, "a") == ["a"]


def test_after_a_quiet_time_old_keys_serve_once_a_refresh_has_failed(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = OUTAGE
    clock.advance(600)
    assert names(warm) is None
    refresh(warm)
    assert names(warm) == ["a"]
    clock.advance(1)
    with held(endpoint, warm):
        assert names(warm) == ["a"]
        assert len(warm._running) == 1
        assert names(warm) == ["a"]


def test_in_an_outage_an_unknown_name_is_nobodys_fault(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = OUTAGE
    for wait in (1, 2, 30):
        assert names(warm, "b") is None
        refresh(warm)
        with pytest.raises(KeysUnavailableError) as caught:
            names(warm, "b")
        assert caught.value.retry_after == wait - (wait == 30) * 3
        assert warm.report_bad_signature("a") is False
        assert names(warm, "a") == ["a"]
        clock.advance(caught.value.retry_after)


def test_unknown_names_wait_for_the_fetches_they_share_and_for_the_back_off(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = OUTAGE
    tries = []
    for second in range(240):
        if warm.report_bad_signature("a"):
            tries.append(second)
            refresh(warm)
        clock.advance(1)
    assert tries == [0, 1, 3, 30, 60, 90, 122, 182]


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_a_cold_outage_is_tried_at_most_six_times_in_the_first_minute(
    endpoint: Endpoint, clock: FrozenClock, jitter: float
) -> None:
    source = source_of(endpoint, clock, jitter=lambda: jitter)
    endpoint.error = OUTAGE
    tries: list[float] = []
    for tick in range(2_400):
        with contextlib.suppress(KeysUnavailableError):
            assert names(source) is None
            tries.append(tick / 8)
            refresh(source)
        clock.advance(1 / 8)
    assert len(endpoint.calls) == len(tries)
    gaps = [after - before for before, after in pairwise(tries)]
    if jitter:
        assert gaps == [1.25, 2.5, 5, 10, 20, 40, 60, 60, 60]
    else:
        assert gaps == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_time_to_come_back_is_rounded_up_to_whole_seconds(
    source: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = OUTAGE
    for wait in (1, 2, 4):
        with pytest.raises(KeysUnavailableError) as failed:
            refresh(source)
        assert failed.value.retry_after == wait
        clock.advance(0.3)
        with pytest.raises(KeysUnavailableError) as refused:
            names(source)
        assert refused.value.retry_after == wait
        clock.advance(wait - 0.3)


def test_a_refused_set_is_a_failed_refresh(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.body = json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).encode()
    clock.advance(240)
    assert names(warm) == ["a"]
    settle(warm)
    assert names(warm) == ["a"]
    assert caplog.messages[-1].endswith("number 1 is a symmetric key (kty oct)")
    assert "c2VjcmV0" not in caplog.text


def test_keys_that_are_left_out_are_logged_once(
    source: JWKS, endpoint: Endpoint, clock: FrozenClock, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.body = json.dumps({"keys": [jwk("a"), {**jwk("b"), "d": "c2VjcmV0"}]}).encode()
    for _ in range(3):
        refresh(source)
        clock.advance(240)
    assert len(endpoint.calls) == 3
    assert caplog.messages == [
        f"<JWKS: {URL}>: left out key 'b' holds private members: publish public keys only"
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fetch_that_breaks_its_promise_leaves_nobody_waiting(
    source: JWKS, endpoint: Endpoint
) -> None:
    endpoint.error = ZeroDivisionError()
    with pytest.raises(KeysUnavailableError):
        refresh(source)
    # The exception itself goes where those of threads go, and this test is to see it.
    for thread in threading.enumerate():
        if thread.name == "toolguard-keys":
            thread.join(20)
    with pytest.raises(KeysUnavailableError):
        names(source)


def test_a_fetch_that_is_overdue_is_not_waited_for(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    clock.advance(600)
    with held(endpoint, warm):
        warm._begin_fetch(clock())
        clock.advance(5.4)
        assert names(warm, "b") is None
        assert warm.report_bad_signature("a") is True
        clock.advance(0.1)
        assert names(warm, "a") == ["a"]
        assert warm.report_bad_signature("a") is False
        with pytest.raises(KeysUnavailableError):
            names(warm, "b")
        refresh(warm)
    assert len(endpoint.calls) == 2


def test_an_endpoint_that_asks_for_time_gets_it(
    warm: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = BusyError("HTTP 429", retry_after=100)
    clock.advance(240)
    names(warm)
    settle(warm)
    clock.advance(99)
    assert names(warm) == ["a"]
    assert len(endpoint.calls) == 2
    endpoint.error = None
    clock.advance(1)
    names(warm)
    settle(warm)
    assert len(endpoint.calls) == 3


def test_an_endpoint_gets_five_minutes_at_most(
    source: JWKS, endpoint: Endpoint, clock: FrozenClock
) -> None:
    endpoint.error = BusyError("HTTP 503", retry_after=86_400)
    with pytest.raises(KeysUnavailableError) as caught:
        refresh(source)
    assert caught.value.retry_after == 300


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"url": URL, "issuer": "https://auth.example.com"},
        {"url": "http://auth.example.com/jwks"},
        {"url": "https://user:secret@auth.example.com/jwks"},
        {"issuer": ""},
        {"issuer": "https://auth.example.com?tenant=1"},
        {"well_known_url": "file:///etc/passwd"},
        {"url": URL, "max_stale": -1},
        {"url": URL, "max_stale": float("inf")},
        {"url": URL, "max_stale": float("nan")},
        {"url": URL, "timeout": 0},
        {"url": URL, "timeout": float("inf")},
    ],
)
def test_unusable_settings_are_a_mistake_at_construction(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence differs
        JWKS(**settings)
    assert "secret" not in str(caught.value)
