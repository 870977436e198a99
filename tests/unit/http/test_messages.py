"""Is a message refused unless every server reads the same one?"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from support.envelopes import CALL, body, envelope, named, read
from toolguard.errors import MalformedMessageError
from toolguard.http.jsonrpc import MCPMessage
from toolguard.policies.operations import OperationCall

# --- what is read


@pytest.mark.parametrize(
    ("method", "params", "operation"),
    [
        ("tools/call", {"name": "list_notes"}, ("tool", "list_notes")),
        ("resources/read", {"uri": "notes://1"}, ("resource", "notes://1")),
        ("resources/subscribe", {"uri": "notes://1"}, ("resource", "notes://1")),
        ("resources/unsubscribe", {"uri": "notes://1"}, ("resource", "notes://1")),
        ("prompts/get", {"name": "summary"}, ("prompt", "summary")),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "summary"}, "argument": {}},
            ("prompt", "summary"),
        ),
        (
            "completion/complete",
            {"ref": {"type": "ref/resource", "uri": "notes://{id}"}, "argument": {}},
            ("resource", "notes://{id}"),
        ),
        (
            "subscriptions/listen",
            {"notifications": {"resourceSubscriptions": ["notes://1", "notes://2"]}},
            ("resource", "notes://1"),
        ),
        ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}, None),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": []}}, None),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": None}}, None),
        ("initialize", {"protocolVersion": "2025-11-25"}, None),
        ("tools/list", {}, None),
        ("tasks/get", {"taskId": "1", "name": "list_notes", "Name": "x"}, None),
        ("notifications/initialized", {}, None),
        ("com.example/anything", {"name": 1}, None),
    ],
)
def test_the_operation_is_what_the_parameters_name(
    method: str, params: dict[str, Any], operation: tuple[str, str] | None
) -> None:
    message = read(body(method, params))

    assert (message.method, message.params) == (method, params)
    named_first = [(each.kind, each.name) for each in message.asked][:1]
    assert named_first == ([] if operation is None else [operation])


def test_parameters_may_be_left_out() -> None:
    assert read(envelope(method="tools/list")) == MCPMessage("tools/list", {}, 1)


@pytest.mark.parametrize("outcome", [{"result": {}}, {"error": {"code": -1, "message": "no"}}])
def test_a_response_has_no_method_and_is_no_operation(outcome: dict[str, Any]) -> None:
    message = read(envelope(**outcome))

    assert (message.method, message.asked) == (None, ())


def test_every_resource_that_is_subscribed_to_is_named() -> None:
    uris = ["notes://1", "NOTES://2"]
    params = {"notifications": {"resourceSubscriptions": uris}}

    assert named(read(body("subscriptions/listen", params))) == [
        ("notes://1",),
        ("NOTES://2", "notes://2"),
    ]


def test_a_name_is_kept_as_it_was_sent_and_held_in_every_spelling() -> None:
    message = read(body("resources/read", {"uri": "NOTES://x/a/../private?b"}))

    (names,) = named(message)
    uri = "NOTES://x/a/../private?b"
    assert message.asked == (OperationCall("resource", uri, {"uri": uri}),)
    assert names[0] == "NOTES://x/a/../private?b"
    assert "notes://x/private" in names


def test_parameters_are_not_in_the_representation() -> None:
    message = read(body("tools/call", {"name": "sign_in", "arguments": {"password": "hunter2"}}))

    assert "hunter2" not in repr(message)
    assert "sign_in" in repr(message)


def test_a_message_made_by_hand_has_a_name_as_well() -> None:
    with pytest.raises(MalformedMessageError, match="name must be given"):
        MCPMessage("tools/call", {})


@pytest.mark.parametrize("around", [b" %s", b"%s\n", b"\r\n\t %s \t"])
def test_white_space_around_a_message_is_no_other_message(around: bytes) -> None:
    assert read(around % CALL) == read(CALL)


# --- what is no message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"tools/call"',
        b"{}",
        b"{",
        CALL + b"x",
        CALL + CALL,
        CALL + b"\0",
        CALL + b"\n" + CALL,
        b"\xef\xbb\xbf" + CALL,
        b"\xc2\xa0" + CALL,
        b"\x1e" + CALL,
        CALL.replace(b"list_notes", b"list\xffnotes"),
        CALL.replace(b"list_notes", b"list\xed\xa0\x80notes"),
        CALL.replace(b"list_notes", b"list\\ud800notes"),
        CALL.replace(b"list_notes", b"list\xc0\xaenotes"),
        CALL.replace(b"list_notes", b"list\nnotes"),
        CALL.replace(b"list_notes", b"list\\xnotes"),
        CALL.replace(b'"', b"'"),
        CALL.replace(b": {}", b": NaN"),
        CALL.replace(b": {}", b": 1e999"),
        CALL.replace(b": {}", b": " + b"9" * 5_000),
        CALL.replace(b": {}", b": /* */ {}"),
        CALL.replace(b": {}", b": {},"),
        CALL.replace(b": {}", b": " + b'{"a":' * 40 + b"1" + b"}" * 40),
        CALL.replace(b": {}", b": " + b"[" * 100_000 + b"]" * 100_000),
        CALL.decode().encode("utf-16"),
        CALL.decode().encode("utf-16-le"),
        CALL.decode().encode("utf-16-be"),
        CALL.decode().encode("utf-32"),
        gzip.compress(CALL, mtime=0),
        zlib.compress(CALL),
    ],
)
def test_what_is_not_one_json_object_in_utf_8_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        read(content)


@pytest.mark.parametrize("content", [b"[]", b"[%s]" % CALL, b" \r\n[%s, %s]" % (CALL, CALL)])
def test_a_batch_is_refused_with_a_sentence(content: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="batches are not supported"):
        read(content)


@pytest.mark.parametrize(
    "content",
    [
        envelope(),
        envelope(result={}, error={}),
        envelope(result={}, params={}),
        envelope(result={}, method=None),
        envelope(result={}, method="tools/list"),
        envelope(error={}, method="tools/list"),
        *(envelope(method="tools/list", jsonrpc=it) for it in ("1.0", "", 2.0, 2, None, ["2.0"])),
        b'{"id": 1, "method": "tools/list"}',
        *(envelope(method=it) for it in (1, None, True, ["tools/call"], {"a": 1}, "")),
        *(envelope(method="tools/list", params=it) for it in ([], ["a"], "a", 1, False, None)),
    ],
)
def test_what_is_not_json_rpc_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        read(content)


@pytest.mark.parametrize("method", ["tools/call", "prompts/get", "resources/read"])
@pytest.mark.parametrize("name", [None, 1, True, [], ["a"], {}, "", " ", "a\0", "a\n", "a" * 3_000])
def test_an_operation_has_a_name(method: str, name: object) -> None:
    parameter = "uri" if method == "resources/read" else "name"

    with pytest.raises(MalformedMessageError, match=f"^{parameter} "):
        read(body(method, {parameter: name}))
    with pytest.raises(MalformedMessageError, match=f"^{parameter} must be given"):
        read(body(method, {}))


@pytest.mark.parametrize(
    "ref",
    [
        None,
        "ref/prompt",
        {},
        {"type": "ref/prompt"},
        {"type": "ref/prompt", "uri": "notes://1"},
        {"type": "ref/resource", "name": "summary"},
        {"type": "ref/tool", "name": "list_notes"},
        {"type": ["ref/prompt"], "name": "summary"},
        {"type": None, "name": "summary"},
        {"type": "ref/prompt", "name": "summary", "uri": "notes://1"},
        {"type": "ref/prompt", "name": "summary", "URI": "notes://1"},
        {"type": "ref/prompt", "name": "summary", "Type": "ref/resource"},
    ],
)
def test_what_is_completed_is_one_prompt_or_one_resource(ref: object) -> None:
    with pytest.raises(MalformedMessageError):
        read(body("completion/complete", {"ref": ref}))


@pytest.mark.parametrize(
    "notifications",
    [
        None,
        [],
        {"resourceSubscriptions": "notes://1"},
        {"resourceSubscriptions": {"uri": "notes://1"}},
        {"resourceSubscriptions": ["notes://1", 1]},
        {"resourceSubscriptions": ["notes://1", ""]},
        {"resourceSubscriptions": [f"notes://{number}" for number in range(101)]},
        {"resource_subscriptions": ["notes://1"]},
        {"ResourceSubscriptions": ["notes://1"]},
    ],
)
def test_what_is_listened_to_is_a_list_of_uris(notifications: object) -> None:
    with pytest.raises(MalformedMessageError):
        read(body("subscriptions/listen", {"notifications": notifications}))


# --- names that a lenient reader takes for others

# CVE-2026-27896 of the Go SDK: the case of members, and two letters that fold to ASCII;
# GHSA-q382-vc8q-7jhj of its next version: a member that ends in NUL.
LOOKALIKES: dict[str, Callable[[str], str]] = {
    "upper case": str.upper,
    "title case": str.title,
    "a long s": lambda name: name.replace("s", "\u017f"),
    "a Kelvin sign": lambda name: name.replace("k", "\u212a"),
    "no dot": lambda name: name.replace("i", "\u0131"),
    "a dot": lambda name: name.replace("i", "\u0130"),
    "wide letters": lambda name: "".join(chr(ord(each) + 0xFEE0) for each in name),
    "an ordinal": lambda name: name.replace("a", "\u00aa"),
    "a NUL at the end": lambda name: name + "\0",
    "a NUL and more": lambda name: name + "\0x",
    "a blank at the end": lambda name: name + " ",
    "a blank before it": lambda name: " " + name,
    "an underscore": lambda name: name[:2] + "_" + name[2:],
    "an accent": lambda name: name[:1] + "\u0301" + name[1:],
    "a slash": lambda name: "/" + name,
}


def lookalikes(*names: str) -> list[Any]:
    return [
        pytest.param(change(name), id=f"{name}, {what}")
        for what, change in LOOKALIKES.items()
        for name in names
        if change(name) != name
    ]


@pytest.mark.parametrize(
    "member", lookalikes("method", "params", "jsonrpc", "result", "error", "id")
)
@pytest.mark.parametrize("first", [True, False])
def test_a_member_that_resembles_one_of_a_message_is_refused(member: str, first: bool) -> None:
    envelope = json.loads(CALL)
    envelope = {member: {}, **envelope} if first else {**envelope, member: {}}

    with pytest.raises(MalformedMessageError, match="Spell jsonrpc, id, method"):
        read(json.dumps(envelope).encode())


def test_a_response_is_no_request_for_somebody_who_ignores_case() -> None:
    with pytest.raises(MalformedMessageError, match="exactly so"):
        read(envelope(result={}, Method="tools/call", Params={"name": "delete_note"}))


@pytest.mark.parametrize("member", lookalikes("name"))
@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_parameter_that_resembles_the_name_is_refused(method: str, member: str) -> None:
    for params in ({"name": "list_notes", member: "delete_note"}, {member: "delete_note"}):
        with pytest.raises(MalformedMessageError, match=r"Spell name(, arguments)? exactly so"):
            read(body(method, params))


@pytest.mark.parametrize("member", lookalikes("uri"))
def test_a_parameter_that_resembles_the_uri_is_refused(member: str) -> None:
    with pytest.raises(MalformedMessageError, match=r"Spell uri(, arguments)? exactly so"):
        read(body("resources/read", {"uri": "notes://1", member: "notes://2"}))


@pytest.mark.parametrize("member", ["name", "Name", "uri", "method", "a\0"])
def test_arguments_may_be_called_anything(member: str) -> None:
    arguments = {member: "delete_note"}

    message = read(body("tools/call", {"name": "list_notes", "arguments": arguments}))

    assert message.asked == (OperationCall("tool", "list_notes", arguments),)


@pytest.mark.parametrize(
    "method", lookalikes("tools/call", "resources/read", "completion/complete")
)
def test_a_method_that_resembles_a_known_one_is_refused(method: str) -> None:
    with pytest.raises(MalformedMessageError):
        read(body(method, {"name": "delete_note", "uri": "notes://1"}))


@pytest.mark.parametrize(
    "method",
    [
        "tools//call",
        "tools.call",
        "tools_call",
        "toolsCall",
        "/tools/call/",
        "tools:call",
        "Tools/call",
    ],
)
def test_a_method_with_other_separators_is_refused(method: str) -> None:
    with pytest.raises(MalformedMessageError, match="exactly so"):
        read(body(method, {"name": "delete_note"}))


@pytest.mark.parametrize(
    "method", ["tools%2Fcall", "=?base64?dG9vbHMvY2FsbA==?=", "a b", "a\tb", "\u00e9"]
)
def test_a_method_has_no_character_that_could_be_decoded(method: str) -> None:
    with pytest.raises(MalformedMessageError, match="such as tools/call"):
        read(body(method, {"name": "delete_note"}))


@pytest.mark.parametrize(
    "content",
    [
        b'{"jsonrpc":"2.0","method":"tools/list","method":"tools/call","params":{"name":"a"}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","name":"b"}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}',
        b'{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}',
    ],
)
def test_a_member_that_is_named_twice_is_refused(content: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="names no member twice"):
        read(content)
