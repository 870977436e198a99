"""What becomes of several decorators on one function, and of those that are not ours?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from itertools import permutations
from typing import Any

import pytest

from support.callers import Caller, Desk, person
from toolguard import public, requires_auth, requires_scopes, with_connection
from toolguard.decorators.wrapper import GuardDecorator, bare_policy, policy_of
from toolguard.errors import InsufficientScopeError
from toolguard.policies.policy import Policy
from toolguard.policies.scopes import Scope, all_of, any_of
from toolguard.testing import ScriptedConnections

Tool = Callable[..., Awaitable[Any]]


async def greet(name: str, *, user_id: str) -> str:
    return f"{user_id} greets {name}"


def refusal(caller: Caller, function: Tool, *args: Any, **kwargs: Any) -> InsufficientScopeError:
    with pytest.raises(InsufficientScopeError) as caught:
        caller.calls(function, *args, **kwargs)
    return caught.value


def wrappers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Return ``function`` and all that it wraps, from the outside in."""
    found = [function]
    while hasattr(found[-1], "__wrapped__"):
        found.append(found[-1].__wrapped__)
    return found


STACK = (
    requires_scopes("a", "b"),
    requires_scopes(any_of("c", "a")),
    requires_auth,
    with_connection("mail", as_="mail"),
    with_connection("calendar", as_="calendar"),
)


@pytest.mark.parametrize("order", list(permutations(STACK)))
def test_there_is_one_wrapper_whatever_the_order_and_however_many_decorators(
    order: tuple[GuardDecorator, ...],
) -> None:
    async def tool(*, user_id: str, mail: str, calendar: str) -> str:
        return f"{user_id} {mail} {calendar}"

    guarded: Tool = tool
    for decorator in order:
        guarded = decorator(guarded)

    assert wrappers(guarded) == [guarded, tool]
    policy = policy_of(guarded)
    assert policy is not None
    assert policy.formula == all_of("a", "b")
    assert {need.name for need in policy.connections} == {"mail", "calendar"}
    assert str(inspect.signature(guarded)) == "() -> str"


def test_a_stack_makes_one_decision_and_fetches_once() -> None:
    async def tool(*, user_id: str, mail: str, calendar: str) -> str:
        return f"{user_id} {mail} {calendar}"

    vault = ScriptedConnections({"mail": "mail-token", "calendar": "calendar-token"})
    guarded: Tool = tool
    for decorator in STACK:
        guarded = decorator(guarded)

    answer = Caller(person("alice", "a", "b"), Desk(connections=vault)).calls(guarded)

    assert answer == "alice mail-token calendar-token"
    assert sorted(request.name for request in vault.calls) == ["calendar", "mail"]


def test_a_stack_names_everything_that_is_missing_at_once() -> None:
    @requires_scopes("a")
    @requires_scopes("b")
    @requires_scopes("c")
    async def tool() -> None: ...

    error = refusal(Caller(person("alice", "b")), tool)

    assert isinstance(error, InsufficientScopeError)
    assert error.required_scopes == ("a", "b", "c")
    assert error.missing_scopes == ("a", "c")


def test_guarding_a_function_twice_over_changes_neither_guard() -> None:
    reader = requires_scopes("read")(greet)
    writer = requires_scopes("write")(greet)

    assert policy_of(reader) == Policy(Scope("read"))
    assert policy_of(writer) == Policy(Scope("write"))


# --- decorators that are not ours


