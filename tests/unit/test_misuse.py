"""What is a developer told who writes a decorator that cannot be meant?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from toolguard import public, requires_auth, requires_scopes, with_connection
from toolguard.decorators.wrapper import GuardDecorator, policy_of
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal


async def tool(*, connection_token: str) -> None: ...


def refuses(kind: type[Exception], message: str, write: Callable[[], object]) -> None:
    """Hold that ``write`` is refused with exactly this sentence."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        write()


# --- requires_scopes


def test_no_scopes_are_refused_with_what_to_write() -> None:
    refuses(
        ValueError,
        'name at least one scope: @requires_scopes("calendar.read"); for "any valid token" write '
        "@requires_auth",
        requires_scopes,
    )


def test_a_list_of_scopes_in_one_string_is_taken_apart() -> None:
    refuses(
        ValueError,
        "'a b' is not a scope: RFC 6749 §3.3 allows printable ASCII without spaces, quotes and "
        "backslashes; write them one by one: ['a', 'b']",
        lambda: requires_scopes("a b"),
    )


@pytest.mark.parametrize("scope", ["", " a", "a ", 'a"', "ä"])
def test_what_is_no_scope_is_refused(scope: str) -> None:
    with pytest.raises(ValueError, match="is not a scope: RFC 6749"):
        requires_scopes("read", scope)


def test_a_scope_that_clients_would_misread_in_a_challenge_is_refused() -> None:
    refuses(
        ValueError,
        "this scope cannot be asked for in a challenge: 'scope=admin'",
        lambda: requires_scopes("scope=admin"),
    )


@pytest.mark.parametrize("scopes", [7, None, {"a": "b"}, b"a"])
def test_scopes_that_are_no_strings_are_refused_by_type(scopes: Any) -> None:
    with pytest.raises(TypeError, match=r"^a scope is a string, not (int|NoneType|dict|bytes)"):
        requires_scopes(scopes)


@pytest.mark.parametrize("scopes", [["a", "b"], ("a", "b")])
def test_scopes_in_a_list_are_shown_one_by_one(scopes: Any) -> None:
    refuses(
        TypeError,
        "name the scopes one by one: write 'a', 'b'",
        lambda: requires_scopes(scopes),
    )


def test_a_guard_without_its_parentheses_is_told_to_have_some() -> None:
    refuses(
        TypeError,
        'write @requires_scopes("calendar.read"), with the scopes in parentheses; a function that '
        "names them takes the call: @requires_scopes(lambda call: ...)",
        lambda: requires_scopes(greet),  # type: ignore[arg-type]
    )


def test_and_written_as_a_word_is_refused_with_the_operator() -> None:
    refuses(
        TypeError,
        "a Scope has no truth value: combine rules with & and | (not `and` and `or`), and decide "
        "with .allows(granted)",
        lambda: requires_scopes(Scope("a") and Scope("b")),
    )


# --- with_connection


def test_a_connection_without_a_name_is_refused() -> None:
    refuses(
        ValueError,
        'name the connection: @with_connection("google-calendar")',
        lambda: with_connection(""),
    )


def test_a_connection_without_its_parentheses_is_told_to_have_some() -> None:
    refuses(
        TypeError,
        'write @with_connection("google-calendar"): the name comes first',
        lambda: with_connection(tool),  # type: ignore[arg-type]
    )


def test_scopes_of_a_connection_in_a_string_are_shown_as_a_list() -> None:
    refuses(
        TypeError,
        "write scopes=['x']: a list of scopes",
        lambda: with_connection("mail", scopes="x"),
    )


def test_an_empty_list_of_scopes_of_a_connection_is_refused() -> None:
    refuses(
        ValueError,
        "scopes=[] asks for nothing: leave it out to accept the scopes that were granted",
        lambda: with_connection("mail", scopes=[]),
    )


@pytest.mark.parametrize("scopes", [["a b"], ["a", ""]])
def test_scopes_of_a_connection_that_are_no_scopes_are_refused(scopes: list[str]) -> None:
    with pytest.raises(ValueError, match="is not a scope: RFC 6749"):
        with_connection("mail", scopes=scopes)


@pytest.mark.parametrize("name", ["", "a b", "calendar-token", "1st", "a.b", "class", "user_id"])
def test_a_name_that_a_connection_cannot_arrive_under_is_refused(name: str) -> None:
    refuses(
        ValueError,
        f'as_={name!r} cannot be the parameter that takes a connection: write as_="calendar_token"',
        lambda: with_connection("mail", as_=name),
    )


