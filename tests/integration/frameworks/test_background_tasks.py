"""Who starts a background task of fastmcp, as whom does it run, and whose is its result?"""

from __future__ import annotations

import importlib
import math
import re
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import anyio
import anyio.to_thread
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.calendar_server import connect
from support.lines import Guarding, Serve
from support.own_auth import Issued, fastmcp_verifier
from support.task_servers import (
    METHODS,
    TASK_LINE,
    Tasked,
    TaskServer,
    server_with_tasks,
    store_of,
    task_id,
)
from toolguard import (
    InvalidTokenError,
    OperationCall,
    Principal,
    Refusals,
    ToolGuard,
    current_principal,
    injected,
    public,
    requires,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.calls.message import Frame, MessageContext, as_current
from toolguard.calls.request import RequestAuth, TaskExpiry
from toolguard.testing import FrozenClock, LocalIssuer, signed_in

pytestmark = pytest.mark.skipif(TASK_LINE is None, reason="this fastmcp has no background tasks")

LEGACY = TASK_LINE is not None and not TASK_LINE.modern
Visiting = Callable[..., Tasked]


in_both_modes = pytest.mark.parametrize(
    "visiting", [False, True], ids=["stateful", "stateless"], indirect=True
)
stateless = pytest.mark.parametrize("visiting", [True], ids=["stateless"], indirect=True)


@pytest.fixture
def visiting(
    request: pytest.FixtureRequest, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> Visiting:
    """Serve a protected server; make clients of it that ask for tasks."""
    is_stateless = getattr(request, "param", False)
    assert TASK_LINE is not None
    line = TASK_LINE
    urls: dict[int, str] = {}

    def client(server: Any, user: str | None = "alice", *scopes: str, **claims: Any) -> Tasked:
        if id(server) not in urls:
            urls[id(server)] = serve(line.http_app(server, stateless=is_stateless))
        token = issuer.mint(user, scopes=scopes, **claims)
        return Tasked.at(http, urls[id(server)], token)

    return client


class Diary:
    """A server with a few tools, and what they were called with."""

    def __init__(self, **settings: Any) -> None:
        self.server = server_with_tasks(**settings)
        self.written: list[str] = []
        self.started, self.gate = threading.Event(), threading.Event()
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
            self.started.set()
            await anyio.to_thread.run_sync(self.gate.wait, 20)
            helpers: dict[str, Callable[[], Awaitable[str]]] = {
                "helper": helper,
                "sharing": sharing,
            }
            return await helpers[name]()

        @server.tool(task=True)
        async def plain(line: str) -> str:
            self.written.append(line)
            return line

        @server.tool()
        @public
        async def stored() -> str:
            return await store_of(server)


@requires_auth
async def helper(*, user_id: str = injected) -> str:
    return f"helped {user_id}"


@with_connection("google-calendar")
async def sharing(*, connection_token: str = injected) -> str:
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


@in_both_modes
def test_a_task_runs_as_the_caller_who_started_it(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    alice = visiting(diary().server, "alice", "diary.write")

    assert alice.run("write", line="dear diary") == "dear diary by alice"
    assert alice.run("share", line="dear") == "dear by alice with GOOGLE-CALENDAR TOKEN OF ALICE"
    assert alice.run("plain", line="plain") == "plain"


def test_a_caller_who_lacks_a_scope_queues_no_task(
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


def test_a_task_is_stored_without_the_token(
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


def test_no_dependency_of_a_task_reads_what_a_client_sends_as_injected(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, read = server_with_tasks(), list[str | None]()
    docket: Any = importlib.import_module("docket")

    async def account(of: str | None = docket.TaskArgument("user_id", optional=True)) -> str:
        read.append(of)
        return f"account of {of}"

    @server.tool(task=True)
    @requires_auth
    async def show(account: str = docket.Depends(account), *, user_id: str) -> str:
        return f"{user_id} sees the {account}"

    guarding().protect(server)
    alice = visiting(server)

    assert alice.ask("show", user_id="victim").is_error
    assert alice.run("show") == "alice sees the account of None"
    assert read == [None]


def test_a_plain_call_of_a_task_tool_is_decided_once(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, asked = server_with_tasks(), list[str]()

    def check(principal: Principal, call: OperationCall) -> bool:
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


def test_a_dependency_of_a_task_runs_once_the_task_is_permitted(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, answers, opened = server_with_tasks(), [True, True, True, False], list[str]()
    depends: Any = importlib.import_module("fastmcp.dependencies").Depends

    async def book() -> str:
        opened.append(f"opened for {current_principal().user_id}")
        return "a book"

    @server.tool(task=True)
    @requires(lambda principal, call: answers.pop(0))
    async def write(line: str, book: str = depends(book)) -> str:
        return f"{line} in {book}"

    guarding().protect(server)
    alice = visiting(server)

    assert alice.run("write", line="dear") == "dear in a book"
    assert opened == ["opened for alice"]
    assert "access_denied" in alice.run("write", line="dear")
    assert opened == ["opened for alice"]


def test_a_rule_reads_the_arguments_that_the_task_is_given(
    guarding: Guarding, visiting: Visiting
) -> None:
    server, read = server_with_tasks(), list[Any]()

    def check(_: Principal, call: OperationCall) -> bool:
        read.append((call.arguments["book"], call.arguments["page"]))
        return bool(call.arguments["book"] == 7)

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


def undecorated(server: TaskServer, name: str) -> None:
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
def test_rules_by_any_name_hold_for_tasks_of_mounted_servers(
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


def test_by_default_deny_an_undeclared_tool_runs_no_task(
    guarding: Guarding, visiting: Visiting
) -> None:
    server = server_with_tasks()
    undecorated(server, "tool")
    guarding(default="deny", refusals=Refusals(denials="http")).protect(server)

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


def test_a_tool_made_of_another_keeps_its_guard_in_tasks(
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


# --- whose is it?


def comparable(content: str, task: str) -> str:
    """Return an answer about a task without what differs from one message to the next."""
    return re.sub(r'"id":\s*\d+', "", content.replace(task, "TASK"))


@in_both_modes
@pytest.mark.parametrize("method", [each for each in METHODS if each != "tasks/list"])
@pytest.mark.parametrize(
    ("subject", "claims"),
    [
        ("bob", {}),
        ("alice", {"client_id": "another"}),
        # fastmcp's own boundary is one string, of the client and the subject.
        ("b|alice", {"client_id": "a"}),
        (None, {}),
    ],
)
def test_a_task_is_unknown_to_everyone_else(
    diary: Callable[..., Diary],
    visiting: Visiting,
    method: str,
    subject: str | None,
    claims: dict[str, Any],
) -> None:
    server = diary().server
    owner = ("alice", {"client_id": "a|b"}) if subject == "b|alice" else ("alice", {})
    alice = visiting(server, owner[0], "diary.write", **owner[1])
    task = alice.start("write", line="dear diary")
    other = visiting(server, subject, "diary.write", **claims)

    reply = other.about(method, task)
    unknown = other.about(method, "never-started")

    # Without a subject there is no session to ask in.
    assert "not found" in reply.content or (subject is None and reply.status == 403)
    assert comparable(reply.content, task) == comparable(unknown.content, "never-started")
    assert alice.outcome(task) == "dear diary by alice"


def test_a_task_is_unknown_to_a_namesake_of_another_issuer(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    assert TASK_LINE is not None
    other = LocalIssuer("https://other.test", audience=issuer.audience)
    verifiers = [issuer.verifier(), other.verifier()]

    class Either:
        async def verify(self, token: str) -> Principal:
            try:
                return await verifiers[0].verify(token)
            except InvalidTokenError:
                return await verifiers[1].verify(token)

    book = Diary()
    guarding(verifier=Either()).protect(book.server)
    url = serve(TASK_LINE.http_app(book.server))
    alice, namesake = (
        Tasked.at(http, url, each.mint("alice", scopes=["diary.write"])) for each in (issuer, other)
    )

    task = alice.start("write", line="dear diary")

    assert "not found" in namesake.about("tasks/get", task).content
    assert namesake.run("write", line="too") == "too by alice"
    assert alice.outcome(task) == "dear diary by alice"


def test_the_owner_comes_back_with_a_new_token(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    server = diary().server

    task = visiting(server, "alice", "diary.write").start("write", line="dear diary")

    assert visiting(server, "alice", "other").outcome(task) == "dear diary by alice"


def test_the_owner_of_a_task_cancels_it(diary: Callable[..., Diary], visiting: Visiting) -> None:
    alice = visiting(diary().server, "alice", "diary.write")
    task = alice.start("wait")

    alice.about("tasks/cancel", task)

    assert alice.ended(task)["status"] == "cancelled"


@stateless
def test_a_caller_without_a_subject_starts_no_task(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    book = diary()

    reply = visiting(book.server, None, "diary.write").ask("plain", line="x")

    assert "needs a user" in reply.denial["error_description"]
    assert book.written == []


@stateless
def test_a_caller_without_a_token_may_ask_after_no_task(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    alice = visiting(diary().server, "alice", "diary.write")
    task = alice.start("write", line="dear diary")
    alice.caller.token, alice.caller.session = None, None

    assert [alice.about(method, task).status for method in METHODS] == [401] * len(METHODS)


# --- when the token expires


LONG = {"expires_in": 86_400}


@pytest.fixture
def late(
    diary: Callable[..., Diary], visiting: Visiting
) -> Callable[[TaskExpiry, str, str], tuple[Diary, str]]:
    """Start a task, let its token expire before it goes on; return its outcome."""

    def outcome(expiry: TaskExpiry, first: str, tool: str) -> tuple[Diary, str]:
        clock = FrozenClock(time.time())
        book = diary(at_once=1, clock=clock, refusals=Refusals(task_expiry=expiry))
        alice = visiting(book.server, "alice", "diary.write")
        alice.start("wait")  # what is started next waits for its turn
        arguments = {"name": first} if tool == "wait_and_call" else {"line": first}
        task = alice.start(tool, **arguments)
        clock.advance(3_600)
        book.gate.set()
        return book, visiting(book.server, "alice", "diary.write", **LONG).outcome(task)

    return outcome


def test_a_task_that_outlives_its_token_goes_on_by_default(
    late: Callable[[TaskExpiry, str, str], tuple[Diary, str]],
) -> None:
    assert late("continue", "dear diary", "write")[1] == "dear diary by alice"
    assert late("continue", "helper", "wait_and_call")[1] == "helped alice"


@pytest.mark.parametrize(("first", "tool"), [("dear", "share"), ("sharing", "wait_and_call")])
def test_a_task_that_outlives_its_token_gets_no_connection(
    late: Callable[[TaskExpiry, str, str], tuple[Diary, str]], first: str, tool: str
) -> None:
    outcome = late("continue", first, tool)[1]

    assert "expired" in outcome
    assert "google" not in outcome.lower()


def test_under_stop_no_task_starts_with_an_expired_token(
    late: Callable[[TaskExpiry, str, str], tuple[Diary, str]],
) -> None:
    book, outcome = late("stop", "dear diary", "write")

    assert "expired" in outcome
    assert book.written == []


def test_under_stop_an_expired_task_calls_nothing_guarded(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    clock = FrozenClock(time.time())
    book = diary(clock=clock, refusals=Refusals(task_expiry="stop"))
    task = visiting(book.server).start("wait_and_call", name="helper")
    book.started.wait(20)
    clock.advance(3_600)
    book.gate.set()

    assert "expired" in visiting(book.server, "alice", **LONG).outcome(task)


# --- where the caller is not known


def test_a_task_that_was_started_elsewhere_is_refused(
    diary: Callable[..., Diary], visiting: Visiting
) -> None:
    book = diary()

    @book.server.tool()
    @public
    async def forge() -> str:
        docket = cast("Any", book.server)._docket
        key = "auth:local|alice:started-elsewhere:tool:tool%3Awrite%40"
        execution = await docket.add("tool:write@", key=key)(line="dear diary")
        try:
            return str(await execution.get_result())
        except Exception as error:  # noqa: BLE001 - what a worker has stored
            return str(error)

    alice = visiting(book.server, "alice", "diary.write")

    assert "not known here who started" in alice.caller.call("forge").content
    assert book.written == []


# --- what else may run as a task


@pytest.mark.skipif(not LEGACY, reason="of fastmcp 4 only tools run as tasks")
def test_resources_and_prompts_run_as_tasks_of_their_caller(
    guarding: Guarding, visiting: Visiting
) -> None:
    server = server_with_tasks()

    @server.resource("diary://today", task=True)
    @requires_scopes("diary.read")
    async def today(*, user_id: str) -> str:
        return f"today of {user_id}"

    @server.resource("diary://{year}/all", task=True)
    @requires_scopes("diary.{year}")
    async def year_of(year: str, *, user_id: str) -> str:
        return f"{year} of {user_id}"

    @server.prompt(task=True)
    @requires_scopes("diary.plan")
    async def plan(day: str, *, user_id: str) -> str:
        return f"plan {day} with {user_id}"

    guarding().protect(server)
    alice = visiting(server, "alice", "diary.read", "diary.1999", "diary.plan")
    weak = visiting(server, "weak")
    asked: list[tuple[str, dict[str, Any], str, str]] = [
        ("resources/read", {"uri": "diary://today"}, "today of alice", "diary.read"),
        ("resources/read", {"uri": "diary://1999/all"}, "1999 of alice", "diary.1999"),
        (
            "prompts/get",
            {"name": "plan", "arguments": {"day": "monday"}},
            "plan monday with alice",
            "diary.plan",
        ),
    ]

    for method, params, answer, scope in asked:
        task = task_id(alice.ask_for(method, **params))
        assert alice.ended(task)["status"] == "completed"
        assert answer in alice.about("tasks/result", task).content
        assert weak.ask_for(method, **params).refusal["missing_scopes"] == [scope]


@pytest.mark.skipif(LEGACY, reason="fastmcp 3 asks its questions while the task runs")
def test_a_task_that_asks_goes_on_as_its_caller(guarding: Guarding, visiting: Visiting) -> None:
    from fastmcp import Context  # noqa: PLC0415 - there is one where this test runs
    from mcp_types import (  # noqa: PLC0415 - the same
        ElicitRequest,
        ElicitRequestFormParams,
        InputRequiredResult,
    )

    server = server_with_tasks()

    async def ask(ctx: Any, *, user_id: str) -> Any:
        if not ctx.input_responses:
            params = ElicitRequestFormParams(
                message="which day?", requested_schema={"type": "object", "properties": {}}
            )
            return InputRequiredResult(input_requests={"day": ElicitRequest(params=params)})
        return f"answered {user_id}"

    ask.__annotations__["ctx"] = Context
    server.tool(task=True)(requires_scopes("diary.write")(ask))
    guarding().protect(server)
    alice, bob = visiting(server, "alice", "diary.write"), visiting(server, "bob", "diary.write")
    task = alice.start("ask")
    asked = alice.waiting_for(task, "input_required")["inputRequests"]
    answers = {name: {"action": "accept", "content": {}} for name in asked}

    foreign = bob.caller.send("tasks/update", {"taskId": task, "inputResponses": answers})
    alice.caller.send("tasks/update", {"taskId": task, "inputResponses": answers})

    assert "not found" in foreign.content
    assert alice.outcome(task) == "answered alice"


def test_a_task_in_memory_runs_as_the_signed_in_user(
    diary: Callable[..., Diary],
) -> None:
    book = diary()

    async def main() -> Any:
        Client: Any = importlib.import_module("fastmcp").Client  # noqa: N806 - a class

        with signed_in("alice", scopes=["diary.write"]):
            if LEGACY:
                async with Client(book.server) as client:
                    started: Any = await client.call_tool("write", {"line": "dear"}, task=True)
                    return await started.result()
            tasks: Any = importlib.import_module("fastmcp_tasks.client")
            async with Client(book.server, extensions=[tasks.TasksClientExtension()]) as client:
                started = await tasks.call_tool_task(client, "write", {"line": "dear"})
                return await started.result()

    assert anyio.run(main).data == "dear by alice"


# --- a server with auth of its own


def test_a_token_that_the_framework_has_verified_is_not_stored(
    issuer: LocalIssuer, visiting: Visiting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert TASK_LINE is not None
    book = Diary(auth=fastmcp_verifier(Issued(issuer).verify_token, []))
    guard = ToolGuard(verifier="framework", audience=issuer.audience, connections=connect)
    guard.protect(book.server)
    alice = visiting(book.server, "alice", "diary.write")

    assert alice.run("write", line="dear diary") == "dear diary by alice"
    stored = alice.caller.call("stored").value
    assert "dear diary" in stored
    assert str(alice.caller.token) not in stored
    assert str(alice.caller.token) not in caplog.text


@pytest.mark.skipif(LEGACY, reason="fastmcp 3 needs no extension for tasks")
def test_an_extension_for_tasks_that_comes_late_asks_as_well(
    guarding: Guarding, visiting: Visiting
) -> None:
    assert TASK_LINE is not None
    server: Any = TASK_LINE.server("late")
    undecorated(server, "tool")
    guarding().protect(server, rules={"*": requires_scopes("admin")})
    server.add_extension(importlib.import_module("fastmcp_tasks").TasksExtension())

    assert visiting(server).ask("tool").refusal["missing_scopes"] == ["admin"]
    assert visiting(server, "root", "admin").run("tool") == "ran tool"


def test_a_task_calls_other_tools_as_its_caller(guarding: Guarding, visiting: Visiting) -> None:
    server = server_with_tasks()
    undecorated(server, "other")
    made: Any = server

    @server.tool(task=True)
    @requires_auth
    async def tool() -> str:
        answer = await made.call_tool("other")
        return str(answer.content[0].text)

    guarding().protect(server, rules={"other": requires_scopes("other")})

    assert visiting(server, "alice", "other").run("tool") == "ran other"
    assert "insufficient_scope" in visiting(server, "alice").run("tool")


# --- what is kept of the caller


class Queue:
    """Background tasks whose queue is in the hands of the test."""

    def __init__(self, guard: ToolGuard) -> None:
        self.guard = guard
        self.running: str | None = None
        background = importlib.import_module("toolguard.frameworks.background")
        line = background.TaskLine(lambda: self.running, bool, lambda answer: answer, dict)
        self.tasks = background.BackgroundTasks(line)
        self.refused: type[Exception] = importlib.import_module("fastmcp.exceptions").ToolError

    async def start(self, user: str, task: str, meanwhile: Callable[[], Any] | None = None) -> None:
        async def queue() -> str:
            if meanwhile is not None:
                await meanwhile()
            return task

        principal = Principal(user, "https://issuer.test", expires_at=math.inf)
        frame = Frame(self.guard, MessageContext(RequestAuth("token", principal, self.guard)))
        with as_current(frame):
            await self.tasks.queue(self.guard, queue)

    async def run(self, task: str) -> str | None:
        """Return as whom a task runs; None if that is not known."""

        async def work() -> str | None:
            return current_principal().user_id

        self.running = task
        try:
            found = await self.tasks.run(self.guard, work)
        except self.refused as error:
            if "not known here" not in str(error):
                raise
            return None
        assert found is None or isinstance(found, str)
        return found


@given(
    started=st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["alice", "bob", "eve"])),
    run=st.permutations("abcdef"),
)
def test_every_task_runs_as_its_own_caller_and_once(
    guarding: Guarding, started: dict[str, str], run: list[str]
) -> None:
    queue = Queue(guarding())

    async def main() -> dict[str, str | None]:
        for task, user in started.items():
            await queue.start(user, task)
        found = {task: await queue.run(task) for task in run}
        assert [await queue.run(task) for task in run] == [None] * len(run)
        return found

    assert anyio.run(main) == {task: started.get(task) for task in run}


def test_a_worker_waits_for_the_answer_it_outruns(guarding: Guarding) -> None:
    queue = Queue(guarding())
    found: list[str | None] = []

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def run() -> None:
                found.append(await queue.run("task"))

            async def meanwhile() -> None:
                group.start_soon(run)
                await anyio.wait_all_tasks_blocked()

            await queue.start("alice", "task", meanwhile)

    anyio.run(main)
    assert found == ["alice"]
