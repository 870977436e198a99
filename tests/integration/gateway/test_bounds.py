"""How much does a gateway read of a server that sends without an end, and who notices?"""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from starlette.responses import Response, StreamingResponse

from support.gateways import RULES, TESTS, gateway, write_rules
from support.scripted_upstream import ScriptedUpstream, events, text
from support.wire import Caller
from toolguard.gateway.configuration import read_configuration
from toolguard.gateway.session import Session, UpstreamError
from toolguard.parts.bounded import MOST_BYTES
from toolguard.testing import LocalIssuer, Loopback

MEBIBYTE = 1024 * 1024
TOO_LONG = "sends more than 16 MiB in one message: ask it for less at once"
SSE = "text/event-stream"

Serving = Callable[..., Caller]


@pytest.fixture
def serving(
    upstream: ScriptedUpstream, signing: LocalIssuer, patient: httpx.Client, tmp_path: Path
) -> Iterator[Serving]:
    """Serve a gateway before the upstream, once; return what makes its callers."""
    with Loopback(upstream.app) as behind, Loopback() as loopback:
        path = write_rules(tmp_path, signing.issuer, RULES, url=f'"{behind.url}/mcp"')
        loopback.start(gateway(path))
        yield partial(caller_of, loopback, signing, patient)


def caller_of(
    loopback: Loopback, signing: LocalIssuer, client: httpx.Client, user: str = "alice"
) -> Caller:
    token = signing.mint(user, scopes=["time.read"])
    made = Caller(client, f"{loopback.url}/mcp", token=token)
    assert made.open().status == 200
    return made


