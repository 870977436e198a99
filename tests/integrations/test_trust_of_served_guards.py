"""What does a guard trust that is served for real while tests call through it?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import anyio
import httpx
import pytest
from lines import LEGACY_PROTOCOLS, Guarding, Line, Serve, Server
from wire import Caller

from toolguard import ToolGuard, requires_auth
from toolguard.frameworks import adapter_for
from toolguard.testing import Answer, LocalIssuer, call_as, call_as_async
from toolguard.testing.fixtures import Rewire
from toolguard.testing.trust import issuer_for

pytest_plugins = ["toolguard.testing.fixtures"]

_WAIT = 10


class Gate:
    """Holds calls inside of the tool ``held`` until they are let go."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def held(self, call: Callable[[], Answer]) -> Iterator[Future[Answer]]:
        """Make a call that has entered the tool, and let it go in the end."""
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(call)
            try:
                assert self.inside.wait(_WAIT)
                yield answer
            finally:
                self.go_on.set()


def server_with(line: Line, gate: Gate) -> Server:
    server = line.server("held")

    @server.tool()
    @requires_auth
    async def held(*, user_id: str) -> str:
        gate.inside.set()
        await anyio.to_thread.run_sync(gate.go_on.wait, _WAIT)
        return user_id

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        return user_id

    return server


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(line: Line, guarding: Guarding, gate: Gate) -> Server:
    return guarding().protect(server_with(line, gate))


@pytest.fixture
def own(server: Server) -> ToolGuard:
    guard = adapter_for(server).guard
    assert guard is not None
    return guard


Statuses = Callable[[], list[int]]


@pytest.fixture
def statuses(
    line: Line, server: Server, own: ToolGuard, serve: Serve, http: httpx.Client
) -> Statuses:
    """Call the served server with a real token, and with one of the test kit's own issuer."""
    from conftest import LocalIssuer as _  # noqa: F401, PLC0415

    url = serve(line.http_app(server, stateless=True, json=True))
    tokens = [issuer_token(own), issuer_for(own).mint("mallory")]

    def ask() -> list[int]:
        callers = [Caller(http, f"{url}/mcp", LEGACY_PROTOCOLS[-1], token=each) for each in tokens]
        return [each.call("whoami").status for each in callers]

    return ask
