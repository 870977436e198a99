"""Which messages can no two readers take for different ones?"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import pydantic_core
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from support.envelopes import CALL, body, read
from toolguard.errors import MalformedMessageError
from toolguard.http.jsonrpc import MCPMessage
from toolguard.testing.strategies import json_values

IS_LINE_2 = importlib.util.find_spec("mcp_types") is not None

# Members that some readers take for one another, so that they often meet in one message.
_ENVELOPE = ("jsonrpc", "id", "method", "params", "result", "error")
_MEMBERS = (
    *(*_ENVELOPE, "Method", "METHOD", "param\u017f", "Params", "method\0", "Id"),
    *("name", "Name", "uri", "URI", "ref", "Ref", "type", "notifications", "resourceSubscriptions"),
)
_METHODS = (
    "tools/call",
    "tools/call",
    "resources/read",
    "prompts/get",
    "Tools/Call",
    "tools/call\0",
)
_VALUES = (
    *("2.0", "tools/list", " ", "", "list_notes", "delete_note", "notes://1"),
    *("ref/prompt", "ref/resource", "completion/complete", "subscriptions/listen", *_METHODS),
)


def members(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(_MEMBERS), values, max_size=4)


def envelopes() -> st.SearchStrategy[dict[str, Any]]:
    """Objects that are messages, or almost."""
    strays = members(st.sampled_from(_VALUES) | json_values())
    arguments: dict[str, st.SearchStrategy[Any]] = {
        "name": st.sampled_from(("list_notes", "delete_note")),
        "uri": st.sampled_from(("notes://1", "notes://2")),
        "arguments": json_values(),
    }
    return st.builds(
        lambda method, params, stray, extra: {
            "jsonrpc": "2.0",
            "method": method,
            "params": {**params, **stray},
            **extra,
        },
        st.sampled_from(_METHODS),
        st.fixed_dictionaries({}, optional=arguments),
        st.just({}) | strays,
        st.just({}) | strays,
    )


def outcome(content: bytes) -> MCPMessage | None:
    try:
        return read(content)
    except MalformedMessageError:
        return None


@given(envelopes() | json_values())
def test_what_is_read_is_what_json_loads_reads(value: Any) -> None:
    content = json.dumps(value).encode()
    message = outcome(content)

    if message is not None:
        loaded = json.loads(content)
        assert message.method == loaded.get("method")
        assert message.params == loaded.get("params", {})


@given(
    st.binary(max_size=60)
    | st.builds(lambda a, b: a + CALL + b, st.binary(max_size=3), st.binary(max_size=3))
)
def test_whatever_is_sent_is_read_or_refused(content: bytes) -> None:
    message = outcome(content)

    assert message is None or message.params == json.loads(content).get("params", {})


def lenient(value: Any) -> Any:
    """Read as a reader would that ignores case and stops at NUL: the last member wins."""
    if isinstance(value, Mapping):
        return {
            key.partition("\0")[0].upper().lower(): lenient(each) for key, each in value.items()
        }
    return value


@given(envelopes())
def test_a_lenient_reader_reads_the_same_operation(sent: dict[str, Any]) -> None:
    content = json.dumps(sent).encode()
    message = outcome(content)

    if message is not None:
        other = lenient(json.loads(content))
        method = other.get("method")
        assert message.method == method
        if message.asked and message.method in ("tools/call", "prompts/get"):
            assert other["params"]["name"] == message.asked[0].name
        if message.method == "resources/read":
            assert message.asked[0].name == other["params"]["uri"]
        if method is not None and str(method).strip().lower() == "tools/call":
            assert message.asked


def sdk_reading(content: bytes) -> Any:
    """Return the message that the installed SDK makes of ``content``, by its aliases."""
    if IS_LINE_2:
        adapter = importlib.import_module("mcp_types.jsonrpc").jsonrpc_message_adapter
        return adapter.validate_python(pydantic_core.from_json(content), by_name=False)
    kind = importlib.import_module("mcp.types").JSONRPCMessage
    return kind.model_validate(json.loads(content)).root


@given(envelopes())
@example({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "a"}})
def test_the_official_sdk_reads_the_same_message(sent: dict[str, Any]) -> None:
    content = json.dumps(sent).encode()
    message = outcome(content)

    if message is not None:
        try:
            other = sdk_reading(content)
        except pydantic_core.ValidationError:
            return  # it refuses, for instance an id, what has no say in the operation
        assert getattr(other, "method", None) == message.method
        assert (getattr(other, "params", None) or {}) == message.params


@given(st.text(min_size=1), st.data())
def test_half_a_message_is_no_message(name: str, data: st.DataObject) -> None:
    content = body("tools/call", {"name": name})

    assert outcome(content[: data.draw(st.integers(0, len(content) - 1))]) is None


@given(envelopes())
def test_no_sentence_repeats_what_was_sent(sent: dict[str, Any]) -> None:
    sent["hunter2"] = "hunter2\0"
    sent["Params"] = {"name": "hunter2\0", "hunter2": "hunter2"}

    with pytest.raises(MalformedMessageError) as raised:
        read(json.dumps(sent).encode())

    assert "hunter2" not in str(raised.value)
    assert raised.value.__context__ is None or raised.value.__suppress_context__
