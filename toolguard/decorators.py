"""How does a developer say what a tool needs?

Each decorator declares one part of a policy. However many are stacked, in whatever order, a
function gets one wrapper and every call one decision: find the caller, decide, connect, inject,
call.
"""

from __future__ import annotations

import functools
import inspect
import keyword
import operator
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar, overload

import anyio.to_thread

from toolguard.call import current_call
from toolguard.challenge import Challenge
from toolguard.policy import ConnectionNeed, Policy
from toolguard.scopes import ScopeLike, all_of
from toolguard.signature import Injection, unwrapped

__all__ = [
    "GuardDecorator",
    "Guarded",
    "bare_policy",
    "policy_of",
    "public",
    "requires_auth",
    "requires_scopes",
    "with_connection",
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
        self, wrapper: Callable[..., Any], function: Callable[..., Any], policy: Policy
    ) -> None:
        self.wrapper = wrapper
        self.function = function
        self.policy = policy


def _guarded(function: Callable[..., Any], policy: Policy) -> Guarded[Any]:
    injection = Injection.plan(function, policy)
    run = _awaitable(function)

    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = current_call()
        with call.noting_refusals():
            admission = await call.admit(policy)
            injected = injection.values(admission.principal, admission.connections)
            positional, named = injection.arguments(args, kwargs, injected)
            return await run(*positional, **named)

    injection.dress(guarded, function)
    setattr(guarded, _MARK, _Mark(guarded, function, policy))
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


def requires_scopes(*scopes: ScopeLike) -> GuardDecorator:
    """Require the caller's token to hold these scopes, all of them.

    Args:
        scopes: RFC 6749 §3.3 scope-tokens, or expressions: ``any_of("a", "b")``, ``"a" & b``.

    Raises:
        ValueError: if there is none, or one is not a scope that can be asked for.

    Example::

        @mcp.tool()
        @requires_scopes("mcp:calendar.write")
        async def delete_event(event_id: str, *, user_id: str) -> None: ...
    """
    if not scopes:
        raise ValueError(
            'name at least one scope: @requires_scopes("calendar.read"); for "any valid token" '
            "write @requires_auth"
        )
    if callable(scopes[0]):
        raise TypeError('write @requires_scopes("calendar.read"), with the scopes in parentheses')
    rule = all_of(*scopes)
    Challenge(scope=rule.tokens)
    return GuardDecorator(Policy(scope=rule))


requires_auth = GuardDecorator(Policy())
"""Require a valid token and nothing else."""

public = GuardDecorator(Policy(public=True))
"""Let everybody call this, with or without a token. A token that is sent must still be valid."""


def with_connection(
    name: str,
    *,
    scopes: Iterable[str] | None = None,
    as_: str = "connection_token",
    tenant: bool = False,
    optional: bool = False,
    fresh: bool = False,
) -> GuardDecorator:
    """Inject the caller's token for a third-party service; implies a valid access token.

    It is fetched once the policy has allowed the call, with the caller's own access token.
    Several on one tool are fetched at the same time.

    Args:
        name: the connection's name at the guard's provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token has to carry; left out, whatever it carries will do.
        as_: the parameter that takes it, annotated ``str`` for the token or ``Connection`` for
            the object with its scopes, its expiry and ``auth`` for httpx.
        tenant: fetch the connection of the tenant that the caller's token names.
        optional: pass None where the user has not connected, instead of asking them to.
        fresh: never take a token that was kept from an earlier call.

    Raises:
        ValueError: for an empty name or an empty list of scopes.

    Example::

        @mcp.tool()
        @requires_scopes("mcp:calendar.write")
        @with_connection("google-calendar", scopes=["https://www.googleapis.com/auth/calendar"])
        async def create_event(title: str, *, user_id: str, connection_token: str) -> str: ...
    """
    if not isinstance(name, str):
        raise TypeError('write @with_connection("google-calendar"): the name comes first')
    if not name:
        raise ValueError('name the connection: @with_connection("google-calendar")')
    if isinstance(scopes, str):
        raise TypeError(f"write scopes=[{scopes!r}]: a list of scopes")
    listed = tuple(scopes) if scopes is not None else ()
    if scopes is not None and not listed:
        raise ValueError("scopes=[] asks for nothing: leave it out to take what there is")
    if listed:
        all_of(*listed)  # refuses what is not a scope
    if not as_.isidentifier() or keyword.iskeyword(as_) or as_ == "user_id":
        raise ValueError(
            f"as_={as_!r} cannot be the parameter that takes a connection: "
            'write as_="calendar_token"'
        )
    need = ConnectionNeed(name, listed, as_, tenant=tenant, optional=optional, fresh=fresh)
    return GuardDecorator(Policy(connections=(need,)))
