"""Who starts a background task of fastmcp, as whom does it run, and whose is its result?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import httpx
import pytest
from lines import Guarding, Serve
from own_auth import Issued, authenticated
from task_servers import METHODS, TASK_LINE, Tasked, server_with_tasks, store_of, task_id

from toolguard import (
    Invocation,
    Principal,
    ToolGuard,
    public,
    requires,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.testing import FrozenClock, LocalIssuer

pytestmark = pytest.mark.skipif(TASK_LINE is None, reason="this fastmcp has no background tasks")

LEGACY = TASK_LINE is not None and not TASK_LINE.modern
Visiting = Callable[..., Tasked]


@pytest.fixture
def visiting(serve: Serve, http: httpx.Client, issuer: LocalIssuer) -> Visiting:
    """Serve a protected server; make clients of it that ask for tasks."""
    assert TASK_LINE is not None
    line = TASK_LINE
    urls: dict[int, str] = {}

    def client(server: Any, user: str | None = "alice", *scopes: str, **claims: Any) -> Tasked:
        if id(server) not in urls:
            urls[id(server)] = serve(line.http_app(server))
        token = issuer.mint(user, scopes=scopes, **claims)
        return Tasked.at(http, urls[id(server)], token)

    return client


class Diary:
    """A server with a few tools, and what they were called with."""

    def __init__(self, **settings: Any) -> None:
        self.server = server_with_tasks(**settings)
        self.written: list[str] = []
        self.gate = threading.Event()
        server = self.server

        @server.tool(task=True)
        @requires_scopes("diary.write")
        async def write(line: str, *, user_id: str) -> str:
            self.written.append(line)
            return f"{line} by {user_id}"

        @server.tool(task=True)
        @requires_scopes("diary.write")
        @with_connection("google-calendar")
        async def share(line: str, *, user_id: str, connection_token: str) -> str:
            return f"{line} by {user_id} with {connection_token}"

        @server.tool(task=True)
        @requires_scopes("diary.write")
        async def wait() -> str:
            await anyio.to_thread.run_sync(self.gate.wait, 20)
            return "waited"

        @server.tool(task=True)
        @requires_auth
        async def wait_and_call(name: str) -> str:
            await anyio.to_thread.run_sync(self.gate.wait, 20)
            return str((await {"helper": helper, "sharing": sharing}[name]()))

        @server.tool(task=True)
        async def plain(line: str) -> str:
            self.written.append(line)
            return line

        @server.tool()
        @public
        async def stored() -> str:
            return await store_of(server)


@requires_auth
async def helper(*, user_id: str) -> str:
    return f"helped {user_id}"


@with_connection("google-calendar")
async def sharing(*, connection_token: str) -> str:
    return connection_token


@pytest.fixture
def diary(guarding: Guarding) -> Iterator[Callable[..., Diary]]:
    """Make protected diaries; settings are those of ToolGuard."""
    made: list[Diary] = []

    def make(*, at_once: int = 10, **settings: Any) -> Diary:
        made.append(Diary(at_once=at_once))
        guarding(**settings).protect(made[-1].server)
        return made[-1]

    yield make
    for each in made:
        each.gate.set()


# --- as whom does it run?


def test_a_task_runs_as_the_caller_who_started_it(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    alice = visiting(diary().server, "alice", "diary.write")

    assert alice.run("write", line="dear diary") == "dear diary by alice"
    assert alice.run("share", line="dear") == "dear by alice with google-calendar token of alice"
    assert alice.run("plain", line="plain") == "plain"


def test_a_task_of_a_caller_who_lacks_a_scope_is_not_queued(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    book = diary()
    weak = visiting(book.server, "weak", "diary.read")
    alice = visiting(book.server, "alice", "diary.write")

    reply = weak.ask("write", line="from weak")
    stored = alice.caller.call("stored").value
    alice.run("write", line="from alice")

    assert reply.status == 403
    assert reply.refusal["missing_scopes"] == ["diary.write"]
    assert "weak" not in stored
    assert book.written == ["from alice"]
