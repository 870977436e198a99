"""Can an argument of a call land on a parameter that is injected?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, Signature
from typing import Any

import pytest
from callers import person
from hypothesis import given
from hypothesis import strategies as st

from toolguard.decorators.injection import Injection
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
        group = last if has_args or draw(st.booleans()) else middle
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
    plan = Injection.plan(tool, CONNECTED)

    positional, named = plan.arguments(case.args, case.kwargs, _NAMES)

    received = case.signature.bind(*positional, **named).arguments
    assert received.pop("rest", ()) == case.extra
    assert received == {**case.values, **_NAMES}


@given(cases())
def test_whatever_the_signature_is_nothing_injected_is_visible(case: Case) -> None:
    def tool(*args: Any, **kwargs: Any) -> None: ...

    tool.__signature__ = case.signature  # type: ignore[attr-defined]
    shown = list(Injection.plan(tool, CONNECTED).visible.parameters)

    assert shown == [name for name in case.signature.parameters if name not in _NAMES]


def test_too_many_positional_arguments_are_an_error_and_never_an_injected_value() -> None:
    def tool(title: str, start: str, *, user_id: str) -> None: ...

    plan = Injection.plan(tool, Policy())

    with pytest.raises(TypeError, match="too many positional arguments"):
        plan.arguments(("a", "b", "mallory"), {}, {"user_id": "alice"})


def test_collected_keywords_cannot_replace_an_injected_value() -> None:
    def tool(title: str, *, user_id: str, **options: str) -> None: ...

    plan = Injection.plan(tool, Policy())
    options = {"user_id": "mallory", "colour": "red"}

    assert plan.arguments((), {"title": "a", **options}, {"user_id": "alice"}) == (
        (),
        {"title": "a", "colour": "red", "user_id": "alice"},
    )
    assert plan.arguments(("a",), options, {"user_id": "alice"}) == (
        (),
        {"title": "a", "colour": "red", "user_id": "alice"},
    )
