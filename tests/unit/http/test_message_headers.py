"""Do the headers of a request say the same as its body?"""

from __future__ import annotations

import importlib
import importlib.util
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.envelopes import CALL, JSON, Headers, body, called, encoded, envelope, read
from toolguard.errors import MalformedMessageError

IS_LINE_2 = importlib.util.find_spec("mcp_types") is not None


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("list_notes", b"list_notes"),
        ("list_notes", b" list_notes\t"),
        ("list_notes", encoded("list_notes")),
        ("list notes", b"list notes"),
        ("caf\u00e9", encoded("caf\u00e9")),
        (" padded ", encoded(" padded ")),
        ("=?base64?literal?=", b"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ("=?base64?", b"=?base64?"),
        ("=?BASE64?bGlzdA==?=", b"=?BASE64?bGlzdA==?="),
    ],
)
def test_a_header_may_repeat_the_name(name: str, header: bytes) -> None:
    assert called(name, (b"mcp-name", header)).asked[0].name == name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("list_notes", b"delete_note"),
        ("list_notes", b"List_Notes"),
        ("list_notes", b""),
        ("list_notes", encoded("delete_note")),
        ("list_notes", b"=?base64?bGlzdF9ub3Rlcw?="),
        ("list_notes", b"=?base64?bGlz dF9ub3Rlcw==?="),
        ("list_notes", b"=?base64?bGlzdF9ub3Rlcx==?="),
        ("list_notes", b"=?base64?????=?="),
        ("list_notes", b"=?base64?/w==?="),
        ("list_notes", b"list_notes, delete_note"),
        ("list_notes", b'"list_notes"'),
        ("list%20notes", b"list notes"),
        ("=?base64?bGlzdA==?=", b"=?base64?bGlzdA==?="),
        ("caf\u00e9", "caf\u00e9".encode()),
        ("caf\u00e9", "caf\u00e9".encode("latin-1")),
        ("caf\u00e9", encoded("cafe\u0301")),
        ("list_notes", b"list_notes\x00"),
    ],
)
def test_a_header_that_does_not_repeat_the_name_is_refused(name: str, header: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="Mcp-Name must be"):
        called(name, (b"mcp-name", header))


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "notes://1"}),
        ("resources/subscribe", {"uri": "notes://1"}),
        ("prompts/get", {"name": "summary"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": "summary"}}),
    ],
)
def test_the_header_is_held_against_every_name(method: str, params: dict[str, Any]) -> None:
    sent = body(method, params)
    message = read(sent)
    right = message.asked[0].name.encode()

    assert read(sent, [(b"mcp-name", right)]) == message
    with pytest.raises(MalformedMessageError, match="Mcp-Name must be"):
        read(sent, [(b"mcp-name", right + b"2")])


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tasks/get", {"taskId": "7"}),
        ("tools/list", {}),
        ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["a:1", "a:2"]}}),
    ],
)
def test_where_no_name_is_repeated_the_header_may_say_anything(
    method: str, params: dict[str, Any]
) -> None:
    assert read(body(method, params), [(b"mcp-name", b"7")]).method == method


@pytest.mark.parametrize(
    "header",
    [b"tools/list", b"Tools/Call", b"", b"tools/call,", b"tools/call\xa0", encoded("tools/call")],
)
def test_a_header_that_does_not_repeat_the_method_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="Mcp-Method must be"):
        read(CALL, [(b"mcp-method", header)])


def test_a_header_may_repeat_the_method() -> None:
    assert read(CALL, [(b"mcp-method", b"tools/call ")]).method == "tools/call"


def test_a_response_has_no_method_to_repeat() -> None:
    with pytest.raises(MalformedMessageError, match="Mcp-Method must be"):
        read(envelope(result={}), [(b"mcp-method", b"tools/call")])


@pytest.mark.parametrize(
    "name",
    [b"mcp-method", b"mcp-name", b"mcp-session-id", b"mcp-protocol-version", b"content-type"],
)
@pytest.mark.parametrize(
    "change", [bytes.lower, bytes.title, lambda name: name.replace(b"-", b"_")]
)
def test_a_repeated_header_is_refused(name: bytes, change: Any) -> None:
    with pytest.raises(MalformedMessageError, match="once"):
        read(CALL, [(name, b"a"), (b"accept", b"*/*"), (change(name), b"a")])


