"""Which operations does a message name, and when is that not clear?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.errors import MalformedMessageError
from toolguard.http.jsonrpc import MCPMessage
from toolguard.parsing.lookalikes import resembles
from toolguard.policies.operations import MAX_NAMES, METHODS, named_operations
from toolguard.testing.strategies import json_values

PARAMS: Mapping[str, Mapping[str, Any]] = {
    "tools/call": {"name": "add"},
    "prompts/get": {"name": "plan"},
    "resources/read": {"uri": "a://b"},
    "resources/subscribe": {"uri": "a://b"},
    "resources/unsubscribe": {"uri": "a://b"},
    "completion/complete": {"ref": {"type": "ref/prompt", "name": "plan"}},
    "subscriptions/listen": {"notifications": {"resourceSubscriptions": ["a://b"]}},
}


def test_every_method_that_names_operations_has_an_example() -> None:
    assert PARAMS.keys() == set(METHODS)


@pytest.mark.parametrize("method", PARAMS)
def test_a_known_method_names_one_operation(method: str) -> None:
    (asked,) = named_operations(method, PARAMS[method])

    assert asked.name in ("add", "plan", "a://b")


@pytest.mark.parametrize("method", ["tools/list", "tasks/get", "initialize", "x/y", ""])
def test_a_message_about_the_server_names_no_operation(method: str) -> None:
    assert named_operations(method, {"name": "add", "uri": "a://b", "taskId": "1"}) == ()


@pytest.mark.parametrize("name", ["", " ", "\t", "a\0", "x" * 2_049, 5, None, True, ["add"], {}])
@pytest.mark.parametrize(
    ("method", "parameter"), [("tools/call", "name"), ("resources/subscribe", "uri")]
)
def test_a_name_that_cannot_be_used_is_refused(method: str, parameter: str, name: object) -> None:
    with pytest.raises(MalformedMessageError) as raised:
        named_operations(method, {parameter: name})

    assert raised.value.code == -32602


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_name_is_refused(method: str) -> None:
    if method != "subscriptions/listen":
        with pytest.raises(MalformedMessageError):
            named_operations(method, {})


@pytest.mark.parametrize(
    "params",
    [
        {"ref": {"type": "ref/prompt", "name": "p", "uri": "x://y"}},
        {"ref": {"type": "ref/resource", "name": "p"}},
        {"ref": {"type": ["ref/prompt"], "name": "p"}},
        {"ref": {"type": "ref/prompt", "name": "p"}, "Ref": {}},
    ],
)
def test_a_reference_with_two_readings_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessageError):
        named_operations("completion/complete", params)


@pytest.mark.parametrize("second", ["Arguments", "argument\u017f", "arguments_"])
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_second_spelling_of_arguments_is_refused(method: str, second: str) -> None:
    for more in ({"arguments": {"folder": "work"}}, {}):
        with pytest.raises(MalformedMessageError):
            named_operations(method, {"name": "read", second: {"folder": "home"}, **more})


@pytest.mark.parametrize("second", ["resource_subscriptions", "ResourceSubscriptions"])
def test_a_second_spelling_of_subscriptions_is_refused(second: str) -> None:
    for uris in ({second: ["c://d"]}, {"resourceSubscriptions": ["a://b"], second: ["c://d"]}):
        with pytest.raises(MalformedMessageError):
            named_operations("subscriptions/listen", {"notifications": uris})


def test_more_names_than_allowed_are_refused_unread() -> None:
    enough = [f"a://{number}" for number in range(MAX_NAMES)]
    params = {"notifications": {"resourceSubscriptions": enough}}

    assert len(named_operations("subscriptions/listen", params)) == MAX_NAMES
    enough.append("\0")
    with pytest.raises(MalformedMessageError, match="at most 100"):
        named_operations("subscriptions/listen", params)


@given(st.sampled_from(METHODS), st.dictionaries(st.text(max_size=8), json_values(), max_size=3))
def test_reading_names_something_or_refuses(method: str, stray: dict[str, Any]) -> None:
    params = {**PARAMS[method], **stray}
    try:
        asked = named_operations(method, params)
    except MalformedMessageError:
        return
    assert all(each.name.strip() for each in asked)


@given(st.sampled_from(METHODS), st.dictionaries(st.text(max_size=8), json_values(), max_size=3))
def test_a_message_asks_for_what_the_reader_finds(method: str, stray: dict[str, Any]) -> None:
    params = {**PARAMS[method], **stray}
    try:
        asked = named_operations(method, params)
    except MalformedMessageError:
        with pytest.raises(MalformedMessageError):
            MCPMessage(method, params)
    else:
        assert MCPMessage(method, params).asked == asked


@given(st.sets(st.text(max_size=300)))
def test_a_known_name_resembles_nothing(known: set[str]) -> None:
    assert not resembles(known, known)


def test_what_most_messages_have_resembles_no_name() -> None:
    read = ("name", "uri", "ref", "type", "notifications", "resourceSubscriptions")

    assert not any(resembles(["arguments", "_meta", "task"], [known]) for known in read)
