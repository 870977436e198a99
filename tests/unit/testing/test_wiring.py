"""What does a guard trust while tests of it overlap, in contexts, threads and tasks?"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from toolguard import ToolGuard
from toolguard.connections import StaticConnections
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.testing.leaks.marked_connections import marked_connections
from toolguard.testing.leaks.needles import Needles
from toolguard.testing.trust import issuer_for, trusting
from toolguard.testing.wiring import Wiring, enter, wired_with

ISSUER = LocalIssuer(algorithm="ES256")


def make_guard(**settings: object) -> ToolGuard:
    usual = {"verifier": ISSUER.verifier(), "audience": ISSUER.audience}
    return ToolGuard(**{**usual, **settings})  # type: ignore[arg-type]


# --- in one context


def test_a_wiring_replaces_parts_until_it_is_left() -> None:
    guard = make_guard(connections=StaticConnections({"drive": "token"}))
    verifier, provider, clock = guard.verifier, guard.connections, FrozenClock()
    other = LocalIssuer(algorithm="ES256").verifier()

    with Wiring(guard, verifier=other, clock=clock).used():
        assert (guard.verifier, guard.clock, guard.connections) == (other, clock, provider)

    assert guard.verifier is verifier
    assert guard.clock is not clock


def test_a_wiring_of_one_guard_leaves_others_alone() -> None:
    guard, other = make_guard(), make_guard()
    own = other.verifier

    with trusting(guard, issuer_for(guard)):
        assert other.verifier is own


def test_settings_of_a_wired_guard_can_still_be_assigned() -> None:
    guard, verifier = make_guard(), ISSUER.verifier()
    with trusting(guard, issuer_for(guard)):
        guard.verifier = verifier
        assert guard.verifier is not verifier

    assert guard.verifier is verifier


def test_a_wired_guard_is_still_of_its_own_class() -> None:
    class OurGuard(ToolGuard):
        pass

    guard = OurGuard(verifier=ISSUER.verifier(), audience=ISSUER.audience)
    shown = repr(guard)
    with trusting(guard, issuer_for(guard)):
        pass

    assert isinstance(guard, OurGuard)
    assert type(guard).__name__ == "OurGuard"
    assert repr(guard) == shown


def test_a_guard_without_connections_has_none_while_it_is_searched() -> None:
    guard = make_guard()

    with marked_connections(guard, Needles()):
        assert guard.connections is None


# --- in several


def test_a_context_that_outlives_a_wiring_does_not_have_it() -> None:
    guard = make_guard()
    own = guard.verifier
    with trusting(guard, issuer_for(guard)):
        copied = contextvars.copy_context()
        assert copied.run(lambda: guard.verifier) is not own

    assert copied.run(lambda: guard.verifier) is own


def test_a_wiring_entered_in_another_context_ends_everywhere() -> None:
    guard, copied = make_guard(), contextvars.copy_context()
    own, wiring = guard.verifier, Wiring(guard, verifier=None)
    copied.run(enter, wiring)

    assert guard.verifier is own
    assert copied.run(lambda: guard.verifier) is None
    wiring.ended = True
    assert copied.run(lambda: guard.verifier) is own


@given(st.lists(st.integers(0, 4), max_size=20))
def test_however_wirings_interleave_each_is_seen_where_it_is_entered(moves: list[int]) -> None:
    guard = make_guard()
    own = guard.verifier
    contexts = [contextvars.copy_context() for _ in range(5)]
    entered: dict[int, Wiring] = {}

    for move in moves:  # a second move of one context leaves it
        if move in entered:
            entered.pop(move).ended = True
        else:
            entered[move] = Wiring(guard, verifier=move)
            contexts[move].run(enter, entered[move])
        seen = [context.run(lambda: guard.verifier) for context in contexts]
        assert seen == [each if each in entered else own for each in range(5)]
        assert guard.verifier is own
    for wiring in entered.values():
        wiring.ended = True

    assert all(context.run(lambda: guard.verifier) is own for context in contexts)


def test_threads_that_enter_and_leave_together_see_their_own_wiring() -> None:
    guard, count = make_guard(), 8
    own, step = guard.verifier, threading.Barrier(count + 1, timeout=10)

    def use(number: int) -> bool:
        with Wiring(guard, verifier=number).used():
            step.wait()
            seen: object = guard.verifier
            step.wait()
        step.wait()
        return seen == number and guard.verifier is own

    with ThreadPoolExecutor(count) as pool:
        used = [pool.submit(use, number) for number in range(count)]
        for _ in range(3):
            assert guard.verifier is own
            step.wait()
        assert all(each.result() for each in used)
    assert guard.verifier is own


def test_tasks_that_enter_and_leave_together_see_their_own_wiring() -> None:
    guard = make_guard()
    own = guard.verifier

    async def main() -> None:
        entered, seen = [asyncio.Event() for _ in range(5)], asyncio.Event()

        async def use(number: int) -> object:
            with Wiring(guard, verifier=number).used():
                entered[number].set()
                await seen.wait()
                return guard.verifier

        tasks = [asyncio.create_task(use(number)) for number in range(5)]
        for each in entered:
            await each.wait()
        assert guard.verifier is own
        seen.set()
        assert await asyncio.gather(*tasks) == [*range(5)]

    asyncio.run(main())
    assert guard.verifier is own


def test_wirings_may_be_used_again_before_they_end() -> None:
    guard = make_guard()
    own, other = guard.verifier, ISSUER.verifier()
    wiring = Wiring(guard, verifier=other)
    for _ in range(2):
        with wired_with([wiring]):
            assert guard.verifier is other
        assert guard.verifier is own


def test_a_guard_verifies_tokens_of_the_issuer_it_trusts_and_no_others() -> None:
    guard = make_guard()
    ours, theirs = issuer_for(guard).mint("alice"), ISSUER.mint("alice")

    async def accepts(token: str) -> bool:
        try:
            await guard.verifier.verify(token)
        except Exception:  # noqa: BLE001 - whatever it says
            return False
        return True

    with trusting(guard, issuer_for(guard)):
        assert [asyncio.run(accepts(each)) for each in (ours, theirs)] == [True, False]
    assert [asyncio.run(accepts(each)) for each in (ours, theirs)] == [False, True]
