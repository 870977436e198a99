"""What does the console show of a file that a server appends its records to?"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.dev.decisions import Decisions, ShownDecision, parse_record, records_file
from toolguard.telemetry import DecisionRecord, JSONLines

SERVER = "http://127.0.0.1:8000/mcp"
REFUSED = DecisionRecord(
    1.5,
    SERVER,
    "refused",
    "insufficient_scope",
    kind="tool",
    operation="add_note",
    issuer="http://127.0.0.1:8800/P2dev",
    subject="bob",
    client="toolguard-cli",
    rule="notes.write",
    missing_scopes=("notes.write",),
    token_scopes=("notes.read",),
)


def line(**members: Any) -> bytes:
    return json.dumps({"time": 1, "server": SERVER, "verdict": "served", **members}).encode()


def shown(file: Path) -> list[ShownDecision]:
    decisions = Decisions()
    decisions.file = file
    return decisions.last({})


def test_a_refusal_is_told_in_plain_words() -> None:
    told = ShownDecision.of(REFUSED, {})

    assert (told.verdict, told.ran, told.asked) == ("refused", False, "tool add_note")
    assert told.caller == "bob through toolguard-cli"
    assert told.code == "insufficient_scope"
    assert told.reason == "the token lacks notes.write; it has notes.read"


def test_a_client_is_named_as_it_registered() -> None:
    assert (
        ShownDecision.of(REFUSED, {"toolguard-cli": "My\x1b editor"}).caller
        == "bob through My  editor"
    )


WORDS: list[tuple[dict[str, Any], str]] = [
    ({"reason": "missing_token"}, "the request has no token"),
    ({"reason": "invalid_token:not_yet_valid"}, "the token is not accepted: not yet valid"),
    (
        {"reason": "access_denied", "rule": "a & b", "denied_by": "role owner"},
        "this caller may not, and no scope changes that; expected: role owner",
    ),
    (
        {"verdict": "failed", "reason": "KeyError", "rule": "r"},
        "the caller was let in; then the operation ended in KeyError; rule: r",
    ),
    ({"verdict": "filtered", "hidden": ["a", "b"]}, "left out: a, b"),
    ({"reason": "quite_new:thing_1"}, "quite new: thing 1"),
    (
        {"verdict": "not_connected", "reason": "connection_required", "connections": ["github"]},
        "the account has to be connected first; connections: github",
    ),
    ({"nested": True}, "called by another tool of the server"),
    ({"missing_scopes": ["a"]}, "the token lacks a; it has no scope"),
    ({"verdict": "connected", "connections": ["github"]}, ""),
    ({"verdict": "approved", "rule": "r"}, ""),
]


@pytest.mark.parametrize(("members", "reason"), WORDS)
def test_each_end_of_a_call_has_its_words(members: dict[str, Any], reason: str) -> None:
    record = parse_record(line(**members))

    assert record is not None
    assert ShownDecision.of(record, {}).reason == reason


CALLERS: list[tuple[dict[str, Any], str, str]] = [
    ({"method": "initialize"}, "initialize", "a caller without a valid token"),
    ({}, "a request", "a caller without a valid token"),
    (
        {"issuer": "i", "client": "nightly", "operation": "x"},
        "operation x",
        "no user through nightly",
    ),
    ({"issuer": "i", "subject": "a", "actor": "b"}, "a request", "a by b"),
    (
        {"issuer": "i", "subject": "a", "verdict": "refreshed", "connections": ["github"]},
        "the account of github",
        "a",
    ),
]


@pytest.mark.parametrize(("members", "asked", "caller"), CALLERS)
def test_operation_and_caller_are_named(members: dict[str, Any], asked: str, caller: str) -> None:
    record = parse_record(line(**members))

    assert record is not None
    assert (ShownDecision.of(record, {}).asked, ShownDecision.of(record, {}).caller) == (
        asked,
        caller,
    )


def test_a_record_is_read_as_it_was_written() -> None:
    assert parse_record(REFUSED.to_json().encode()) == REFUSED


FOREIGN = [
    b"",
    b"INFO: started",
    b'{"time": 1, "server": "http://127.0.0.1:8000/mcp", "verd',
    b"[]",
    b"null",
    b"[" * 100_000,
    b"\xff\xfe\x00",
    b'{"time": ' + b"9" * 5_000 + b"}",
    line(time=True),
    line(time="1"),
    line(time=None),
    line(time=-1),
    line(time=float("nan")),
    line(time=float("inf")),
    line(time=10**30),
    line(verdict="owned"),
    line(verdict=["served"]),
    line(server=7),
    b'{"verdict": "served"}',
]


@pytest.mark.parametrize("written", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_that_is_no_record_is_skipped(written: bytes, tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(line(operation="before") + b"\n" + written + b"\n" + line(operation="after"))

    assert parse_record(written) is None
    assert sorted(each.asked for each in shown(file)) == ["operation after", "operation before"]


def test_members_of_another_kind_are_left_out() -> None:
    record = parse_record(
        line(operation=["x"], kind={}, missing_scopes="a", hidden=[1, "b"], nested=1, alien=2)
    )

    assert record == DecisionRecord(1, SERVER, "served", hidden=("b",))


@given(st.text(), st.lists(st.text()))
def test_whatever_stands_in_a_record_can_be_shown(text: str, texts: list[str]) -> None:
    record = parse_record(line(operation=text, subject=text, reason=text, missing_scopes=texts))

    assert record is not None
    told = ShownDecision.of(record, {})
    said = [told.verdict, told.asked, told.caller, told.code, told.reason]
    assert [each for each in said if not each.isprintable() or len(each) > 301] == []
    assert "".join(said).encode("utf-8")


def test_half_a_character_can_be_shown() -> None:
    record = parse_record(line(operation="\ud800"))

    assert record is not None
    assert ShownDecision.of(record, {}).asked.encode() == b"operation  "


def test_the_newest_are_shown_first_and_no_more_than_thirty(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(b"\n".join(line(time=each // 2, operation=str(each)) for each in range(50)))

    assert [each.asked for each in shown(file)] == [f"operation {49 - n}" for n in range(30)]


def test_only_the_end_of_a_large_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    early = line(time=9, operation="early")
    file.write_bytes(early + b" " * 262_144 + b"\n" + line(operation="late") + b"\n")

    assert [each.asked for each in shown(file)] == ["operation late"]
    file.write_bytes(early + b"\n" + b"x" * 300_000)
    assert shown(file) == []


def test_no_file_shows_nothing(tmp_path: Path) -> None:
    assert Decisions().last({}) == []
    assert shown(tmp_path / "gone.jsonl") == []
    assert shown(tmp_path) == []


def test_servers_of_this_process_are_shown_with_the_others(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(line(time=2, operation="theirs"))
    decisions = Decisions()
    decisions.file = file
    decisions.note(REFUSED)

    assert [each.asked for each in decisions.last({})] == ["operation theirs", "tool add_note"]


# --- where the file is


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files of this test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_file_is_empty_private_and_goes_with_the_server(folder: Path) -> None:
    with records_file("8800") as first:
        JSONLines(first)(REFUSED)
        assert [each.asked for each in shown(first)] == ["tool add_note"]
        assert first.stat().st_mode & 0o777 == 0o600
        assert first.parent.stat().st_mode & 0o777 == 0o700
    assert not first.exists()
    first.write_bytes(b"of a server that was not stopped\n")
    with records_file("8800") as second, records_file("8801") as other:
        assert (second, second.read_bytes()) == (first, b"")
        assert other != second
    assert folder in first.parents


def _link(place: Path, elsewhere: Path) -> None:
    elsewhere.mkdir(mode=0o700)
    place.symlink_to(elsewhere)


def _open_to_all(place: Path, _: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def _of_another_user(place: Path, _: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, 65_534, -1)


@pytest.mark.parametrize("prepare", [_link, _open_to_all, _of_another_user])
def test_a_directory_that_others_can_use_is_refused(prepare: Any, folder: Path) -> None:
    if prepare is _of_another_user and os.getuid():
        pytest.skip("only root can give a directory away")
    with records_file("1") as file:
        place = file.parent
    place.rmdir()
    prepare(place, folder / "elsewhere")

    with pytest.raises(PermissionError, match="not a directory of yours alone: remove it"):
        records_file("1").__enter__()
    assert list(place.iterdir()) == []
