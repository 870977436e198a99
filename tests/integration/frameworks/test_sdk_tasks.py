"""Whose are the background tasks of mcp 1.x (``server.experimental.enable_tasks()``)?"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest

from support.lines import Guarding, Serve
from support.lowlevel_servers import MCP, in_memory, streamable_app, types
from support.wire import Caller, Reply
from toolguard import (
    InsufficientScopeError,
    ToolGuard,
    current_principal,
    injected,
    requires_scopes,
)
from toolguard.testing import LocalIssuer, signed_in

pytestmark = pytest.mark.skipif(MCP != 1, reason="mcp 2 has no tasks")

TASK = {"ttl": 60_000}
METHODS = ["tasks/get", "tasks/result", "tasks/cancel"]


@requires_scopes("deep")
async def deep(*, user_id: str = injected) -> str:
    return f"deep {user_id}"


def server_with_tasks(guard: ToolGuard, work: Callable[[], Any], store: Any = None) -> Any:
    """Return a protected low-level server with one tool that works in the background."""
    from mcp.server.lowlevel import Server  # noqa: PLC0415 - the line has it

    server: Any = Server("tasks")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        server.experimental.enable_tasks(store)

    @server.list_tools()  # type: ignore[untyped-decorator,unused-ignore]
    async def list_tools() -> Any:
        return [types.Tool(name="slow", inputSchema={"type": "object"})]

    @server.call_tool()  # type: ignore[untyped-decorator,unused-ignore]
    async def call_tool(name: str, arguments: Any) -> Any:
        async def working(_: Any) -> Any:
            return types.CallToolResult(content=[types.TextContent(type="text", text=await work())])

        return await server.request_context.experimental.run_task(working)

    guard.protect(server, rules={"slow": requires_scopes("slow")})
    return server


def in_memory_store() -> Any:
    stores = importlib.import_module("mcp.shared.experimental.tasks.in_memory_task_store")
    return stores.InMemoryTaskStore()


async def private() -> str:
    return f"private of {current_principal().user_id}"


@pytest.fixture(params=[True, False], ids=["stateless", "stateful"])
def caller(
    request: pytest.FixtureRequest, guarding: Guarding, serve: Serve, http: httpx.Client
) -> Callable[..., Caller]:
    """Serve a server with tasks; make its callers."""
    guard = guarding()
    app = streamable_app(guard, server_with_tasks(guard, private), stateless=request.param)
    url = serve(app)

    def make(token: str) -> Caller:
        made = Caller(http, f"{url}/mcp", token=token)
        if not request.param:
            made.open()
        return made

    return make


def start(caller: Caller) -> str:
    """Start a task; return its id."""
    reply = caller.send("tools/call", {"name": "slow", "arguments": {}, "task": TASK})
    return str(reply.result["task"]["taskId"])


def is_unknown(reply: Reply) -> bool:
    error = reply.body.get("error")
    return isinstance(error, dict) and error["message"].startswith("Task not found")


def test_a_task_is_there_for_the_caller_who_started_it(
    caller: Callable[..., Caller], issuer: LocalIssuer
) -> None:
    alice = caller(issuer.mint("alice", scopes=["slow"]))
    task = start(alice)
    alice.token = issuer.mint("alice", scopes=["other"])  # a new token of the same caller

    result = alice.send("tasks/result", {"taskId": task})
    status = alice.send("tasks/get", {"taskId": task})

    assert result.text == "private of alice"
    assert status.result["status"] == "completed"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("subject", "claims"), [("bob", {}), ("alice", {"client_id": "another"}), (None, {})]
)
def test_a_task_is_unknown_to_everyone_else(
    caller: Callable[..., Caller],
    issuer: LocalIssuer,
    method: str,
    subject: str | None,
    claims: dict[str, Any],
) -> None:
    alice = caller(issuer.mint("alice", scopes=["slow"]))
    task = start(alice)
    bob = Caller(alice.http, alice.endpoint, token=issuer.mint(subject, scopes=["slow"], **claims))
    if alice.session is not None and subject is not None:
        bob.open()

    reply = bob.send(method, {"taskId": task})

    # Without a subject there is no session to ask in.
    assert is_unknown(reply) or (alice.session is not None and subject is None)
    assert "private" not in reply.content
    assert alice.send("tasks/result", {"taskId": task}).text == "private of alice"


def test_a_list_of_tasks_has_only_the_callers(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    guard, store = guarding(), in_memory_store()
    server = server_with_tasks(guard, private, store)

    async def every_task(_: Any) -> Any:
        tasks, _cursor = await store.list_tasks()
        return types.ServerResult(types.ListTasksResult(tasks=tasks))

    server.request_handlers[types.ListTasksRequest] = every_task
    url = serve(streamable_app(guard, server))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=["slow"]))
    bob = Caller(http, f"{url}/mcp", token=issuer.mint("bob", scopes=["slow"]))

    task = start(alice)

    assert [each["taskId"] for each in alice.send("tasks/list").result["tasks"]] == [task]
    assert bob.send("tasks/list").result["tasks"] == []


def test_a_task_needs_what_its_tool_needs(
    caller: Callable[..., Caller], issuer: LocalIssuer
) -> None:
    params = {"name": "slow", "arguments": {}, "task": TASK}

    assert caller(issuer.mint("alice")).send("tools/call", params).status == 403


@pytest.mark.parametrize("method", [*METHODS, "tasks/list"])
def test_by_default_deny_tasks_are_refused(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, method: str
) -> None:
    guard = guarding(default="deny")
    url = serve(streamable_app(guard, server_with_tasks(guard, private)))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=["slow"]))
    task = start(alice)

    reply = alice.send(method, {} if method == "tasks/list" else {"taskId": task})

    assert "access_denied" in reply.content


def test_guarded_functions_in_a_task_decide_on_its_caller(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    async def work() -> str:
        await anyio.lowlevel.checkpoint()
        try:
            return await deep()
        except InsufficientScopeError as refusal:
            return f"refused {' '.join(refusal.missing_scopes)}"

    guard = guarding()
    url = serve(streamable_app(guard, server_with_tasks(guard, work)))

    def result(*scopes: str) -> str:
        caller = Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=scopes))
        return caller.send("tasks/result", {"taskId": start(caller)}).text

    assert result("slow", "deep") == "deep alice"
    assert result("slow") == "refused deep"


def test_a_task_that_outlives_its_token_gets_nothing_guarded(guarding: Guarding) -> None:
    now = [time.time()]
    guard, store = guarding(clock=lambda: now[0]), in_memory_store()

    async def main() -> Any:
        expired = anyio.Event()

        async def work() -> str:
            await expired.wait()
            return await deep()

        server = server_with_tasks(guard, work, store)
        params = types.CallToolRequestParams(
            name="slow", arguments={}, task=types.TaskMetadata(ttl=60_000)
        )
        call = types.ClientRequest(types.CallToolRequest(params=params))
        with signed_in("alice", scopes=["slow", "deep"], expires_in=60):
            async with in_memory(server) as session:
                started = await session.send_request(call, types.CreateTaskResult)
                now[0] += 3_600
                expired.set()
                while (task := await store.get_task(started.task.taskId)).status == "working":
                    await anyio.lowlevel.checkpoint()
                return task

    task = anyio.run(main)
    assert task.status == "failed"
    assert "expired" in task.statusMessage