# --- what is decorated


class Widget:
    """Anything that is not a function."""

    @classmethod
    async def make(cls) -> None: ...


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        (Widget, "type"),
        (vars(Widget)["make"], "classmethod"),
        (staticmethod(tool), "staticmethod"),
        (Widget(), "Widget"),
        ("tool", "str"),
        (None, "NoneType"),
    ],
)
def test_what_is_no_function_is_refused_with_where_to_write_the_guard(
    thing: Any, kind: str
) -> None:
    refuses(
        TypeError,
        f"<guard: a> guards functions, not {kind}: write it directly above `def`, below the line "
        "that registers the tool",
        lambda: requires_scopes("a")(thing),
    )


def test_a_tool_that_a_framework_made_of_a_function_is_refused() -> None:
    tools = pytest.importorskip("fastmcp.tools")

    refuses(
        TypeError,
        "<guard: any authenticated caller> guards functions, not FunctionTool: write it directly "
        "above `def`, below the line that registers the tool",
        lambda: requires_auth(tools.Tool.from_function(greet)),
    )


async def greet(name: str) -> str:
    return f"hello {name}"


def test_a_connection_that_the_function_does_not_take_is_refused() -> None:
    refuses(
        TypeError,
        "greet() does not take the token of connection 'mail': add `*, connection_token: str` to "
        "its parameters, or name the one it has with with_connection('mail', ..., as_=...)",
        lambda: with_connection("mail")(greet),
    )


def test_a_connection_under_a_name_the_function_does_not_take_is_refused() -> None:
    refuses(
        TypeError,
        "tool() does not take the token of connection 'mail': add `*, mail: str` to its "
        "parameters, or name the one it has with with_connection('mail', ..., as_=...)",
        lambda: with_connection("mail", as_="mail")(tool),
    )


@pytest.mark.parametrize("decorator", [requires_auth, requires_scopes("admin"), public])
def test_a_positional_user_id_is_refused_with_both_ways_out(decorator: GuardDecorator) -> None:
    def ban_user(user_id: str | None) -> None: ...

    refuses(
        TypeError,
        "ban_user() takes user_id by position: write `*, user_id: str` for the "
        "caller, or `user_id: Annotated[str, sent_by_client]` for what the client sends",
        lambda: decorator(ban_user),
    )


def test_a_user_id_that_is_a_number_is_refused() -> None:
    def counts(*, user_id: int) -> None: ...

    refuses(
        TypeError,
        "counts() must take the caller as `user_id: str`",
        lambda: requires_auth(counts),
    )


def test_a_caller_who_must_be_somebody_is_refused_where_everybody_is_welcome() -> None:
    async def by_id(*, user_id: str) -> None: ...
    async def by_principal(*, caller: Principal) -> None: ...

    refuses(
        TypeError,
        "by_id() is public, so it may have no caller: write `user_id: str | None`",
        lambda: public(by_id),
    )
    refuses(
        TypeError,
        "by_principal() is public, so it may have no caller: write `caller: Principal | None`",
        lambda: public(by_principal),
    )


# --- what is stacked


@pytest.mark.parametrize(
    "other", [requires_auth, requires_scopes("a"), with_connection("mail")], ids=repr
)
def test_public_with_another_guard_is_refused_in_either_order(other: GuardDecorator) -> None:
    message = "@public cannot be combined with another guard: remove one of them"

    refuses(ValueError, message, lambda: public(other(tool)))
    if not other.policy.connections:
        refuses(ValueError, message, lambda: other(public(greet)))


@pytest.mark.parametrize(
    "below",
    [with_connection("calendar"), with_connection("mail", scopes=["send"])],
    ids=["two connections", "one connection twice"],
)
def test_two_connections_under_one_name_are_refused(below: GuardDecorator) -> None:
    refuses(
        ValueError,
        "two connections cannot both arrive as connection_token: give each a parameter of its own "
        "with with_connection(..., as_=...)",
        lambda: with_connection("mail")(below(tool)),
    )


def test_the_same_connection_declared_twice_is_one() -> None:
    guarded = with_connection("mail")(with_connection("mail")(tool))

    assert policy_of(guarded) == with_connection("mail").policy


def test_a_guard_shows_what_it_asks_for() -> None:
    assert repr(requires_scopes("a", "b")) == "<guard: a & b>"
    assert repr(requires_auth) == "<guard: any authenticated caller>"
    assert repr(public) == "<guard: public>"
    assert repr(with_connection("mail")) == "<guard: any authenticated caller, connection mail>"
