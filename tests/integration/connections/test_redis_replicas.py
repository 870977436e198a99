"""What do several machines share, and what if their Redis goes away, or is none?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from urllib.parse import urlsplit

import pytest

from support.keeping import Gate, Upstream, asked, cached, fetched, settle
from support.redis_server import Intruder, RedisServer, cache_at, used
from toolguard.connections import Connection
from toolguard.errors import ConnectionUnavailableError
from toolguard.testing import FrozenClock

ALICE = asked(access_token="alices-secret-token")
CONNECTION = Connection("ya29.secret", "Bearer", ("read", "write"), 1_000_040.5)
NOWHERE = "redis://127.0.0.1:1/0"


class Napping:
    """Sleeps for no time, and does what the test wants done meanwhile."""

    def __init__(self, meanwhile: Callable[[int], Awaitable[None]] | None = None) -> None:
        self.naps: list[float] = []
        self._meanwhile = meanwhile

    async def __call__(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)
        if self._meanwhile is not None:
            await self._meanwhile(len(self.naps))


def test_a_thousand_calls_on_four_machines_make_one_request(url: str) -> None:
    upstream = Upstream()
    caches = [cache_at(url) for _ in range(4)]
    machines = [cached(upstream, cache=cache, namespace="vault", local_age=0) for cache in caches]

    async def calls() -> list[str]:
        gate = upstream.gate = Gate()
        waiting = [
            asyncio.ensure_future(fetched(machine, ALICE))
            for machine in machines
            for _ in range(250)
        ]
        await gate.reached.wait()
        gate.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(used(*caches, by=calls())) == ["alice-1"] * 1_000
    assert len(upstream.asked) == 1


def test_a_machine_that_waits_is_given_what_another_brings(url: str) -> None:
    first = cache_at(url)

    async def bring(nap: int) -> None:
        if nap == 3:
            await first.put("key", CONNECTION, 60)

    naps = Napping(bring)
    second = cache_at(url, sleep=naps)

    async def both() -> list[Connection | None]:
        return [await first.claim("key"), await second.claim("key")]

    assert asyncio.run(used(first, second, by=both())) == [None, CONNECTION]
    assert naps.naps == [0.02, 0.04, 0.08]


def test_a_machine_that_fails_leaves_the_next_one_to_try(url: str) -> None:
    first = cache_at(url)

    async def give_up(nap: int) -> None:
        if nap == 2:
            await first.drop("key")

    naps = Napping(give_up)
    second = cache_at(url, sleep=naps)

    async def both() -> list[Connection | None]:
        return [await first.claim("key"), await second.claim("key")]

    assert asyncio.run(used(first, second, by=both())) == [None, None]
    assert len(naps.naps) == 2


def test_a_machine_that_has_waited_long_enough_looks_once_more(url: str) -> None:
    first = cache_at(url)

    async def bring(nap: int) -> None:
        if nap == 7:
            await first.put("key", CONNECTION, 60)

    second = cache_at(url, sleep=Napping(bring))

    async def both() -> list[Connection | None]:
        return [await first.claim("key"), await second.claim("key")]

    assert asyncio.run(used(first, second, by=both())) == [None, CONNECTION]


def test_waiting_for_a_dead_machine_ends_after_1_5_s(url: str, inside: Intruder) -> None:
    naps = Napping()
    first, second = cache_at(url), cache_at(url, sleep=naps)

    async def both() -> list[Connection | None]:
        return [await first.claim("key"), await second.claim("key")]

    assert asyncio.run(used(first, second, by=both())) == [None, None]
    assert sum(naps.naps) == pytest.approx(1.5)
    (claim,) = inside.names()
    assert 0 < inside.milliseconds(claim) <= 2_000


def test_a_claim_that_comes_too_late_finds_what_was_brought(url: str) -> None:
    naps = Napping()
    cache = cache_at(url, sleep=naps)

    async def late() -> list[Connection | None]:
        await cache.put("key", CONNECTION, 60)
        return [await cache.claim("key"), await cache.claim("key")]

    assert asyncio.run(used(cache, by=late())) == [CONNECTION, CONNECTION]
    assert naps.naps == []


def test_what_is_at_hand_is_not_claimed(url: str, inside: Intruder) -> None:
    cache = cache_at(url)
    connections = cached(Upstream(), cache=cache, namespace="vault", local_age=0)

    async def twice() -> list[str]:
        return [await fetched(connections, ALICE) for _ in range(2)]

    assert asyncio.run(used(cache, by=twice())) == ["alice-1", "alice-1"]
    assert len(inside.names()) == 1


def test_claims_on_different_entries_do_not_wait_for_each_other(url: str) -> None:
    naps = Napping()
    cache = cache_at(url, sleep=naps)

    async def both() -> None:
        await asyncio.gather(cache.claim("alice"), cache.claim("bob"))

    asyncio.run(used(cache, by=both()))

    assert naps.naps == []


def test_a_failed_request_ends_the_claim_at_once(url: str, inside: Intruder) -> None:
    cache, upstream = cache_at(url), Upstream()
    upstream.failure = ConnectionUnavailableError("Try again", connection="google-calendar")
    connections = cached(upstream, cache=cache, namespace="vault", local_age=0)

    outcome = asyncio.run(used(cache, by=fetched(connections, ALICE)))

    assert outcome == "ConnectionUnavailableError"
    assert inside.names() == []


def test_a_fresh_connection_takes_the_place_of_the_kept_one_on_every_machine(url: str) -> None:
    upstream = Upstream()
    caches = [cache_at(url), cache_at(url)]
    one, other = (cached(upstream, cache=cache, namespace="vault", local_age=0) for cache in caches)
    fresh = asked(access_token=ALICE.access_token, fresh=True)

    async def calls() -> list[str]:
        return [
            await fetched(machine, request)
            for machine, request in ((one, ALICE), (other, ALICE), (other, fresh), (one, ALICE))
        ]

    assert asyncio.run(used(*caches, by=calls())) == ["alice-1", "alice-1", "alice-2", "alice-2"]


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def test_a_dead_redis_refuses_nobody_and_is_used_once_back(
    mortal: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock, upstream = FrozenClock(), Upstream()
    cache = cache_at(mortal.url, clock=clock)
    connections = cached(upstream, cache=cache, namespace="vault", local_age=0)

    async def calls() -> list[str]:
        got = [await fetched(connections, ALICE), await fetched(connections, ALICE)]
        mortal.kill()
        got += [await fetched(connections, ALICE), await fetched(connections, ALICE)]
        await asyncio.to_thread(mortal.start)
        got.append(await fetched(connections, ALICE))
        clock.advance(1)
        return [*got, await fetched(connections, ALICE), await fetched(connections, ALICE)]

    assert asyncio.run(used(cache, by=calls())) == [
        "alice-1",
        "alice-1",
        "alice-2",
        "alice-3",
        # For a second it is left alone.
        "alice-4",
        "alice-5",
        "alice-5",
    ]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "Redis is unavailable (ConnectionError): bypassing the cache"
    ]


def test_an_outage_of_redis_makes_one_vault_request_for_each_user(mortal: RedisServer) -> None:
    clock, upstream = FrozenClock(), Upstream()
    cache = cache_at(mortal.url, clock=clock)
    connections = cached(upstream, clock, cache=cache, namespace="vault")
    users = [asked(f"user-{n}") for n in range(200)]

    async def calls() -> int:
        await asyncio.gather(*(fetched(connections, user) for user in users))
        mortal.kill()
        for _ in range(30):
            clock.advance(0.3)
            await asyncio.gather(*(fetched(connections, user) for user in users))
        return len(upstream.asked)

    # Once while it serves; and in nine seconds without it, once when five have passed.
    assert asyncio.run(used(cache, by=calls())) <= 400 + 200


def test_a_thousand_users_at_once_are_no_outage_of_redis(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = Upstream()
    caches = [cache_at(url), cache_at(url)]
    one, other = (cached(upstream, cache=cache, namespace="vault", local_age=0) for cache in caches)
    users = [asked(f"user-{n}") for n in range(1_000)]

    async def calls() -> list[str]:
        for machine in (one, other):
            found = await asyncio.gather(*(fetched(machine, user) for user in users))
        return found

    found = asyncio.run(used(*caches, by=calls()))

    assert caplog.messages == []
    assert len(upstream.asked) == 1_000
    assert {token.rpartition("-")[0] for token in found} == {f"user-{n}" for n in range(1_000)}


@contextlib.asynccontextmanager
async def far_away(url: str, seconds: float) -> AsyncIterator[str]:
    """A Redis whose answers take a while."""
    address = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near_reader, near_writer = await asyncio.open_connection(address.hostname, address.port)
        with contextlib.suppress(ConnectionError):
            while commands := await reader.read(65_536):
                near_writer.write(commands)
                answers = await near_reader.read(65_536)
                await asyncio.sleep(seconds)  # the length of the way
                writer.write(answers)
                await writer.drain()
        near_writer.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


def test_a_queue_for_a_slow_redis_is_no_outage(url: str, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()

    async def calls() -> None:
        # The last ones wait for more than two seconds, an exchange takes a twentieth of it.
        async with far_away(url, 0.1) as slow:
            cache = cache_at(slow, timeout=2.0)
            machine = cached(upstream, cache=cache, namespace="vault", local_age=0)
            users = [asked(f"user-{n}") for n in range(500)]
            await asyncio.gather(*(fetched(machine, user) for user in users))
            await cache.aclose()
            await settle()

    asyncio.run(calls())

    assert caplog.messages == []
    assert len(upstream.asked) == 500


def test_a_redis_without_memory_keeps_nothing_older_and_is_not_given_up(
    url: str, inside: Intruder, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_at(url, clock=FrozenClock())

    async def filled() -> list[Connection | None]:
        await cache.put("key", CONNECTION, 60)
        with inside.full():
            await cache.put("key", Connection("newer"), 60)
            found = [await cache.get("key"), await cache.claim("key")]
        await cache.put("key", Connection("newest"), 60)
        return [*found, await cache.get("key")]

    assert asyncio.run(used(cache, by=filled())) == [None, None, Connection("newest")]
    assert caplog.messages == ["Redis is unavailable (OutOfMemoryError): bypassing the cache"]


def test_a_cache_that_was_not_used_can_be_closed_and_used_afterwards(url: str) -> None:
    cache = cache_at(url)

    async def closed_first() -> Connection | None:
        await cache.aclose()
        await cache.put("key", CONNECTION, 60)
        return await cache.get("key")

    assert asyncio.run(used(cache, by=closed_first())) == CONNECTION


def test_a_loop_that_was_closed_leaves_nothing_behind() -> None:
    cache = cache_at(NOWHERE, clock=FrozenClock())
    for _ in range(3):
        cache._client._resume_at = 0
        asyncio.run(cache.get("key"))

    assert len(cache._client._clients) == 1


def test_there_is_a_line_about_a_missing_redis_every_half_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FrozenClock()
    cache = cache_at(NOWHERE, clock=clock)

    async def an_hour() -> None:
        for _ in range(60):
            await cache.get("key")
            clock.advance(1)

    asyncio.run(used(cache, by=an_hour()))

    assert caplog.messages == ["Redis is unavailable (ConnectionError): bypassing the cache"] * 2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"-NOAUTH Authentication required.\r\n",
        b"-ERR ya29.secret\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"+OK\r\n",
        b"$-1\r\n",
        b"$5\r\nhello\r\n",
        b"$nonsense\r\n",
        b"$9\r\nshort\r\n",
        b":1\r\n",
        b"*-1\r\n",
        b"*1\r\n",
        b"*1\r\n*1\r\n$5\r\nhello\r\n",
        b"\x00\xff\r\n",
        b"x" * 200_000,
    ],
    ids=range(16),
)
def test_a_server_that_is_no_redis_is_a_miss(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert asyncio.run(with_server(answer)) == "alice-1"
    assert len(caplog.messages) <= 1
    assert "secret" not in caplog.text


async def with_server(answer: bytes) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while commands := await reader.read(65_536):
                writer.write(answer * (1 + commands.count(b"\r\n*")))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    cache = cache_at(f"redis://{host}:{port}/0", timeout=0.1, clock=FrozenClock(), sleep=Napping())
    connections = cached(Upstream(), cache=cache, namespace="vault", local_age=0)
    try:
        token: str = await used(cache, by=fetched(connections, ALICE))
    finally:
        server.close()
        await settle()
    return token


def test_one_cache_serves_several_event_loops(url: str) -> None:
    upstream = Upstream()
    cache = cache_at(url)
    connections = cached(upstream, cache=cache, namespace="vault", local_age=0)
    answers: list[str] = []

    async def calls() -> list[str]:
        return await asyncio.gather(*(fetched(connections, ALICE) for _ in range(50)))

    def one_loop() -> None:
        answers.extend(asyncio.run(used(cache, by=calls())))

    threads = [threading.Thread(target=one_loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert answers == ["alice-1"] * 200
    assert len(upstream.asked) == 1
