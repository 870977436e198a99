"""What does toolguard ask of a framework, and what is the same in all of them?"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolguard.call import SCOPE_KEY, Call, RequestState, outer_call, serving
from toolguard.decorators import bare_policy, policy_of
from toolguard.errors import ToolGuardError
from toolguard.policy import Policy

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from toolguard.guard import ToolGuard

__all__ = ["Adapter", "Operation", "guarded_message"]

_PROTECTED = "__toolguard_protected__"


@dataclass(frozen=True)
class Operation:
    """One tool of a server.

    Attributes:
        name: the name clients call it by.
        function: the registered function; None for a tool that is not a function here.
    """

    name: str
    function: Callable[..., Any] | None

    @property
    def policy(self) -> Policy | None:
        """What guards it; None if nothing does."""
        return None if self.function is None else policy_of(self.function)


class Adapter(ABC):
    """One server of one framework line."""

    def __init__(self, server: Any) -> None:
        self.server = server

    @abstractmethod
    def operations(self) -> Iterator[Operation]:
        """Yield the server's operations, in the order of their registration."""

    @abstractmethod
    def size(self) -> int:
        """Return how many operations there are, without going through them."""

    @abstractmethod
    def install(self, guard: ToolGuard) -> None:
        """Put ``guard`` around every message, and around every app and transport it runs."""

    @abstractmethod
    def stateless_app(self) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp`` with JSON, for tests."""

    @property
    def guard(self) -> ToolGuard | None:
        """The guard that protects the server; None if none does."""
        return getattr(self.server, _PROTECTED, None)

    def claim(self, guard: ToolGuard) -> None:
        """Mark the server as protected.

        Raises:
            ValueError: if it already is.
        """
        if self.guard is not None:
            raise ValueError("this server is protected already: call protect() once per server")
        setattr(self.server, _PROTECTED, guard)

    def prepare(self) -> None:
        """Get ready to serve what has been registered by now."""
        self.check_order()

    def check_order(self) -> None:
        """Make sure that every function with a guard is registered with it.

        Raises:
            ValueError: naming the tool that would run unguarded.
        """
        for operation in self.operations():
            if operation.function is not None and bare_policy(operation.function) is not None:
                raise ValueError(
                    f"tool {operation.name!r} was registered without its guard, so it would run "
                    "for everybody: write the line that registers the tool above the guard, as "
                    "in @mcp.tool(), then @requires_scopes(...), then def"
                )

    def over_stdio(self, guard: ToolGuard) -> None:
        """Make the server's own stdio transport say that it is one."""
        run = self.server.run_stdio_async

        @functools.wraps(run)
        async def run_stdio_async(*args: Any, **kwargs: Any) -> None:
            self.prepare()
            with guard.serving_stdio():
                await run(*args, **kwargs)

        self.server.run_stdio_async = run_stdio_async


async def guarded_message(
    guard: ToolGuard,
    request: Any,
    undeclared: Callable[[], Awaitable[str | None]],
    refuse_with: Callable[[ToolGuardError], Exception],
    serve: Callable[[], Awaitable[Any]],
) -> tuple[Any, ToolGuardError | None]:
    """Serve one message under ``guard``; return its result, or the refusal.

    Args:
        guard: protects the server that received the message.
        request: the Starlette request that carried it, None where there is no HTTP.
        undeclared: names the method if the operation carries no guard of its own.
        refuse_with: makes the exception with which handlers of this framework say no.
        serve: hands the message on to the framework.
    """
    try:
        state = await _state(guard, request)
    except ToolGuardError as refusal:
        return None, refusal
    with serving(Call(guard, state, refuse_with)) as call:
        try:
            method = None if call.is_settled else await undeclared()
            if method is not None:
                await call.admit_undeclared(method)
        except ToolGuardError as refusal:
            call.refuse(refusal)
            return None, refusal
        try:
            result = await serve()
        except Exception:
            if call.refusal is None:
                raise
            return None, call.refusal
        return result, call.refusal


async def _state(guard: ToolGuard, request: Any) -> RequestState | None:
    """Return what is known of the request of *this* message, never of the session's first."""
    if request is None:
        outer = outer_call()
        return outer.state if outer is not None else await guard.stdio_state()
    state = request.scope.get(SCOPE_KEY)
    return state if isinstance(state, RequestState) else None
