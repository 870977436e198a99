"""Wrap guarded functions: decide, fetch connections, inject, call.

Each decorator adds one part of a policy. However many are stacked, in any order, a function gets
one wrapper and every call one decision.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ParamSpec, TypeAlias, TypeVar, overload

import anyio.to_thread

from toolguard.calls.message import (
    Frame,
    current_frame,
    make_current,
    name_scopes,
    refusal_in,
    restore,
)
from toolguard.calls.recording import row_record
from toolguard.calls.rows import Row, State
from toolguard.decorators.annotations import name_of
from toolguard.decorators.injection import Connections, Injection, unwrapped
from toolguard.errors import ToolGuardError
from toolguard.policies.approval import Approving
from toolguard.policies.policy import Policy
from toolguard.principal import Principal

__all__ = [
    "BARE",
    "GuardDecorator",
    "Guarded",
    "arguments_of",
    "bare_policy",
    "injected_parameters",
    "owner_of",
    "policy_of",
]

P = ParamSpec("P")
T = TypeVar("T")

Guarded: TypeAlias = Callable[P, Coroutine[Any, Any, T]]
"""A guarded function: always a coroutine function.

It keeps its parameters for type checkers, the injected ones included: a ``ParamSpec`` cannot lose
keywords. Give those the default ``injected`` where your own code calls the function.
"""

_MARK = "__toolguard__"
_NOTHING: Any = object()
BARE = "__toolguard_bare__"
"""The attribute of a function for which a guard was declared that it does not have itself."""


class GuardDecorator:
    """A declared policy, to be used as a decorator.

    The wrapper is a coroutine function without the injected parameters. A synchronous function
    runs in a worker thread, so that it never blocks the event loop.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @overload
    def __call__(self, function: Callable[P, Awaitable[T]]) -> Guarded[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T]) -> Guarded[P, T]: ...
    def __call__(self, function: Callable[..., Any] = _NOTHING) -> Guarded[..., Any]:
        """Guard ``function``, in addition to the guards it already has.

        Raises:
            TypeError: if it is not a function, or lacks a parameter that would be injected.
            ValueError: if the stacked guards contradict each other.
        """
        if function is _NOTHING:
            raise TypeError(
                f"{self!r} guards the function below it: write it without (), as in @requires_auth"
            )
        if isinstance(function, GuardDecorator):
            raise TypeError(
                f"{self!r} guards functions, not {function!r}: write one above the other"
            )
        if inspect.isasyncgenfunction(unwrapped(function)):
            raise TypeError(
                f"{name_of(function)}() is an async generator, and {self!r} guards functions that "
                "return: return a list"
            )
        if isinstance(function, (type, classmethod, staticmethod)) or not callable(function):
            raise TypeError(
                f"{self!r} guards functions, not {type(function).__name__}: write it directly "
                "above `def`, below the line that registers the tool"
            )
        mark = getattr(function, _MARK, None)
        if isinstance(mark, _Mark) and mark.wrapper is function:
            whole = self.policy & mark.policy
            setattr(function, BARE, whole)  # registered in between, it lacks this guard
            return _guarded(mark.function, whole)
        # Another decorator is between two guards: still decide on both at once.
        inner = policy_of(function)
        if inner is not None and inner.approval is not None:
            raise ValueError(
                f"another decorator is between {self!r} and @requires_approval: write all guards "
                "directly above each other"
            )
        whole = self.policy if inner is None else self.policy & replace(inner, connections=())
        return _guarded(function, whole)

    def __repr__(self) -> str:
        return f"<guard: {self.policy}>"


class _Mark:
    """Ties a wrapper to its function; ``functools.wraps`` copies the mark, but not the tie."""

    def __init__(
        self,
        wrapper: Callable[..., Any],
        function: Callable[..., Any],
        policy: Policy,
        injection: Injection,
    ) -> None:
        self.wrapper = wrapper
        self.function = function
        self.policy = policy
        self.injection = injection


def _guarded(function: Callable[..., Any], policy: Policy) -> Guarded[..., Any]:
    injection = Injection.from_policy(function, policy)
    start = _starting(function, injection)
    reads_arguments, needs = policy.reads_arguments, policy.connections
    # A call that turns out to lack a connection has not used its approval.
    approving: Approving = "check" if needs else "use"

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        outer = current_frame()
        frame = outer.inside(policy, guarded)
        row, before = frame.entered, make_current(frame)
        row.running = True
        failure: str | None = "CancelledError"  # unless it ends otherwise
        try:
            call = row.call
            if row.state is State.PERMITTED and not reads_arguments:
                principal = row.principal
                frame.check_open(principal)
            else:
                if reads_arguments or row.state is State.NEEDS_ARGUMENTS:
                    sent = MappingProxyType(injection.sent(args, kwargs))
                    call = replace(call, arguments=sent)
                principal = await frame.authorize(call, approving=approving)
            result = await start(
                args,
                kwargs,
                principal,
                await frame.connect(needs, principal, call) if needs else {},  # in no variable
            )
            failure = None
            return result  # noqa: TRY300 - an `else` would be one branch too many
        except Exception as error:
            failure = type(error).__name__
            refusal = _conclude(frame, row, error)
            if refusal is not None and refusal is not error:
                raise refusal from None
            raise
        finally:
            row.running = False
            restore(before)
            if frame is not outer and frame.guard.recorder.wanted():
                frame.guard.recorder.put([row_record(frame.guard, frame.message, row, failure)])

    injection.apply_to(guarded, function)
    setattr(guarded, _MARK, _Mark(guarded, function, policy, injection))
    for layer, mark in _layers(function):
        if mark is not None:
            break
        with suppress(AttributeError, TypeError):  # an object that does not accept attributes
            setattr(layer, BARE, policy)
    return guarded