class Spy:
    """A decorator of somebody else's, as they are usually written; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, function: Tool) -> Tool:
        @functools.wraps(function)
        async def between(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return await function(*args, **kwargs)

        return between


def test_a_decorator_between_two_guards_is_neither_lost_nor_bypassed() -> None:
    spy = Spy()
    guarded = requires_scopes("outer")(spy(requires_scopes("inner")(greet)))

    assert Caller(person("alice", "outer", "inner")).calls(guarded, "Bob") == "alice greets Bob"
    assert spy.calls == 1


@pytest.mark.parametrize("held", [(), ("outer",), ("inner",)])
def test_two_guards_with_a_decorator_between_them_ask_for_everything_at_once(
    held: tuple[str, ...],
) -> None:
    spy = Spy()
    guarded = requires_scopes("outer")(spy(requires_scopes("inner")(greet)))

    error = refusal(Caller(person("alice", *held)), guarded, "Bob")

    assert error.required_scopes == ("outer", "inner")
    assert set(error.missing_scopes) == {"outer", "inner"} - set(held)
    assert spy.calls == 0


def test_each_of_two_guards_injects_what_it_declares() -> None:
    @with_connection("mail", as_="mail")
    @Spy()
    @with_connection("calendar", as_="calendar")
    async def tool(*, user_id: str, mail: str, calendar: str) -> str:
        return f"{user_id} {mail} {calendar}"

    vault = ScriptedConnections({"mail": "mail-token", "calendar": "calendar-token"})

    assert Caller(person(), Desk(connections=vault)).calls(tool) == (
        "alice mail-token calendar-token"
    )
    assert [request.name for request in vault.calls] == ["mail", "calendar"]
    assert str(inspect.signature(tool)) == "() -> str"


def test_a_decorator_below_or_above_all_guards_is_called_once() -> None:
    below, above = Spy(), Spy()
    guarded = above(requires_scopes("a")(requires_scopes("b")(below(greet))))

    assert Caller(person("alice", "a", "b")).calls(guarded, name="Bob") == "alice greets Bob"
    assert (below.calls, above.calls) == (1, 1)
    refusal(Caller(person("alice", "a")), guarded, name="Bob")
    assert (below.calls, above.calls) == (1, 2)


def test_a_synchronous_decorator_above_an_async_function_is_awaited() -> None:
    def timed(function: Tool) -> Tool:
        @functools.wraps(function)
        def between(*args: Any, **kwargs: Any) -> Awaitable[Any]:
            return function(*args, **kwargs)

        return between

    alone = requires_auth(timed(greet))
    between_guards = requires_scopes("a")(timed(requires_scopes("b")(greet)))

    assert Caller(person()).calls(alone, "Bob") == "alice greets Bob"
    assert Caller(person("alice", "a", "b")).calls(between_guards, "Bob") == "alice greets Bob"
    refusal(Caller(person("alice", "a")), between_guards, "Bob")


def test_a_copy_of_the_mark_does_not_count_as_the_guard() -> None:
    guarded = requires_scopes("a")(greet)

    async def impostor(name: str) -> str:
        return f"nobody greets {name}"

    vars(impostor).update(vars(guarded))
    del vars(impostor)["__wrapped__"]

    assert policy_of(impostor) is None
    again = requires_scopes("b")(impostor)
    assert policy_of(again) == Policy(Scope("b"))
    assert Caller(person("alice", "b")).calls(again, "Bob") == "nobody greets Bob"


# --- what guards a function?


def test_what_guards_a_function_is_found_through_decorators_partials_and_methods() -> None:
    class Calendar:
        @requires_scopes("a")
        async def add(self, title: str) -> None: ...

    guarded = requires_scopes("a")(greet)

    for function in (
        guarded,
        Spy()(guarded),
        Spy()(Spy()(guarded)),
        functools.partial(guarded, "Bob"),
        functools.partial(functools.partial(Spy()(guarded)), "Bob"),
        Calendar().add,
        Calendar.add,
        functools.partial(Calendar().add, "Standup"),
    ):
        assert policy_of(function) == Policy(Scope("a"))


def test_all_guards_on_the_way_count() -> None:
    guarded = requires_scopes("a")(Spy()(requires_scopes("b")(Spy()(requires_scopes("c")(greet)))))

    policy = policy_of(guarded)

    assert policy is not None
    assert policy.formula == all_of("a", "b", "c")


def test_nothing_guards_an_ordinary_function() -> None:
    assert policy_of(Spy()(greet)) is None
    assert policy_of(len) is None
    assert policy_of(functools.partial(greet, "Bob")) is None


def test_public_is_a_guard_too() -> None:
    assert policy_of(public(Spy()(public(_anybody)))) == Policy(public=True)


async def _anybody() -> None: ...


# --- which function was registered below its guard?


def test_a_function_that_was_guarded_elsewhere_is_bare_itself() -> None:
    async def tool() -> None: ...

    guarded = requires_scopes("a")(tool)

    assert bare_policy(tool) == Policy(Scope("a"))
    assert bare_policy(guarded) is None


def test_a_bare_function_is_recognised_behind_methods_and_partials() -> None:
    class Calendar:
        async def add(self, title: str) -> None: ...

    calendar = Calendar()
    requires_scopes("a")(calendar.add)

    assert bare_policy(calendar.add) == Policy(Scope("a"))
    assert bare_policy(Calendar().add) == Policy(Scope("a"))
    assert bare_policy(functools.partial(calendar.add, "Standup")) == Policy(Scope("a"))


def test_a_bare_function_shows_the_whole_policy_that_was_declared_for_it() -> None:
    async def tool() -> None: ...

    requires_scopes("a")(requires_scopes("b")(tool))

    assert bare_policy(tool) == Policy(all_of("a", "b"))


def test_a_wrapper_that_was_guarded_further_is_bare_itself() -> None:
    # @requires_scopes("admin"), then @mcp.tool(), then @requires_scopes("read"): the server holds
    # the wrapper that asks for "read" only.
    async def tool() -> None: ...

    registered = requires_scopes("read")(tool)
    whole = requires_scopes("admin")(registered)

    assert bare_policy(registered) == Policy(all_of("admin", "read"))
    assert bare_policy(Spy()(registered)) == Policy(all_of("admin", "read"))
    assert bare_policy(whole) is None


def test_a_decorator_of_somebody_else_that_was_guarded_is_bare_itself() -> None:
    async def tool() -> None: ...

    registered = Spy()(requires_scopes("read")(tool))
    whole = requires_scopes("admin")(registered)

    assert bare_policy(registered) == Policy(all_of("admin", "read"))
    assert bare_policy(whole) is None


def test_a_function_that_was_never_guarded_is_not_bare() -> None:
    async def tool() -> None: ...

    assert bare_policy(tool) is None
    assert bare_policy(Spy()(tool)) is None
    assert bare_policy(len) is None


def test_a_decorator_of_somebody_else_above_a_guard_is_not_bare() -> None:
    async def tool() -> None: ...

    assert bare_policy(Spy()(requires_scopes("a")(tool))) is None
