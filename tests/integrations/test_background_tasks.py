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
            return f"{line} by {user_id} with {connection_token.upper()}"

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
    assert alice.run("share", line="dear") == "dear by alice with GOOGLE-CALENDAR TOKEN OF ALICE"
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


def test_a_task_of_an_allowed_caller_is_stored_without_the_token(
    diary: Callable[..., Diary], visiting: Visiting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    book = diary()
    alice = visiting(book.server, "alice", "diary.write")

    alice.run("share", line="dear diary")
    stored = alice.caller.call("stored").value

    assert alice.caller.token is not None
    assert "dear diary" in stored  # the arguments are stored, so the dump shows what is there
    for secret in (alice.caller.token, "google-calendar token"):
        assert secret not in stored
        assert secret not in caplog.text


def test_an_argument_never_stands_in_for_what_is_injected(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    book = diary()
    alice = visiting(book.server, "alice", "diary.write")
    forged = {"line": "dear", "user_id": "bob", "connection_token": "forged"}

    reply = alice.ask("share", **forged)

    said = reply.content if reply.is_error else alice.outcome(task_id(reply))
    assert "by bob" not in said
    assert "FORGED" not in said


def test_a_plain_call_of_a_task_tool_is_decided_once(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, asked = server_with_tasks(), list[str]()

    def check(principal: Principal, call: Invocation) -> bool:
        asked.append(f"{call.name} by {principal.user_id}")
        return True

    @server.tool(task=True)
    @requires(check)
    async def tool() -> str:
        return "done"

    guarding().protect(server)
    alice = visiting(server)

    assert alice.run("tool") == "done"
    assert asked == ["tool by alice"] * 2  # when it is queued, and when it runs
    asked.clear()
    alice.caller.capabilities = {}
    assert alice.caller.call("tool").value == "done"
    assert asked == ["tool by alice"]


def test_a_task_is_decided_on_again_when_it_runs(guarding: Guarding, visiting: Visiting) -> None:
    server, answers, ran = server_with_tasks(), [True, False], list[str]()

    @server.tool(task=True)
    @requires(lambda principal, call: answers.pop(0))
    async def tool() -> str:
        ran.append("tool")
        return "done"

    guarding().protect(server)
    alice = visiting(server)

    assert "access_denied" in alice.run("tool")
    assert ran == []
    assert answers == []


def test_a_rule_that_reads_arguments_reads_what_the_task_is_given(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, read = server_with_tasks(), list[Any]()

    def check(_: Principal, call: Invocation) -> bool:
        read.append((call.arguments["book"], call.arguments["page"]))
        return call.arguments["book"] == 7

    @server.tool(task=True)
    @requires_scopes("books.{shelf}")
    @requires(check)
    async def tool(shelf: str, book: int, page: int = 1) -> str:
        return f"{shelf} {book} {page}"

    guarding().protect(server)
    alice = visiting(server, "alice", "books.law")

    assert alice.run("tool", shelf="law", book="7") == "law 7 1"
    assert read == [(7, 1)] * 2
    assert alice.ask("tool", shelf="art", book=7).refusal["missing_scopes"] == ["books.art"]
    assert alice.ask("tool", shelf="law", book=8).is_error
    assert alice.ask("tool", shelf="law", book="no number").is_error
    assert read == [(7, 1)] * 2 + [(7, 1), (8, 1)]


# --- by name, mounted, renamed


def undecorated(server: Any, name: str) -> None:
    @server.tool(name, task=True)
    async def tool() -> str:
        return f"ran {name}"


@pytest.mark.parametrize("pattern", ["delete_*", "*", "tag:admin"])
def test_a_rule_by_name_holds_for_tasks(
    guarding: Guarding, visiting: Visiting, pattern: str
) -> None:
    server = server_with_tasks()

    @server.tool("delete_all", task=True, tags={"admin"})
    async def tool() -> str:
        return "deleted"

    guarding().protect(server, rules={pattern: requires_scopes("admin")})

    assert visiting(server).ask("delete_all").refusal["missing_scopes"] == ["admin"]
    assert visiting(server, "root", "admin").run("delete_all") == "deleted"


@pytest.mark.parametrize(
    ("name", "is_protected"), [("inner_delete", False), ("delete", False), ("inner_delete", True)]
)
def test_a_rule_by_any_name_holds_for_tasks_of_mounted_servers(
    guarding: Guarding, visiting: Visiting, name: str, is_protected: bool
) -> None:
    server, inner = server_with_tasks(), server_with_tasks("inner")
    undecorated(inner, "delete")
    if is_protected:
        guarding(default="deny").protect(inner, rules={"*": requires_scopes("inner")})
    server.mount(inner, "inner")
    guarding().protect(server, rules={name: requires_scopes("admin")})

    def refused(*scopes: str) -> Any:
        return visiting(server, "alice", *scopes).ask("inner_delete").refusal["missing_scopes"]

    assert refused("inner") == ["admin"]
    if is_protected:
        assert refused("admin") == ["inner"]
    assert visiting(server, "root", "admin", "inner").run("inner_delete") == "ran delete"


def test_by_default_deny_a_tool_without_a_rule_runs_no_task(
    guarding: Guarding, visiting: Visiting
) -> None:
    server = server_with_tasks()
    undecorated(server, "tool")
    guarding(default="deny", denials="http").protect(server)

    assert visiting(server).ask("tool").status == 403


def test_a_public_tool_runs_as_the_task_of_a_stranger(
    guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    assert TASK_LINE is not None
    server, ran = server_with_tasks(), threading.Event()

    @server.tool(task=True)
    @public
    async def tool(*, user_id: str | None) -> str:
        ran.set()
        return f"for {user_id}"

    guarding(default="public").protect(server)
    stranger = Tasked.at(http, serve(TASK_LINE.http_app(server)), None)

    assert stranger.run("tool") == "for None"


def test_a_tool_made_of_another_runs_as_a_task_under_its_guard(
    guarding: Guarding, visiting: Visiting
) -> None:
    from fastmcp.tools import Tool  # noqa: PLC0415 - there is one where this test runs
    from fastmcp.utilities.tasks import TaskConfig  # noqa: PLC0415

    server = server_with_tasks()

    @requires_scopes("diary.write")
    async def write(line: str, *, user_id: str) -> str:
        return f"{line} by {user_id}"

    made: Any = Tool.from_tool(Tool.from_function(write), name="renamed")
    made.task_config = TaskConfig(mode="optional")
    server.add_tool(made)
    guarding().protect(server)

    assert visiting(server).ask("renamed", line="x").refusal["missing_scopes"] == ["diary.write"]
    assert visiting(server, "alice", "diary.write").run("renamed", line="x") == "x by alice"