def _conclude(frame: Frame, row: Row, error: Exception) -> ToolGuardError | None:
    """Record that a guarded function ended in ``error``; return the refusal in it, if any."""
    refusal = refusal_in(error)
    if refusal is not None:
        name_scopes(refusal, frame.guard, frame.message.auth)
    row.ended(refusal)
    if row.nested:
        frame.message.nested_refusal = refusal
    return refusal


def _starting(function: Callable[..., Any], injection: Injection) -> Callable[..., Awaitable[Any]]:
    """Return a starter that calls ``function`` with the injected values; await its result.

    The starter has returned when the function runs, so no frame above it holds an injected value.
    """
    inner = unwrapped(function)
    is_async = inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004 - whether calling it gives a coroutine
    )

    dependencies = injection.dependencies

    def start(
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        principal: Principal | None,
        connections: Connections,
    ) -> Awaitable[Any]:
        injected = named = dict[str, Any]()
        try:
            injected = injection.values(principal, connections)
            positional, named = injection.arguments(args, kwargs, injected)
            if dependencies is not None:
                once: list[Callable[[], Any]] = [functools.partial(function, *positional, **named)]
                filled = dependencies.filled(injection.sent(args, kwargs))
                return _with_dependencies(filled, once, is_async=is_async)
            if is_async:
                running: Awaitable[Any] = function(*positional, **named)
                return running
            return _in_thread([functools.partial(function, *positional, **named)])
        finally:
            del injected, named, connections

    return start


async def _with_dependencies(
    filled: AbstractAsyncContextManager[dict[str, Any]],
    once: list[Callable[[], Any]],
    *,
    is_async: bool,
) -> Any:
    try:
        async with filled as found:
            once.append(functools.partial(once.pop(), **found))
            result = await (_call_once(once) if is_async else _in_thread(once))
            # What a generator yields may need what the dependencies have opened.
            return list(result) if inspect.isgenerator(result) else result
    finally:
        once.clear()  # a traceback shows local variables, and none may hold a token


async def _in_thread(once: list[Callable[[], Any]]) -> Any:
    result = await anyio.to_thread.run_sync(_call_once, once)
    # A synchronous decorator may wrap a coroutine function.
    return await result if inspect.isawaitable(result) else result


def _call_once(once: list[Callable[[], Any]]) -> Any:
    return once.pop()()


def policy_of(function: Callable[..., Any]) -> Policy | None:
    """Return the policy of ``function``, through other decorators, partials and bound methods.

    None means that it is not guarded.
    """
    policies = [mark.policy for _, mark in _layers(function) if mark is not None]
    return functools.reduce(operator.and_, policies) if policies else None


def owner_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the outermost wrapper of a guard in ``function``; None if it is not guarded."""
    return next((layer for layer, mark in _layers(function) if mark is not None), None)


def arguments_of(owner: Callable[..., Any], sent: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of a call as the wrapper ``owner`` reads them, with defaults.

    Arguments that the framework fills may be missing.
    """
    (_, mark), *_ = _layers(owner)
    assert mark is not None  # noqa: S101 - an owner is a wrapper
    return MappingProxyType(mark.injection.sent((), sent, is_whole=False))


def injected_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the parameters of ``function`` that its guards fill and hide from clients."""
    marks = [mark for _, mark in _layers(function) if mark is not None]
    return tuple(dict.fromkeys(name for mark in marks for name in mark.injection.sources))


def bare_policy(function: Callable[..., Any]) -> Policy | None:
    """Return the policy that was declared for ``function`` and does *not* guard it.

    That is the case for a function that was registered below its guard, so that the server holds
    the function itself and not the wrapper.
    """
    for layer, mark in _layers(function):
        bare = getattr(layer, BARE, None)
        if isinstance(bare, Policy):
            return bare
        if mark is not None:
            return None
    return None


def _layers(function: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], _Mark | None]]:
    """Yield the functions that wrap each other, outermost first, with their guards."""
    current: Any = function
    while current is not None:
        current = unwrapped(current)
        mark = getattr(current, _MARK, None)
        if isinstance(mark, _Mark) and mark.wrapper is current:
            yield current, mark
            current = mark.function
        else:
            yield current, None
            current = getattr(current, "__wrapped__", None)
