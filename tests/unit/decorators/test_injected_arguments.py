"""Can an argument of a call land on a parameter that is injected?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import person
from support.lines import LINES, Line
from toolguard.decorators.annotations import injected, is_context, sent_by_client
from toolguard.decorators.injection import Injection, sent_by_clients
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal

CONNECTED = Policy(connections=(ConnectionNeed("google-calendar", (), "connection_token"),))
_NAMES = {"user_id": "alice", "connection_token": "ya29.token", "caller": person()}
_SPOOFED = "spoofed"


@dataclass(frozen=True)
class Case:
    """A signature, and a call of its visible part.

    Attributes:
        signature: with the injected parameters somewhere in it.
        values: what the caller means to give, by visible name.
        args: how the call is written: what goes by position,
        kwargs: and what goes by keyword.
        extra: what goes to ``*args``.
    """

    signature: Signature
    values: Mapping[str, int]
    args: tuple[int, ...]
    kwargs: Mapping[str, int | str]
    extra: tuple[int, ...]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.tuples(*[st.integers(0, 2)] * 3))
    first, middle, last = (
        [f"{part}{i}" for i in range(n)] for part, n in zip("abc", count, strict=True)
    )
    has_args = draw(st.booleans())
    default = draw(st.sampled_from((Parameter.empty, None)))
    hidden = draw(st.permutations([*_NAMES]))
    for name in hidden:
        group = last if name == "user_id" or has_args or draw(st.booleans()) else middle
        group.insert(draw(st.integers(0, len(group))), name)
    kinds = (
        *((name, Parameter.POSITIONAL_ONLY) for name in first),
        *((name, Parameter.POSITIONAL_OR_KEYWORD) for name in middle),
        *([("rest", Parameter.VAR_POSITIONAL)] if has_args else ()),
        *((name, Parameter.KEYWORD_ONLY) for name in last),
    )
    parameters = [
        Parameter(
            name,
            kind,
            annotation=Principal if name == "caller" else Parameter.empty,
            default=Parameter.empty if kind is Parameter.VAR_POSITIONAL else default,
        )
        for name, kind in kinds
    ]
    by_position = [name for name in (*first, *middle) if name not in _NAMES]
    by_keyword = [name for name in last if name not in _NAMES]
    values = {name: number for number, name in enumerate((*by_position, *by_keyword))}
    extra = tuple(draw(st.lists(st.integers(100, 200), max_size=2))) if has_args else ()
    split = len(by_position) if extra else draw(st.integers(len(first), len(by_position)))
    spoofed = draw(st.lists(st.sampled_from([*_NAMES]), unique=True))
    return Case(
        Signature(parameters),
        values,
        (*(values[name] for name in by_position[:split]), *extra),
        {
            **{name: values[name] for name in (*by_position[split:], *by_keyword)},
            **dict.fromkeys(spoofed, _SPOOFED),
        },
        extra,
    )


@given(cases())
def test_whatever_the_call_looks_like_every_argument_lands_where_it_is_meant_to(case: Case) -> None:
    def tool(*args: Any, **kwargs: Any) -> None: ...

    tool.__signature__ = case.signature  # type: ignore[attr-defined]
    plan = Injection.from_policy(tool, CONNECTED)

    positional, named = plan.arguments(case.args, case.kwargs, _NAMES)

    received = case.signature.bind(*positional, **named).arguments
    assert received.pop("rest", ()) == case.extra
    assert received == {**case.values, **_NAMES}


@given(cases())
def test_whatever_the_signature_is_nothing_injected_is_visible(case: Case) -> None:
    def tool(*args: Any, **kwargs: Any) -> None: ...

    tool.__signature__ = case.signature  # type: ignore[attr-defined]
    shown = list(Injection.from_policy(tool, CONNECTED).visible.parameters)

    assert shown == [name for name in case.signature.parameters if name not in _NAMES]


def test_too_many_positional_arguments_are_an_error_and_never_an_injected_value() -> None:
    def tool(title: str, start: str, *, user_id: str) -> None: ...

    plan = Injection.from_policy(tool, Policy())

    with pytest.raises(TypeError, match="too many positional arguments"):
        plan.arguments(("a", "b", "mallory"), {}, {"user_id": "alice"})


def test_collected_keywords_cannot_replace_an_injected_value() -> None:
    def tool(title: str, *, user_id: str, **options: str) -> None: ...

    plan = Injection.from_policy(tool, Policy())
    options = {"user_id": "mallory", "colour": "red"}

    assert plan.arguments((), {"title": "a", **options}, {"user_id": "alice"}) == (
        (),
        {"title": "a", "colour": "red", "user_id": "alice"},
    )
    assert plan.arguments(("a",), options, {"user_id": "alice"}) == (
        (),
        {"title": "a", "colour": "red", "user_id": "alice"},
    )


KINDS: Any = tuple(type(Parameter.KEYWORD_ONLY))  # type: ignore[arg-type]


@st.composite
def user_ids(draw: st.DrawFn) -> Parameter:
    """A ``user_id`` written in some way, marked or not."""
    kind = draw(st.sampled_from(KINDS))
    text = draw(st.sampled_from((str, Parameter.empty, Any, str | None)))
    written: Any = Any if text is Parameter.empty else text
    marked = Annotated[written, sent_by_client]
    return Parameter("user_id", kind, annotation=draw(st.sampled_from((text, marked))))


def _function(user_id: Parameter) -> Any:
    def tool(*args: Any, **kwargs: Any) -> None: ...

    tool.__signature__ = Signature([user_id])  # type: ignore[attr-defined]
    return tool


@given(user_ids())
def test_what_a_client_is_meant_to_send_never_disappears_in_silence(user_id: Parameter) -> None:
    is_marked = get_origin(user_id.annotation) is Annotated
    is_for_guard = user_id.kind is Parameter.KEYWORD_ONLY and not is_marked
    function = _function(user_id)
    if not (is_marked or is_for_guard):
        with pytest.raises(TypeError, match="user_id"):
            Injection.from_policy(function, Policy())
        return
    plan = Injection.from_policy(function, Policy())

    assert ("user_id" in plan.sources) is is_for_guard
    assert ("user_id" in plan.visible.parameters) is is_marked


@given(user_ids(), st.booleans())
def test_a_function_is_guarded_or_its_clients_send_all_of_its_arguments(
    user_id: Parameter, declared: bool
) -> None:
    is_marked = get_origin(user_id.annotation) is Annotated
    function = _function(user_id)
    fault = sent_by_clients(function, ["user_id"] if declared else [])

    is_ambiguous = user_id.kind is Parameter.KEYWORD_ONLY and not is_marked and not declared
    assert (fault is not None) is is_ambiguous


def test_the_default_injected_is_replaced_and_never_shown() -> None:
    def tool(day: str, *, user_id: str = injected, caller: Principal = injected) -> None: ...

    plan = Injection.from_policy(tool, Policy())
    values = plan.values(person("alice"), {})

    assert plan.arguments(("monday",), {}, values) == (
        (),
        {"day": "monday", "user_id": "alice", "caller": person("alice")},
    )
    assert [*plan.visible.parameters] == ["day"]


def test_a_default_injected_says_so_in_a_signature() -> None:
    def notes(day: str, *, user_id: str = injected) -> str:
        return f"{day} of {user_id}"

    assert str(signature(notes)).endswith("user_id: 'str' = injected) -> 'str'")


def test_a_default_injected_that_no_guard_fills_is_a_fault() -> None:
    def tool(*, connection_token: str = injected) -> None: ...

    assert sent_by_clients(tool) == (
        "has a parameter connection_token = injected that no guard fills: add the guard, "
        "@requires_auth or @with_connection(..., as_=...)"
    )


class Tools:
    async def pay(self, amount: int, note: str = "") -> None: ...


async def not_a_method(self: int, amount: int) -> None: ...


def test_the_object_of_a_method_is_no_argument_of_its_calls() -> None:
    plan = Injection.from_policy(Tools.pay, Policy())

    assert plan.sent((Tools(),), {"amount": 1}) == {"amount": 1, "note": ""}
    assert plan.sent((), {"amount": 1}, is_whole=False) == {"amount": 1, "note": ""}


@pytest.mark.parametrize("function", [Tools.pay, not_a_method])
def test_an_argument_named_self_that_a_client_sends_counts(function: Any) -> None:
    plan = Injection.from_policy(function, Policy())

    assert plan.sent((), {"self": 7, "amount": 1})["self"] == 7


def test_a_function_outside_of_a_class_has_no_object() -> None:
    assert Injection.from_policy(not_a_method, Policy()).sent((7, 1), {})["self"] == 7


@pytest.mark.parametrize("line", LINES, ids=str)
def test_the_context_of_a_framework_is_told_from_other_values(line: Line) -> None:
    contexts = [line.context, line.context | None, "Context", "mcp.Context | None"]
    others = [str, str | None, "ContextPack", "dict[str, Context]", Any, dict]

    assert all(map(is_context, contexts))
    assert not any(map(is_context, others))


def test_an_unsent_context_with_a_default_is_no_argument_of_a_queued_call() -> None:
    async def pay(amount: int, note: str = "", ctx: Any = None) -> None: ...

    pay.__annotations__["ctx"] = "Context | None"
    plan = Injection.from_policy(pay, Policy())

    assert plan.sent((), {"amount": 1}, is_whole=False) == {"amount": 1, "note": ""}
    assert plan.sent((), {"amount": 1, "ctx": 7}, is_whole=False)["ctx"] == 7
