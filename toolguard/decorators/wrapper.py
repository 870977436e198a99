"""What becomes of a function that is guarded?

Each decorator carries one part of a policy. However many are stacked, in whatever order, a
function gets one wrapper and every call one decision: find the caller, decide, connect, inject,
call.
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar, overload

import anyio.to_thread

from toolguard.calls.current import current_call
from toolguard.decorators.injection import Injection, unwrapped
from toolguard.policies.policy import Policy

__all__ = [
    "GuardDecorator",
    "Guarded",
    "bare_policy",
    "injected_parameters",
    "policy_of",
]

T = TypeVar("T")

Guarded: TypeAlias = Callable[..., Coroutine[Any, Any, T]]
"""A guarded function: always a coroutine function, without the injected parameters."""

_MARK = "__toolguard__"
_BARE = "__toolguard_bare__"


class GuardDecorator:
    """A declared policy that can be put on a function with ``@``.

    The wrapper is a coroutine function without the injected parameters. A synchronous function
    runs in a worker thread, so that it never blocks the event loop.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @overload
    def __call__(self, function: Callable[..., Awaitable[T]]) -> Guarded[T]: ...
    @overload
    def __call__(self, function: Callable[..., T]) -> Guarded[T]: ...
    def __call__(self, function: Callable[..., Any]) -> Guarded[Any]:
        """Guard ``function``, adding to what already guards it.

        Raises:
            TypeError: if it is no function, or lacks a parameter that would be injected.
            ValueError: if the stacked guards contradict each other.
        """
        if inspect.isasyncgenfunction(unwrapped(function)):
            raise TypeError(f"{self!r} guards functions that return, not async generators")
        if isinstance(function, (type, classmethod, staticmethod)) or not callable(function):
            raise TypeError(
                f"{self!r} guards functions, not {type(function).__name__}: write it directly "
                "above `def`, below the line that registers the tool"
            )
        mark = getattr(function, _MARK, None)
        if isinstance(mark, _Mark) and mark.wrapper is function:
            whole = self.policy & mark.policy
            setattr(function, _BARE, whole)  # whoever registered it in between holds too little
            return _guarded(mark.function, whole)
        # Another decorator stands between two guards: ask for everything at once all the same.
        inner = policy_of(function)
        whole = self.policy if inner is None else self.policy & replace(inner, connections=())
        return _guarded(function, whole)

    def __repr__(self) -> str:
        return f"<guard: {self.policy}>"


class _Mark:
    """Ties a wrapper to what it guards; ``functools.wraps`` copies the mark, not the tie."""

    def __init__(
        self,
        wrapper: Callable[..., Any],
        function: Callable[..., Any],
        policy: Policy,
        injected: tuple[str, ...],
    ) -> None:
        self.wrapper = wrapper
        self.function = function
        self.policy = policy
        self.injected = injected


def _guarded(function: Callable[..., Any], policy: Policy) -> Guarded[Any]:
    injection = Injection.plan(function, policy)
    run = _awaitable(function)
    reads_call = policy.reads_call

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = current_call()
        with call.noting_refusals():
            sent = injection.sent(args, kwargs) if reads_call else None
            admission = await call.admit(policy, sent)
            injected = injection.values(admission.principal, admission.connections)
            positional, named = injection.arguments(args, kwargs, injected)
            return await run(*positional, **named)

    injection.dress(guarded, function)
    setattr(guarded, _MARK, _Mark(guarded, function, policy, tuple(injection.sources)))
    for layer, mark in _layers(function):
        if mark is not None:
            break
        with suppress(AttributeError, TypeError):  # an object that takes no attributes
            setattr(layer, _BARE, policy)
    return guarded


def _awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    inner = unwrapped(function)
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004 - whether calling it gives a coroutine
    ):
        return function

    async def in_thread(*args: Any, **kwargs: Any) -> Any:
        result = await anyio.to_thread.run_sync(functools.partial(function, *args, **kwargs))
        # A synchronous decorator may stand above a coroutine function.
        return await result if inspect.isawaitable(result) else result

    return in_thread


def policy_of(function: Callable[..., Any]) -> Policy | None:
    """Return what guards ``function``, through other decorators, partials and bound methods.

    None means that nothing guards it.
    """
    policies = [mark.policy for _, mark in _layers(function) if mark is not None]
    return functools.reduce(operator.and_, policies) if policies else None


def injected_parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the parameters of ``function`` that its guards fill and clients do not see."""
    marks = [mark for _, mark in _layers(function) if mark is not None]
    return tuple(dict.fromkeys(name for mark in marks for name in mark.injected))


def bare_policy(function: Callable[..., Any]) -> Policy | None:
    """Return the policy that was declared for ``function`` and does *not* guard it.

    That is the case for a function that was registered below its guard, so that the server holds
    the function itself and not the wrapper.
    """
    for layer, mark in _layers(function):
        bare = getattr(layer, _BARE, None)
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
