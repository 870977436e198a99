"""Guard the queue of background tasks of a fastmcp server, and the functions its worker runs.

A worker runs the functions that a server registers with its queue when it starts. Each of them
decides before it runs, for the caller that queued the task. On 3.x a component queues itself, and
has decided by then (:mod:`toolguard.frameworks.fastmcp_guard`); on 4.x an extension queues it, so
the extension first calls the same function to decide, which then queues instead of running.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from fastmcp.exceptions import NotFoundError
from fastmcp.prompts.function_prompt import FunctionPrompt
from fastmcp.resources.function_resource import FunctionResource
from fastmcp.resources.template import FunctionResourceTemplate
from fastmcp.tools.function_tool import FunctionTool

from toolguard.calls.message import here
from toolguard.frameworks import internals
from toolguard.frameworks.fastmcp_components import (
    kind_of,
    name_of,
    parents,
    requested_version,
    tags_of,
)
from toolguard.frameworks.fastmcp_guard import (
    AttachableAdapter,
    Attached,
    MessagePath,
    around,
    by_names,
    guarded,
    on_path,
)
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.policies.operations import Kind, OperationCall

__all__ = ["attend_extension", "attend_workers"]

_MARK = "__toolguard_task__"
_EXTENSION = "io.modelcontextprotocol/tasks"

# Of these classes a worker runs the function, with keyword arguments; of others this entry.
_FUNCTIONS = (FunctionTool, FunctionResource, FunctionResourceTemplate, FunctionPrompt)
_ENTRIES: dict[Kind, str] = {"tool": "run", "resource": "read", "prompt": "render"}

Queue = Callable[[], Awaitable[Any]]

_queueing: ContextVar[Queue | None] = ContextVar("toolguard_queueing", default=None)


@contextmanager
def _instead(queue: Queue | None) -> Iterator[None]:
    """Have the worker's function call ``queue`` after its decision; None: run the function."""
    token = _queueing.set(queue)
    try:
        yield
    finally:
        _queueing.reset(token)


class _Task:
    """The function of one component that a worker runs.

    Args:
        attached: the hooks on the protected server.
        component: the guarded copy.

    Attributes:
        entry: the name of the entry that a worker runs.
        function: the original entry.
        registered: the entry as registered.
    """

    def __init__(self, attached: Attached, component: Any) -> None:
        adapter = attached.own
        assert adapter is not None  # noqa: S101 - only a protected server has these
        self.adapter: AttachableAdapter = adapter
        self.component = component
        self.entry = _entry(component)
        self.function: Callable[..., Awaitable[Any]] = getattr(component, self.entry)

        @functools.wraps(self.function)
        async def in_task(*args: Any, **kwargs: Any) -> Any:
            work = functools.partial(self._decided, args, kwargs)
            if _queueing.get() is not None:
                return await work()
            return await adapter.tasks.run(adapter.required_guard, work)

        setattr(in_task, _MARK, self)
        self.registered = in_task

    async def ask(self, queue: Queue, arguments: dict[str, Any]) -> Any:
        """Queue the task of the current message, if the caller is permitted; return the answer.

        Raises:
            Exception: the refusal.
        """
        noting = functools.partial(self.adapter.tasks.queue, self.adapter.required_guard, queue)
        with _instead(noting):
            if self.entry == "fn":
                return await self.registered(**arguments)
            return await self.registered(arguments)

    async def _decided(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the function, or queue it, if the caller is permitted.

        Raises:
            Exception: the refusal, or as raised by the function.
        """
        adapter, component, queue = self.adapter, self.component, _queueing.get()
        frame = here()
        assert frame is not None  # noqa: S101 - that of the message, or that of the task
        kind, name = kind_of(component), name_of(component)
        names = adapter.names_below(kind, name)
        arguments = kwargs if self.entry == "fn" or not args else dict(args[0] or {})
        proceed = functools.partial(self.function, *args, **kwargs)
        if hasattr(self.function, _MARK):  # of a mounted server with a guard of its own
            call = OperationCall(kind, name, arguments)
            tags = tags_of(parents(component))
            return await by_names(adapter, (name, *names), call, proceed, tags)
        sent = frame.message.sent
        uri = sent.name if sent is not None and sent.kind == "resource" else name
        given = (uri,) if kind == "resource" else (arguments,)
        entry = f"_{_ENTRIES[kind]}"
        with on_path(MessagePath(adapter, frame, names)):
            if queue is None:
                return await around(component, entry, proceed, given)
            queued = functools.partial(_queued, queue)
            return await around(component, entry, queued, given, queued=True)


def _entry(component: Any) -> str:
    return "fn" if isinstance(component, _FUNCTIONS) else _ENTRIES[kind_of(component)]


async def _queued(queue: Queue) -> Any:
    with _instead(None):
        return await queue()


def attend_workers(attached: Attached) -> None:
    """Have a protected server register functions that decide before they run."""
    server = attached.server
    list_tasks = server.get_tasks
    known: dict[str, _Task] = {}

    async def get_tasks() -> list[Any]:
        return [_with_decision(attached, known, each) for each in await list_tasks()]

    server.get_tasks = get_tasks


def _with_decision(attached: Attached, known: dict[str, _Task], component: Any) -> Any:
    """Return the copy that a server registers; its function is the same each time."""
    copy = guarded(component, attached)
    task = known.get(component.key)
    if task is None or task.function is not getattr(copy, task.entry, None):
        known[component.key] = task = _Task(attached, copy)
    task.component = copy
    registered = copy.model_copy()
    vars(registered)[task.entry] = task.registered
    return registered


def attend_extension(server: FastMCPServer) -> None:
    """Have the extension that queues tasks on a server of 4.x decide before it does."""
    extension = internals.extension_of(server, _EXTENSION)
    if extension is not None and not hasattr(extension, _MARK):
        kind: Any = type(extension)
        extension.__class__ = _asking(kind)


@functools.cache
def _asking(cls: Any) -> type[Any]:
    async def intercept_tool_call(extension: Any, params: Any, context: Any, call_next: Any) -> Any:
        queue = functools.partial(cls.intercept_tool_call, extension, params, context, call_next)
        frame = here()
        is_sent = frame is not None and frame.row is None  # by the client, and not by a tool
        is_asked_for = is_sent and context.client_extension_settings(_EXTENSION) is not None
        task = await _task_of(context.fastmcp, params) if is_asked_for else None
        return await (queue() if task is None else task.ask(queue, params.arguments or {}))

    attributes = {"__module__": cls.__module__, "intercept_tool_call": intercept_tool_call}
    made: type[Any] = type(cls.__name__, (cls,), {**attributes, _MARK: True})
    return made


async def _task_of(server: FastMCPServer, params: Any) -> _Task | None:
    """Return the task of a call; None if the tool does not run as a task."""
    try:
        tool = await server.get_tool(params.name, requested_version(params.meta))
    except NotFoundError:
        return None
    if tool is None or not tool.task_config.supports_tasks():
        return None
    listed = [each for each in await server.get_tasks() if each.key == tool.key]
    task: _Task | None = getattr(getattr(listed[0], _entry(listed[0])), _MARK) if listed else None
    return task