def test_other_headers_may_be_repeated() -> None:
    others = [(b"accept", b"a"), (b"accept", b"b"), (b"x-mcp-name", b"c")]

    assert read(CALL, [*JSON, *others]) == read(CALL)


@pytest.mark.parametrize("name", [b"Mcp-Name", b"MCP-NAME", b"mcp_name"])
def test_the_case_of_a_header_does_not_matter(name: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="Mcp-Name must be"):
        called("list_notes", (name, b"delete_note"))


@pytest.mark.parametrize("name", [b"content-encoding", b"Content-Encoding", b"content_encoding"])
@pytest.mark.parametrize(
    "value", [b"gzip", b"GZIP", b"br", b"deflate", b"identity, gzip", b"identity, identity", b"x"]
)
def test_an_encoded_body_is_refused(name: bytes, value: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="without a content encoding"):
        read(CALL, [*JSON, (name, value)])


@pytest.mark.parametrize("value", [b"gzip, chunked", b"gzip", b"chunked, chunked", b"xchunked"])
def test_a_transfer_coding_that_may_still_be_there_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="without a content encoding"):
        read(CALL, [*JSON, (b"transfer-encoding", value)])


@pytest.mark.parametrize(
    "header",
    [
        (b"content-encoding", b"identity"),
        (b"content-encoding", b" Identity "),
        (b"content-encoding", b""),
        (b"transfer-encoding", b"chunked"),
        (b"transfer-encoding", b"Chunked"),
    ],
)
def test_a_body_that_is_sent_as_it_is_may_say_so(header: tuple[bytes, bytes]) -> None:
    assert read(CALL, [*JSON, header]).asked[0].name == "list_notes"


@pytest.mark.parametrize(
    "value",
    [
        b"application/json",
        b"Application/JSON",
        b"application/json; charset=utf-8",
        b"application/json;charset=UTF-8",
        b'application/json; charset="utf-8"',
        b"application/json ; charset=utf8",
    ],
)
def test_the_body_is_json_in_utf_8(value: bytes) -> None:
    assert read(CALL, [(b"content-type", value)]).asked[0].name == "list_notes"


def test_a_content_type_may_be_left_out() -> None:
    assert read(CALL, []).asked[0].name == "list_notes"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"text/plain",
        b"application/json, text/plain",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=a",
        b"application/json; charset=utf-16",
        b"application/json; charset=shift_jis",
        b"application/json; charset=utf-8; charset=utf-7",
        b"application/json-seq",
        b"application/cbor",
    ],
)
def test_a_body_that_would_be_decoded_otherwise_is_refused(value: bytes) -> None:
    with pytest.raises(MalformedMessageError, match="application/json, in UTF-8"):
        read(CALL, [(b"content-type", value)])


# What is "list_notes" in UTF-8 and something else in UTF-7 shows why: ASP.NET, for one, decodes
# a body with the charset it names.
def test_a_charset_can_make_another_operation_of_the_same_bytes() -> None:
    sent = body("tools/call", {"name": "+AGQ-elete_note"})

    assert json.loads(sent.decode("utf-7"))["params"]["name"] == "delete_note"
    with pytest.raises(MalformedMessageError):
        read(sent, [(b"content-type", b"application/json; charset=utf-7")])


# --- laws


def is_read(content: bytes, headers: Headers) -> bool:
    try:
        read(content, headers)
    except MalformedMessageError:
        return False
    return True


names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20).filter(
    lambda name: not name.isspace() and "%00" not in name
)


@given(names, names)
def test_a_header_is_read_as_the_specification_encodes_it(name: str, other: str) -> None:
    assert called(name, (b"mcp-name", encoded(name))).asked[0].name == name
    if other != name:
        assert not is_read(body("tools/call", {"name": name}), [(b"mcp-name", encoded(other))])


@pytest.mark.skipif(not IS_LINE_2, reason="the SDK reads this header since 2.0")
@given(names, names | st.binary(max_size=12).map(lambda raw: f"=?base64?{raw!r}?="))
def test_no_header_is_read_that_the_official_sdk_refuses(name: str, header: str) -> None:
    sdk = importlib.import_module("mcp.shared.inbound")
    usual = sdk.encode_header_value(name)

    assert called(name, (b"mcp-name", usual.encode("ascii"))).asked[0].name == name
    sent = header.strip(" \t").encode("latin-1", "replace")
    if is_read(body("tools/call", {"name": name}), [(b"mcp-name", sent)]):
        assert sdk.decode_header_value(sent.decode("latin-1")) == name
