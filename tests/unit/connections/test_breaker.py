"""When is a provider that does not answer no longer asked, and when is it asked again?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolguard.connections.breaker import Breaker
from toolguard.testing import FrozenClock


def broken(clock: FrozenClock) -> Breaker:
    breaker = Breaker(clock)
    assert [breaker.failed(caller) for caller in ("alice", "bob", "carol")] == [False, False, True]
    return breaker


def test_failures_of_three_callers_stop_requests_for_a_second() -> None:
    breaker = broken(clock := FrozenClock())

    assert (breaker.admit(), breaker.wait) == (False, 1.0)
    clock.advance(1)
    assert breaker.admit()


def test_one_request_is_tried_after_the_pause() -> None:
    breaker = broken(clock := FrozenClock())
    clock.advance(1)

    assert [breaker.admit() for _ in range(3)] == [True, False, False]


def test_a_trial_without_an_end_is_followed_by_another() -> None:
    breaker = broken(clock := FrozenClock())
    clock.advance(1)
    breaker.admit()
    clock.advance(1)

    assert breaker.admit()


def test_each_failed_trial_doubles_the_pause_up_to_half_a_minute() -> None:
    breaker = broken(clock := FrozenClock())
    pauses = []
    for _ in range(7):
        pauses.append(breaker.wait)
        clock.advance(breaker.wait)
        assert breaker.admit()
        breaker.failed("alice")

    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_requests_made_before_the_outage_do_not_lengthen_it() -> None:
    breaker = broken(FrozenClock())
    for caller in range(100):
        breaker.failed(caller)

    assert breaker.wait == 1


def test_any_answer_ends_the_outage() -> None:
    breaker = broken(clock := FrozenClock())
    clock.advance(1)
    breaker.admit()
    breaker.answered()

    assert [breaker.admit() for _ in range(3)] == [True] * 3
    assert not breaker.failed("alice")


def test_failures_a_minute_apart_are_no_outage() -> None:
    breaker = Breaker(clock := FrozenClock())
    for caller in range(100):
        assert not breaker.failed(caller)
        clock.advance(30)


@given(st.lists(st.sampled_from([("failed", 0.5), ("failed", 40.0), ("admit", 1.0)])))
def test_one_caller_alone_never_stops_the_others(events: list[tuple[str, float]]) -> None:
    breaker = Breaker(clock := FrozenClock())
    for event, seconds in events:
        if event == "failed":
            breaker.failed("alice")
        else:
            assert breaker.admit()
        clock.advance(seconds)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 60), st.booleans())))
def test_requests_are_never_refused_for_more_than_half_a_minute(
    events: list[tuple[str, float, bool]],
) -> None:
    breaker = Breaker(clock := FrozenClock())
    for caller, seconds, has_answer in events:
        if breaker.admit():
            breaker.answered() if has_answer else breaker.failed(caller)
        assert breaker.wait <= 30
        clock.advance(seconds)
