"""Is a JSON object read in one way only, however long it is?"""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.parsing.strict_json import strict_object

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=8,
)
SPACE = st.text(" \t\r\n", max_size=3)


@given(st.dictionaries(st.text("abc"), VALUES, max_size=5), SPACE, SPACE, st.booleans())
def test_an_object_is_read_like_any_parser_does(
    value: dict[str, object], before: str, after: str, is_long: bool
) -> None:
    written = value | {"d": "x" * 5_000} if is_long else value
    assert strict_object((before + json.dumps(written) + after).encode()) == written


@pytest.mark.parametrize("padding", [0, 5_000])
@pytest.mark.parametrize(
    "text",
    [
        "{} {}",
        "{}x",
        "",
        "   ",
        "\u00a0{}",
        "{}\f",
        "[]",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": 1e999}',
        '{"a": 1, "a": 1}',
        '{"a": ' + "1" * 4_301 + "}",
    ],
)
def test_what_is_no_strict_object_is_refused_at_any_length(text: str, padding: int) -> None:
    assert strict_object((" " * padding + text).encode()) is None


def test_a_number_of_as_many_digits_as_python_takes_is_read() -> None:
    assert strict_object(b'{"a": ' + b"1" * 4_300 + b"}") == {"a": int("1" * 4_300)}
