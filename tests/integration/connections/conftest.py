"""A real Redis, for the tests of the cache that replicas share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.redis_server import Intruder, RedisServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def inside(running: RedisServer) -> Iterator[Intruder]:
    with Intruder(running) as intruder:
        yield intruder


@pytest.fixture
def url(running: RedisServer, inside: Intruder) -> str:
    return running.url
