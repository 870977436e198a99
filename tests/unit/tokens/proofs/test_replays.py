"""Is a proof accepted once, in bounded memory?"""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolguard.testing import FrozenClock
from toolguard.tokens.proofs.nonces import Nonces
from toolguard.tokens.proofs.replays import MemoryReplays


def first(replays: MemoryReplays, key: str, number: int, until: float) -> bool:
    return asyncio.run(replays.is_first(key, str(number).encode(), until))


def kept(replays: MemoryReplays) -> int:
    return sum(len(each.kept) for each in replays._keys.values())


def test_the_second_use_of_a_proof_is_refused() -> None:
    replays = MemoryReplays(clock=FrozenClock(0))

    assert [first(replays, "a", 1, 300) for _ in range(3)] == [True, False, False]
    assert first(replays, "a", 2, 300)


proofs = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 40), st.integers(1, 20)), max_size=200
)


@given(proofs, st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=5 * settings().max_examples)
def test_no_proof_is_accepted_twice(
    uses: list[tuple[str, int, int]], limit: int, limit_of_one: int
) -> None:
    clock = FrozenClock(0)
    replays = MemoryReplays(limit=limit, limit_of_one=limit_of_one, clock=clock)
    accepted: set[tuple[str, int]] = set()

    async def run() -> None:
        for key, number, _ in uses:
            # As a proof has it: one time of issue for one id.
            until = float(number % 20 + 1)
            if await replays.is_first(key, str(number).encode(), until):
                assert (key, number) not in accepted
                accepted.add((key, number))
            assert kept(replays) <= limit + 1

    asyncio.run(run())


def test_a_hundred_times_the_limit_takes_bounded_memory() -> None:
    replays = MemoryReplays(limit=200, limit_of_one=100, clock=FrozenClock(0))

    async def run() -> int:
        most = 0
        for number in range(20_000):
            await replays.is_first(f"k{number % 1_000}", number.to_bytes(8, "big"), number)
            most = max(most, replays._count)
        return most

    assert asyncio.run(run()) <= 201
    assert kept(replays) <= 201
    assert len(replays._keys) <= 201


def test_a_key_with_many_proofs_leaves_another_its_window() -> None:
    replays = MemoryReplays(limit=100, limit_of_one=60, clock=FrozenClock(0))
    assert first(replays, "quiet", 1, 10)

    for number in range(500):
        first(replays, f"loud {number % 3}", number, 600)

    assert not first(replays, "quiet", 1, 10)
    assert first(replays, "quiet", 2, 10)


def test_keys_without_live_proofs_are_dropped_first() -> None:
    clock = FrozenClock(0)
    replays = MemoryReplays(limit=4, clock=clock)
    for number in range(4):
        first(replays, f"old {number}", number, 10)
    clock.advance(20)

    assert first(replays, "new", 9, 30)
    assert [*replays._keys] == ["new"]


def test_one_of_many_threads_is_the_first() -> None:
    replays = MemoryReplays()
    start, results = threading.Barrier(8), []

    def use() -> None:
        start.wait()
        results.append(first(replays, "a", 1, 300))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(results) == [False] * 7 + [True]


@pytest.mark.parametrize(("limit", "limit_of_one"), [(1, 9), (9, 0)])
def test_a_limit_of_less_than_two_is_refused(limit: int, limit_of_one: int) -> None:
    with pytest.raises(ValueError, match="write 2 or more"):
        MemoryReplays(limit=limit, limit_of_one=limit_of_one)


def test_the_representation_names_the_limit() -> None:
    assert repr(MemoryReplays(limit=7)) == "<MemoryReplays: at most 7 proofs>"


def test_a_nonce_is_accepted_for_one_period_more() -> None:
    clock = FrozenClock(1_000)
    nonces = Nonces(b"s" * 32, 100, clock)
    nonce = nonces.current

    assert nonces.accepts(nonce)
    clock.advance(199)
    assert nonces.accepts(nonce)
    assert nonces.current != nonce
    clock.advance(1)
    assert not nonces.accepts(nonce)


@given(st.text() | st.none())
def test_an_invented_nonce_is_refused(nonce: str | None) -> None:
    assert not Nonces(b"s" * 32, 100, lambda: 1_000).accepts(nonce)


def test_replicas_with_one_secret_share_their_nonces() -> None:
    one, other = (Nonces(b"s" * 32, 100, lambda: 1_000) for _ in range(2))

    assert other.accepts(one.current)
    assert not Nonces(b"t" * 32, 100, lambda: 1_000).accepts(one.current)
