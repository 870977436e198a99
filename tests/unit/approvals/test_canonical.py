"""Have equal arguments equal digests, and different ones different digests?"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import importlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from support.lines import LINES, Line
from toolguard.approvals.canonical import (
    UnreadableArgumentError,
    canonical_json,
    digest_of,
    sent_arguments,
)

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


class Colour(enum.Enum):
    RED = "red"


class Payee(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    hidden: str = Field(default="", exclude=True)


@dataclasses.dataclass
class Point:
    x: int


def is_same(one: Any, other: Any) -> bool:
    """Compare as JSON does, without Python's 1 == True == 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    return str(one) == str(other)


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_for_equal_values(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == is_same(one, other)


@given(st.dictionaries(st.text(max_size=3), VALUES))
def test_the_order_of_arguments_does_not_matter(arguments: dict[str, Any]) -> None:
    assert digest_of(arguments) == digest_of(dict(reversed(arguments.items())))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (dt.date(2027, 1, 2), "2027-01-02"),
        (dt.datetime(2027, 1, 2, tzinfo=dt.timezone.utc), "2027-01-02T00:00:00+00:00"),
        (decimal.Decimal("1.0"), decimal.Decimal("1.00")),
        (uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (Colour.RED, "red"),
        (b"a", "a"),
        ({"a"}, ["a"]),
        ({1: "a"}, {"1": "a"}),
        (["list", 1], [["list", 1]]),
        (float("nan"), "nan"),
        (float("inf"), float("-inf")),
        (Payee(name="a"), {"name": "a", "hidden": ""}),
        (Payee(name="a", hidden="x"), Payee(name="a", hidden="y")),
        (Payee.model_validate({"name": "a", "m": 1}), Payee.model_validate({"name": "a", "m": 2})),
        (Point(1), {"x": 1}),
        (dt.timedelta(1), dt.timedelta(2)),
    ],
    ids=repr,
)
def test_values_of_different_kinds_are_told_apart(one: Any, other: Any) -> None:
    assert digest_of(one) == digest_of(one)
    assert digest_of(one) != digest_of(other)


def test_a_set_has_one_form_in_every_process() -> None:
    assert canonical_json({"b", "a", "c"}) == '["set","a","b","c"]'


@pytest.mark.parametrize("value", [object(), {"a": object()}, [lambda: None], Point])
def test_a_value_of_an_unknown_type_has_no_digest(value: Any) -> None:
    with pytest.raises(UnreadableArgumentError, match="has no canonical form"):
        digest_of(value)


def test_a_value_that_is_nested_too_deeply_has_no_digest() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]

    with pytest.raises(UnreadableArgumentError):
        digest_of(value)


class Masked(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


def test_a_text_that_hides_itself_is_told_apart() -> None:
    assert digest_of(Masked("a")) != digest_of(Masked("b"))


@pytest.mark.parametrize("line", LINES, ids=str)
def test_only_the_context_of_a_framework_is_no_argument(line: Line) -> None:
    types: Any = importlib.import_module("mcp_types" if line.modern else "mcp.types")
    text = types.TextContent(type="text", text="a")
    context = line.context.__new__(line.context)

    assert sent_arguments({"content": text, "ctx": context}) == {"content": text}
    assert digest_of(text) != digest_of(types.TextContent(type="text", text="b"))
