"""Is a proof accepted once by several processes, and what if their Redis is down?"""

from __future__ import annotations

import asyncio
import logging
from hashlib import sha256

import pytest

from support.redis_server import Intruder, RedisServer
from toolguard.connections.redis_replays import RedisReplays
from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock

PROOF, OTHER = (sha256(text).digest() for text in (b"a", b"b"))


def replays_at(url: str) -> RedisReplays:
    return RedisReplays(url, timeout=5.0, wall_clock=FrozenClock(1_000))


def is_first(replays: RedisReplays, proof: bytes, until: float) -> bool:
    async def use() -> bool:
        try:
            return await replays.is_first("key", proof, until)
        finally:
            await replays.aclose()

    return asyncio.run(use())


def test_a_proof_is_the_first_in_one_of_many_processes(url: str, inside: Intruder) -> None:
    async def uses() -> list[bool]:
        stores = [replays_at(url) for _ in range(4)]
        asked = [each.is_first("key", PROOF, 1_300) for each in stores for _ in range(5)]
        answers = await asyncio.gather(*asked)
        assert await stores[0].is_first("key", OTHER, 1_300)
        for each in stores:
            await each.aclose()
        return answers

    assert sorted(asyncio.run(uses())) == [False] * 19 + [True]
    name = f"toolguard:proof:{PROOF.hex()}".encode()
    assert name in inside.names()
    assert 299_000 < inside.milliseconds(name) <= 301_000


def test_an_unavailable_redis_is_an_outage_and_no_first_use(
    caplog: pytest.LogCaptureFixture,
) -> None:
    replays = RedisReplays("redis://127.0.0.1:1/0")

    with caplog.at_level(logging.WARNING), pytest.raises(KeysUnavailableError):
        is_first(replays, PROOF, 9e9)

    assert "tokens that are bound to a key are not accepted" in caplog.text


def test_a_redis_without_memory_accepts_no_proof(url: str, inside: Intruder) -> None:
    with inside.full(), pytest.raises(KeysUnavailableError):
        is_first(replays_at(url), PROOF, 1_300)


def test_a_redis_that_comes_back_is_used_again(running: RedisServer, url: str) -> None:
    monotonic = FrozenClock(0)
    replays = RedisReplays(url, timeout=5.0, clock=monotonic)
    running.kill()
    with pytest.raises(KeysUnavailableError):
        is_first(replays, PROOF, 9e9)
    running.start()
    monotonic.advance(2)

    assert is_first(replays, OTHER, 9e9)


def test_a_url_that_is_not_of_redis_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match=r"write RedisReplays\(") as caught:
        RedisReplays("http://user:secret@host")

    assert "secret" not in str(caught.value)
    assert repr(RedisReplays("redis://host", prefix="a:")) == "<RedisReplays: a:*>"
