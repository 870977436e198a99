"""The owners and callers of the background tasks of a fastmcp server.

A worker runs a task, possibly long after the message that queued it was answered. The caller is
kept in the memory of this process, so that no token is written to the queue. A worker in another
process does not know the caller, and runs no guarded function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import anyio
from fastmcp.exceptions import ToolError
from fastmcp.server.dependencies import get_http_request

from toolguard.calls.message import Frame, MessageContext, as_current, here, refusal_in
from toolguard.calls.recording import message_records
from toolguard.errors import AccessDeniedError, GuardNotConfiguredError, ToolGuardError
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.task_owners import TaskOwners
from toolguard.http.identity import telling_digest

__all__ = ["BackgroundTasks", "TaskLine"]

# For each caller; the oldest is dropped first, which ends it if it has not been started.
_MAX_TASKS = 1_024

_UNKNOWN = (
    "It is not known here who started this background task. The caller is kept in the memory of "
    "the process that took the call, until 1,024 more tasks of theirs are queued: run the worker "
    "in that process, as fastmcp does by itself, and let no other process work on its queue"
)


@dataclass(frozen=True)
class TaskLine:
    """The differences between the lines of fastmcp.

    Attributes:
        running: returns the id of the task that a worker runs here; None outside of a worker.
        asked_for: returns whether the arguments of a component's entry request a task; None if
            they never do.
        id_of: returns the id of the task in a result; None for other results.
        validated: returns the validated arguments of a component's function.
    """

    running: Callable[[], str | None]
    asked_for: Callable[[tuple[Any, ...]], bool] | None
    id_of: Callable[[Any], str | None]
    validated: Callable[[Any, dict[str, Any]], Mapping[str, Any]]


@dataclass(eq=False)
class _Started:
    """A task that has been queued.

    Attributes:
        message: the message as which it runs; None once it has ended.
    """

    message: MessageContext | None


class BackgroundTasks:
    """The background tasks that were started through one protected server.

    Args:
        line: the differences between the lines of fastmcp.
    """

    def __init__(self, line: TaskLine) -> None:
        self.line = line
        self._owners = TaskOwners(max_tasks=_MAX_TASKS)
        self._started: WeakValueDictionary[str, _Started] = WeakValueDictionary()
        self._queueing: set[anyio.Event] = set()

    async def queue(self, guard: ServerGuard, queue: Callable[[], Awaitable[Any]]) -> Any:
        """Queue a task of the current message, and record its owner; return the answer."""
        frame = here()
        assert frame is not None  # noqa: S101 - only a message asks for a task
        noted = anyio.Event()
        self._queueing.add(noted)
        try:
            with telling_digest(_request(), frame.message.auth):
                answer = await queue()
            task = self.line.id_of(answer)
            if task is not None:
                outlives_token = guard.door.refusals.task_expiry == "continue"
                message = frame.message.in_background(task, outlives_token=outlives_token)
                self._started[task] = started = _Started(message)
                self._owners.note(task, await frame.message.principal(guard), started)
            return answer
        finally:
            self._queueing.discard(noted)
            noted.set()

    async def check_user(self, guard: ServerGuard) -> None:
        """Check that the caller of the current message can own a task.

        Raises:
            AccessDeniedError: if the token has no subject, which distinguishes users of a client.
        """
        frame = here()
        principal = None if frame is None else await frame.message.principal(guard)
        if principal is not None and principal.user_id is None:
            raise AccessDeniedError.unnamed("user", "A background task needs a user")

    async def owns(self, guard: ServerGuard, message: MessageContext, task: object) -> bool:
        """Return whether a task belongs to the caller of a message."""
        principal = await message.principal(guard)
        return isinstance(task, str) and self._owners.owns(principal, task)

    async def run(self, guard: ServerGuard, work: Callable[[], Awaitable[Any]]) -> Any:
        """Run the work of the current task as its caller; return its result.

        Raises:
            ToolError: if it is refused.
            Exception: as raised by the work.
        """
        task = self.line.running()
        frame = here()
        if frame is not None and task is not None and frame.message.task == task:
            return await work()  # the function of a server that is mounted on this one
        started = await self._find(task)
        if started is None or started.message is None:
            raise ToolError(GuardNotConfiguredError(_UNKNOWN).to_json())
        message = started.message.again()
        refusal: ToolGuardError | None = None
        try:
            with as_current(Frame(guard, message)):
                result = await work()
        except Exception as error:
            refusal = refusal_in(error)
            if refusal is None:
                message.failure = type(error).__name__
                raise
            # Without its cause: the queue's store keeps the error for the client.
            raise ToolError(refusal.to_json()) from None
        finally:
            message.closed = True
            if guard.recorder.wanted():
                guard.recorder.put(message_records(guard, message, refusal))
        if not hasattr(result, "input_requests"):  # to be answered, and run again
            started.message = None
        return result

    async def _find(self, task: str | None) -> _Started | None:
        """Return the record of a task; a worker may start before the answer that names it."""
        if task is None:
            return None
        if task not in self._started:
            for noted in tuple(self._queueing):
                await noted.wait()
        return self._started.get(task)


def _request() -> Any:
    """Return the Starlette request of the current message; None without HTTP."""
    try:
        return get_http_request()
    except RuntimeError:
        return None
