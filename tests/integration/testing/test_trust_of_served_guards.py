"""What does a guard trust that is served for real while tests call through it?"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import anyio
import httpx
import pytest

from support.lines import LEGACY_PROTOCOLS, Line, Serve, Server
from support.wire import Caller
from toolguard import ToolGuard, requires_auth
from toolguard.testing import (
    LocalIssuer,
    ServerAnswer,
    assert_no_leaks,
    call_as,
    call_as_async,
    verify_scope_matrix,
)
from toolguard.testing.trust import issuer_for
from toolguard.testing.wiring import Wiring, enter

_WAIT = 10
OWN = LocalIssuer(algorithm="ES256")


class Gate:
    """Holds calls inside of the tool ``held`` until they are let go."""

    def __init__(self) -> None:
        self.inside, self.go_on = threading.Event(), threading.Event()

    @contextmanager
    def held(self, call: Callable[[], ServerAnswer]) -> Iterator[Future[ServerAnswer]]:
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
def own() -> ToolGuard:
    return ToolGuard(verifier=OWN.verifier(), audience=OWN.audience)


@pytest.fixture
def server(line: Line, own: ToolGuard, gate: Gate) -> Server:
    return own.protect(server_with(line, gate))


Statuses = Callable[[], tuple[int, int]]


@pytest.fixture
def statuses(
    line: Line, server: Server, own: ToolGuard, serve: Serve, http: httpx.Client
) -> Statuses:
    """Call the served server with a real token, and with one of the test kit's own issuer."""
    endpoint = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
    tests = issuer_for(own)

    def status(issuer: LocalIssuer) -> int:
        token = issuer.mint("mallory")
        return Caller(http, endpoint, LEGACY_PROTOCOLS[-1], token=token).call("whoami").status

    return lambda: (status(OWN), status(tests))


def test_a_test_token_is_refused_while_a_test_calls(
    server: Server, gate: Gate, statuses: Statuses
) -> None:
    assert statuses() == (200, 401)
    with gate.held(lambda: call_as(server, "held", user="alice")) as answer:
        assert statuses() == (200, 401)

    assert answer.result().text == "alice"
    assert statuses() == (200, 401)


def test_a_test_token_is_refused_while_a_loop_awaits_calls(
    server: Server, gate: Gate, statuses: Statuses
) -> None:
    seen: dict[str, object] = {}

    async def call(user: str) -> None:
        seen[user] = (await call_as_async(server, "held", user=user)).text

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for user in ("alice", "bob"):
                group.start_soon(call, user)
            await anyio.to_thread.run_sync(gate.inside.wait, _WAIT)
            seen["served"] = await anyio.to_thread.run_sync(statuses)
            gate.go_on.set()

    anyio.run(main)
    assert seen == {"alice": "alice", "bob": "bob", "served": (200, 401)}
    assert statuses() == (200, 401)


@pytest.mark.parametrize("first", ["the call", "the wiring"])
def test_a_wiring_that_overlaps_a_call_leaves_nothing_behind(
    server: Server, own: ToolGuard, gate: Gate, statuses: Statuses, first: str
) -> None:
    other = LocalIssuer(algorithm="ES256")
    wiring = Wiring(own, verifier=other.verifier())

    with gate.held(lambda: call_as(server, "held")) as answer:
        enter(wiring)
        assert call_as(server, "whoami", token=other.mint("bob")).text == "bob"
        assert statuses() == (200, 401)
        wiring.ended = first == "the wiring"
    assert answer.result().ok
    wiring.ended = True

    assert call_as(server, "whoami", token=other.mint("bob")).status == 401
    assert call_as(server, "whoami", token=OWN.mint("bob")).text == "bob"
    assert statuses() == (200, 401)


def test_matrix_and_leak_search_leave_a_served_guard_alone(
    server: Server, own: ToolGuard, gate: Gate, statuses: Statuses
) -> None:
    gate.go_on.set()
    verifier = own.verifier

    verify_scope_matrix(server)
    assert_no_leaks(server)

    assert statuses() == (200, 401)
    assert own.verifier is verifier


def test_a_loopback_that_a_test_starts_has_the_wiring_of_the_test(
    line: Line, server: Server, own: ToolGuard, serve: Serve, http: httpx.Client
) -> None:
    other = LocalIssuer(algorithm="ES256")
    wiring = Wiring(own, verifier=other.verifier())
    enter(wiring)
    endpoint = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
    caller = Caller(http, endpoint, token=other.mint("bob"))

    assert caller.call("whoami").value == "bob"
    wiring.ended = True
    assert caller.call("whoami").status == 401
