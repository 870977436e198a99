"""How are background tasks of fastmcp started and asked after, on either line?"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import httpx

from support.lines import FASTMCP_LINES, LEGACY_PROTOCOLS, MODERN_PROTOCOL, Line
from support.wire import Caller, Reply

__all__ = [
    "METHODS",
    "TASK_LINE",
    "TaskServer",
    "Tasked",
    "server_with_tasks",
    "store_of",
    "task_id",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_EXTENSION = "io.modelcontextprotocol/tasks"
_ENDED = ("completed", "failed", "cancelled")
_NEEDED = {"fastmcp3": "docket", "fastmcp4": "fastmcp_tasks"}
# Enough for a worker that looks for work every 50 ms, however slow the machine.
_TRIES = 2_000


def _line() -> Line | None:
    lines = (
        each for each in FASTMCP_LINES if importlib.util.find_spec(_NEEDED[each.name]) is not None
    )
    return next(lines, None)


TASK_LINE = _line()
"""The line of fastmcp whose servers have tasks here; None if none has."""

METHODS = ("tasks/get", "tasks/cancel") + (
    ("tasks/update",) if TASK_LINE and TASK_LINE.modern else ("tasks/result", "tasks/list")
)


class TaskServer(Protocol):
    """What the tests use of a server whose operations may run as tasks."""

    def tool(
        self, name: str | None = None, *, task: bool = False, tags: set[str] | None = None
    ) -> Callable[[FunctionT], FunctionT]:
        """Register a tool."""
        ...

    def resource(self, uri: str, *, task: bool = False) -> Callable[[FunctionT], FunctionT]:
        """Register a resource, or a template of resources."""
        ...

    def prompt(self, *, task: bool = False) -> Callable[[FunctionT], FunctionT]:
        """Register a prompt."""
        ...

    def add_tool(self, tool: Any) -> Any:
        """Register a tool that has been made."""
        ...

    def mount(self, server: Any, namespace: str) -> None:
        """Serve the operations of another server as well."""
        ...


def server_with_tasks(name: str = "tasks", *, at_once: int = 10, **settings: Any) -> TaskServer:
    """Return a server whose tools may run as tasks, ``at_once`` of them at the same time."""
    assert TASK_LINE is not None
    server: Any = TASK_LINE.server(name, **settings)
    if TASK_LINE.modern:
        extension = importlib.import_module("fastmcp_tasks").TasksExtension
        server.add_extension(extension(concurrency=at_once))
    else:
        importlib.import_module("fastmcp").settings.docket.concurrency = at_once
    made: TaskServer = server
    return made


async def store_of(server: Any) -> str:
    """Return all that the queue of a running server has stored."""
    async with server._docket.redis() as redis:
        stored = [key async for key in redis.scan_iter("*")]
        values = [await _value(redis, key) for key in stored]
    return repr(list(zip(stored, values, strict=True)))


async def _value(redis: Any, key: bytes) -> Any:
    """Return what is stored under a key, whatever type it has: the store does not tell."""
    for read in (redis.get, redis.hgetall, redis.xrange, redis.smembers):
        with suppress(Exception):
            return await read(key)
    for read_range in (redis.lrange, redis.zrange):
        with suppress(Exception):
            return await read_range(key, 0, -1)
    raise AssertionError(f"what is stored as {key!r}?")


@dataclass
class Tasked:
    """A client that asks for its calls to be run in the background.

    Attributes:
        caller: the client.
    """

    caller: Caller

    @classmethod
    def at(cls, http: httpx.Client, url: str, token: str | None) -> Tasked:
        """Return a client of the server at ``url``, ready to call tools."""
        assert TASK_LINE is not None
        if TASK_LINE.modern:
            capabilities: dict[str, Any] = {"extensions": {_EXTENSION: {}}}
            endpoint = f"{url}/mcp"
            return cls(
                Caller(http, endpoint, MODERN_PROTOCOL, token=token, capabilities=capabilities)
            )
        caller = Caller(http, f"{url}/mcp", LEGACY_PROTOCOLS[-1], token=token)
        caller.open()
        return cls(caller)

    def ask(self, tool: str, **arguments: Any) -> Reply:
        """Ask for a tool to be run in the background."""
        return self.ask_for("tools/call", name=tool, arguments=arguments)

    def ask_for(self, method: str, **params: Any) -> Reply:
        """Ask for anything to be done in the background."""
        assert TASK_LINE is not None
        asked = {} if TASK_LINE.modern else {"task": {"ttl": 60_000}}
        return self.caller.send(method, {**params, **asked})

    def start(self, tool: str, **arguments: Any) -> str:
        """Start a tool in the background; return the id of the task."""
        return task_id(self.ask(tool, **arguments))

    def about(self, method: str, task: str) -> Reply:
        """Send one of the methods that are about a task."""
        assert method in METHODS
        more: Mapping[str, Any] = {"inputResponses": {}} if method == "tasks/update" else {}
        return self.caller.send(method, {"taskId": task, **more})

    def ended(self, task: str) -> Mapping[str, Any]:
        """Wait until a task has ended; return its status."""
        return self.waiting_for(task, *_ENDED)

    def waiting_for(self, task: str, *awaited: str) -> Mapping[str, Any]:
        """Wait until a task is in one of these states; return its status."""
        for _ in range(_TRIES):
            status: Mapping[str, Any] = self.about("tasks/get", task).result
            if status["status"] in awaited:
                return status
        raise AssertionError(f"{task} is never {awaited}")

    def outcome(self, task: str) -> str:
        """Wait until a task has ended; return the text of its result."""
        status = self.ended(task)
        if "tasks/result" in METHODS:
            return self.about("tasks/result", task).text
        return "\n".join(each["text"] for each in status["result"]["content"])

    def run(self, tool: str, **arguments: Any) -> str:
        """Run a tool in the background; return the text of its result."""
        return self.outcome(self.start(tool, **arguments))


def task_id(reply: Reply) -> str:
    """Return the id of the task that was started."""
    assert reply.status == 200, reply.content
    found = reply.result.get("task", reply.result)["taskId"]
    assert isinstance(found, str)
    return found