async def endless(chunk: bytes) -> AsyncIterator[bytes]:
    """Yield four times what may be read, in large chunks, until the reader stops."""
    for _ in range(64):
        yield chunk * (MEBIBYTE // len(chunk))


def streamed(chunk: bytes, kind: str, status: int = 200, **headers: str) -> Response:
    return StreamingResponse(endless(chunk), status, headers, media_type=kind)


HOSTILE: dict[str, Callable[[], Response]] = {
    "a body": lambda: streamed(b" ", "application/json"),
    "one line": lambda: streamed(b"data: 5", SSE),
    "lines of one event": lambda: streamed(b"data: 5\n", SSE),
    "lines with CR LF": lambda: streamed(b"data: 5\r\n", SSE),
    "a redirect": lambda: streamed(b"\n\n", SSE, 307, location="/mcp"),
}


@pytest.mark.parametrize("hostile", [*HOSTILE])
def test_an_answer_without_an_end_ends_one_session(
    serving: Serving, upstream: ScriptedUpstream, hostile: str
) -> None:
    alice, bob = serving("alice"), serving("bob")
    assert [each.call("hour").value for each in (alice, bob)] == ["served"] * 2
    begun = len(upstream.sent("initialize"))
    upstream.answers["tools/call"] = lambda _: HOSTILE[hostile]()

    reply = alice.call("hour")
    upstream.answers.clear()

    assert reply.is_error
    assert TOO_LONG in reply.content
    assert bob.call("hour").value == "served"
    assert len(upstream.sent("initialize")) == begun
    assert alice.call("hour").value == "served"


def test_a_compressed_answer_is_not_read(serving: Serving, upstream: ScriptedUpstream) -> None:
    alice = serving()
    bomb = gzip.compress(b" " * 64 * MEBIBYTE)
    upstream.answers["tools/call"] = lambda _: Response(
        bomb, headers={"content-encoding": "gzip"}, media_type="application/json"
    )

    reply = alice.call("hour")
    upstream.answers.clear()

    assert "sends compressed answers, which are not accepted: turn that off there" in reply.content
    assert alice.call("hour").value == "served"
    assert {headers["accept-encoding"] for headers, _ in upstream.requests} == {"identity"}


@pytest.mark.parametrize("kind", ["JSON", "an event"])
def test_a_large_answer_passes(serving: Serving, upstream: ScriptedUpstream, kind: str) -> None:
    alice = serving()
    large = text("x" * 3 * MEBIBYTE)
    upstream.answers["tools/call"] = lambda sent: (
        large if kind == "JSON" else events({"jsonrpc": "2.0", "id": sent["id"], "result": large})
    )

    assert len(alice.call("hour").value) == 3 * MEBIBYTE


def test_a_stream_of_many_events_passes(serving: Serving, upstream: ScriptedUpstream) -> None:
    alice = serving()
    ignored = {"jsonrpc": "2.0", "method": "notifications/message"}
    passed = {**ignored, "params": {"level": "info", "data": "x"}}
    # More in all than one message may have.
    filled = {**ignored, "params": {"level": "info", "data": 5, "_meta": {"x": "x" * MEBIBYTE}}}
    upstream.answers["tools/call"] = lambda sent: events(
        *[filled] * (MOST_BYTES // MEBIBYTE + 2),
        passed,
        {"jsonrpc": "2.0", "id": sent["id"], "result": text("served")},
    )

    assert alice.call("hour").value == "served"


def test_other_callers_are_served_meanwhile(serving: Serving, upstream: ScriptedUpstream) -> None:
    alice, bob = serving("alice"), serving("bob")
    going_on = threading.Event()

    async def held() -> AsyncIterator[bytes]:
        yield b" " * MEBIBYTE
        await anyio.to_thread.run_sync(going_on.wait, 20)
        async for chunk in endless(b" "):
            yield chunk

    upstream.answers["tools/call"] = lambda _: StreamingResponse(
        held(), media_type="application/json"
    )
    with ThreadPoolExecutor(1) as other:
        flooded = other.submit(alice.call, "hour")
        assert upstream.called.wait(20)
        upstream.answers.clear()
        served = bob.call("hour").value
        going_on.set()

    assert served == "served"
    assert TOO_LONG in flooded.result().content
    assert alice.call("hour").value == "served"


def test_a_greeting_without_an_end_is_said_at_start(
    upstream: ScriptedUpstream, signing: LocalIssuer, tmp_path: Path
) -> None:
    upstream.answers["initialize"] = lambda _: HOSTILE["a body"]()
    with Loopback(upstream.app) as behind:
        path = write_rules(tmp_path, signing.issuer, RULES, url=f'"{behind.url}/mcp"')

        with pytest.raises(UpstreamError, match=TOO_LONG):
            gateway(path)


@pytest.mark.parametrize("chunk", [b"\n\n", b""], ids=["without an end", "never"])
def test_a_session_ends_whatever_the_upstream_answers_to_its_end(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: bytes
) -> None:
    async def answer(_: dict[str, Any]) -> Response:
        if not chunk:
            await anyio.sleep_forever()
        return streamed(chunk, SSE)

    upstream.answers["DELETE"] = answer
    if not chunk:
        monkeypatch.setattr("toolguard.gateway.session._LEAVE_WITHIN", 0.1)

    async def run(path: Path) -> None:
        session = Session(read_configuration(path, {}).upstream)
        async with anyio.create_task_group() as group:
            group.start_soon(session.run)
            await session.began()
            session.close()

    with Loopback(upstream.app) as behind:
        path = write_rules(tmp_path, behind.url, RULES, url=f'"{behind.url}/mcp"')
        anyio.run(run, path)

    assert upstream.left.is_set()


# --- over stdio


@pytest.fixture(scope="module")
def flooding(
    signing: LocalIssuer, patient: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """Serve a gateway before a process that floods; return what makes its callers."""
    path = write_rules(tmp_path_factory.mktemp("gateway"), signing.issuer, RULES)
    command = [sys.executable, str(TESTS / "support" / "flooding_server.py")]
    with Loopback(gateway(path, command=command)) as loopback:
        yield partial(caller_of, loopback, signing, patient)


@pytest.mark.parametrize("folder", ["endless", "long"])
def test_a_line_without_an_end_ends_one_session(flooding: Serving, folder: str) -> None:
    alice, bob = flooding("alice"), flooding("bob")
    assert bob.call("hour").value == "served"

    with ThreadPoolExecutor(1) as other:
        flooded = other.submit(alice.call, "hour", {"folder": folder})
        served = [bob.call("hour").value for _ in range(10)]

    assert TOO_LONG in flooded.result().content
    assert served == ["served"] * 10
    assert alice.call("hour").value == "served"


def test_a_large_line_passes(flooding: Serving) -> None:
    assert len(flooding().call("hour", {"folder": "large"}).value) == 3 * MEBIBYTE
