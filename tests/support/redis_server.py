"""A real Redis on a free loopback port, without persistence, for as long as a test needs it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import redis
from typing_extensions import Self

from toolguard.connections.redis import RedisTokenCache

__all__ = ["KEY", "Intruder", "RedisServer", "cache_at", "used"]

KEY = b"k" * 32
_BINARY = "redis-server"


class RedisServer:
    """A Redis that can be stopped and started again, on the same port.

    Args:
        directory: where it runs; it writes nothing there.
    """

    def __init__(self, directory: Path) -> None:
        if shutil.which(_BINARY) is None:
            pytest.skip(f"there is no {_BINARY} on this machine: apt-get install redis-server")
        self._directory = directory
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it; return when it answers."""
        command = [_BINARY, "--port", str(self._port), "--bind", "127.0.0.1"]
        settings = ["--save", "", "--appendonly", "no", "--dir", str(self._directory)]
        self._process = subprocess.Popen([*command, *settings], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{_BINARY} did not start on port {self._port}")
            time.sleep(0.01)

    def kill(self) -> None:
        """End it at once, as a machine that loses its power."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            return False


class Intruder:
    """What somebody sees and does who has the Redis and no key. It is empty to begin with."""

    def __init__(self, server: RedisServer) -> None:
        self._client: Any = redis.Redis.from_url(server.url)

    def __enter__(self) -> Self:
        self._client.flushall()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._client.close()

    def names(self) -> list[bytes]:
        return sorted(self._client.keys())

    def read(self, name: bytes) -> bytes:
        value = self._client.get(name)
        assert isinstance(value, bytes)
        return value

    def write(self, name: bytes, value: bytes) -> None:
        self._client.set(name, value)

    def write_list(self, name: bytes) -> None:
        self._client.delete(name)
        self._client.rpush(name, "element")

    def milliseconds(self, name: bytes) -> int:
        """Return for how long it is kept."""
        return int(self._client.pttl(name))

    @contextmanager
    def full(self) -> Iterator[None]:
        """Leave no memory for a while."""
        self._client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            self._client.config_set("maxmemory", 0)

    def age(self, name: bytes) -> None:
        """Bring the time of an entry to its end."""
        self._client.pexpireat(name, 1)


def cache_at(url: str, *keys: bytes, **settings: Any) -> RedisTokenCache:
    # A busy machine is no Redis that does not answer.
    return RedisTokenCache(url, keys=keys or (KEY,), **{"timeout": 5.0, **settings})


async def used(*caches: RedisTokenCache, by: Awaitable[Any]) -> Any:
    """Return what ``by`` comes to; close the connections of the caches."""
    try:
        return await by
    finally:
        for cache in caches:
            await cache.aclose()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
