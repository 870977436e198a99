"""Which scopes does a call need that depend on its arguments, and what never becomes one?"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.callers import Caller, Desk, person
from toolguard import (
    InsufficientScopeError,
    InvalidInputError,
    OperationCall,
    Scope,
    all_of,
    any_of,
    requires_scopes,
)
from toolguard.http.challenge import Challenge
from toolguard.policies.argument_scopes import ScopeFunction, ScopeTemplate
from toolguard.policies.formulas import Attempt
from toolguard.principal import Principal


def call(**arguments: Any) -> OperationCall:
    return OperationCall("tool", "add", arguments)


class Calendar(str, enum.Enum):
    WORK = "work"


@requires_scopes("calendar.{calendar_id}.write", "calendar.use")
async def add(calendar_id: str = "primary", title: str = "") -> str:
    return "added"


def test_the_scope_of_a_call_is_made_of_its_arguments() -> None:
    alice = Caller(person("alice", "calendar.work.write", "calendar.use"), Desk())

    assert alice.calls(add, calendar_id="work") == "added"
    with pytest.raises(InsufficientScopeError) as refused:
        alice.calls(add, calendar_id="home")
    assert refused.value.required_scopes == ("calendar.home.write", "calendar.use")
    assert refused.value.missing_scopes == ("calendar.home.write",)


def test_a_default_is_an_argument_like_any_other() -> None:
    alice = Caller(person("alice", "calendar.primary.write", "calendar.use"), Desk())

    assert alice.calls(add) == "added"
    assert alice.calls(add, "primary", "lunch") == "added"


@pytest.mark.parametrize(
    ("value", "scope"), [("work", "c.work"), (7, "c.7"), (-1, "c.-1"), (Calendar.WORK, "c.work")]
)
def test_strings_and_whole_numbers_can_be_part_of_a_scope(value: Any, scope: str) -> None:
    assert ScopeTemplate("c.{id}").scope(call(id=value)) == Scope(scope)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "a b", "a\tb", "a\nb", "a\r\nSet-Cookie: x", 'a"b', "a\\b", "a=b", "\x00"),
        *("é", "\uff41", "a\u2028b", "\ud800", "x" * 257),
        *(None, True, False, 1.5, b"work", ["work"], {"a": 1}, object(), 10**300),
    ],
)
def test_what_would_not_be_a_scope_is_invalid_input_and_not_repeated(value: Any) -> None:
    alice = Caller(person("alice", "calendar.use"), Desk())

    with pytest.raises(InvalidInputError) as refused:
        alice.calls(add, calendar_id=value)
    assert refused.value.argument == "calendar_id"
    assert refused.value.to_dict() == {
        "error": "invalid_input",
        "error_description": "The argument calendar_id cannot be part of a scope",
    }


def test_an_alternative_that_cannot_be_applied_does_not_shut_out_the_other() -> None:
    guard = requires_scopes(any_of("calendar.{calendar_id}.write", "admin"))

    @guard
    async def remove(calendar_id: str) -> str:
        return "removed"

    assert Caller(person("alice", "admin"), Desk()).calls(remove, calendar_id="a b") == "removed"
    with pytest.raises(InvalidInputError):
        Caller(person("alice"), Desk()).calls(remove, calendar_id="a b")


_VALUES = st.text("ab.:-", min_size=1, max_size=6)


@given(st.tuples(_VALUES, _VALUES), st.tuples(_VALUES, _VALUES))
def test_no_two_calls_with_different_arguments_need_the_same_scope(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assume(one != other)
    template = ScopeTemplate("x.{a}.{b}.y")
    try:
        first, second = (template.scope(call(a=a, b=b)) for a, b in (one, other))
    except InvalidInputError:
        return
    assert first != second


@given(st.dictionaries(st.sampled_from(("a", "b")), st.text(max_size=8)))
def test_any_arguments_give_a_requestable_scope_or_invalid_input(
    arguments: dict[str, str],
) -> None:
    try:
        scope = ScopeTemplate("x.{a}-{b}").scope(call(**arguments))
    except InvalidInputError:
        return
    assert Challenge(scope=scope.tokens).header == f'Bearer scope="{scope}"'


@pytest.mark.parametrize("name", ["work", "home"])
def test_a_template_holds_for_the_calls_whose_scope_is_granted(name: str) -> None:
    caller = Principal("alice", issuer="https://issuer.example")
    attempt = Attempt(caller, frozenset({"calendar.work"}), call(calendar_id=name), now=0.0)

    assert ScopeTemplate("calendar.{calendar_id}").holds(attempt) is (name == "work")


def test_braces_that_are_doubled_are_braces() -> None:
    assert requires_scopes("a{{b}}").policy.formula == Scope("a{b}")
    assert ScopeTemplate("{{{id}}}").scope(call(id="x")) == Scope("{x}")


@pytest.mark.parametrize(
    "text",
    [*("a.{", "a.}", "a.{}", "a.{0}", "a.{x.y}", "a.{x[0]}", "a.{x!r}", "a.{x:>3}", "a.{x}{y}")],
)
def test_a_template_that_is_none_is_refused_where_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a scope template|put a separator"):
        requires_scopes(text)


@pytest.mark.parametrize("text", ["a b.{x}", 'a".{x}', "a=.{x}", "é.{x}"])
def test_a_template_that_could_make_no_scope_is_refused_where_it_is_written(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a scope|cannot be asked for"):
        requires_scopes(text)


# --- functions


def test_a_function_names_the_scopes_of_a_call() -> None:
    @requires_scopes("use", lambda call: ["big"] if call.arguments["amount"] > 10 else "small")
    async def pay(amount: int) -> str:
        return "paid"

    alice = Caller(person("alice", "small", "use"), Desk())
    assert alice.calls(pay, amount=1) == "paid"
    with pytest.raises(InsufficientScopeError) as refused:
        alice.calls(pay, amount=11)
    assert refused.value.required_scopes == ("use", "big")


@pytest.mark.parametrize(
    "named",
    ["", "a b", [], (), 'a"', "a=b", ["a", ""], "x" * 257, "é"],
    ids=repr,
)
def test_a_function_that_names_no_scope_makes_the_input_invalid(named: Any) -> None:
    with pytest.raises(InvalidInputError):
        ScopeFunction(lambda call: named).scope(call())


@pytest.mark.parametrize(
    ("named", "says"),
    [
        ([f"s{i}" for i in range(101)], "more than 100 scopes"),
        (all_of(*(f"s{i}" for i in range(101))), "more than 100 scopes"),
        (any_of(*(f"s{i}" for i in range(101))), "more than 100 scopes"),
        ([any_of(f"a{i}", f"b{i}") for i in range(7)], "more than 100 scopes"),
        ([chr(97 + i) * 250 for i in range(13)], "more than 3,072 characters"),
        (map(str, itertools.count()), "more than 100 scopes"),
    ],
    ids=["listed", "all_of", "any_of", "combinations", "long", "endless"],
)
def test_a_function_that_names_too_much_makes_the_input_invalid(named: Any, says: str) -> None:
    with pytest.raises(InvalidInputError, match=says):
        ScopeFunction(lambda call: named).scope(call())


def test_no_more_than_the_limit_is_taken_from_a_function() -> None:
    taken = map(str, numbers := itertools.count())

    with pytest.raises(InvalidInputError):
        ScopeFunction(lambda call: taken).scope(call())
    assert next(numbers) == 101


@pytest.mark.parametrize("number", [100, 101])
def test_all_functions_of_one_call_share_the_limit(number: int) -> None:
    half, rest = number // 2, number - number // 2

    @requires_scopes(
        lambda call: [f"a{i}" for i in range(half)], lambda call: [f"b{i}" for i in range(rest)]
    )
    async def read() -> None: ...

    error = InsufficientScopeError if number == 100 else InvalidInputError
    with pytest.raises(error) as refused:
        Caller(person("alice"), Desk()).calls(read)
    assert len(getattr(refused.value, "required_scopes", ())) == (100 if number == 100 else 0)


def test_the_alternatives_that_a_function_names_count() -> None:
    function = ScopeFunction(lambda call: Scope("a") | "b")

    assert function.scope(call()) == Scope("b") | "a"


async def _later(call: OperationCall) -> str:
    return "a"


@pytest.mark.parametrize(
    "function", [lambda: "a", lambda x: "a", lambda call, x: "a", _later, print, len]
)
def test_a_scope_function_without_a_parameter_is_refused_at_import(
    function: Callable[..., Any],
) -> None:
    with pytest.raises(TypeError, match=r"a function that names them takes the call"):
        requires_scopes(function)
