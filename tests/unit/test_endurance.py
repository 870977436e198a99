"""Does the endurance run notice what must not be?"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from endurance.load import Answer, Call, Tally, observed


def call(answer: Answer, started: float = 10.0, ended: float = 11.0, number: str = "1") -> Call:
    return Call(number, "a phase", answer, started, ended)


def result(text: str, **more: Any) -> httpx.Response:
    content = {"content": [{"type": "text", "text": text}], **more}
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": content})


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (result("alice 7"), "served"),
        (result("bob 7"), "other"),
        (result("alice 8"), "other"),
        (result("failed", isError=True), "other"),
        (result('{"error": "connection_required"}', isError=True), "not_connected"),
        (httpx.Response(401, headers={"www-authenticate": 'Bearer scope="a"'}), "missing_token"),
        (httpx.Response(403, json={}), "other"),
        (httpx.Response(500, text="a fault"), "other"),
        (httpx.Response(502, text="Bad Gateway"), "lost"),
        (httpx.Response(503, headers={"retry-after": "1"}), "outage of keys"),
        (httpx.Response(503, text="another 503"), "other"),
    ],
)
def test_an_answer_is_told_from_all_others(response: httpx.Response, answer: Answer) -> None:
    assert observed(response, "alice", "read", "7") == answer


def test_an_account_of_another_user_is_a_wrong_answer() -> None:
    assert observed(result("alice 7 access-alice-2"), "alice", "mail", "7") == "served"
    assert observed(result("alice 7 access-bob-2"), "alice", "mail", "7") == "other"


@pytest.mark.parametrize(
    ("answer", "expected", "wrong"),
    [
        ("served", "served", 0),
        ("outage of keys", "served", 0),
        ("served", "insufficient_scope", 1),
        ("served", "invalid_token", 1),
        ("insufficient_scope", "served", 1),
        ("other", "served", 1),
    ],
)
def test_an_answer_is_wrong_unless_expected_or_an_outage(
    answer: Answer, expected: Answer, wrong: int
) -> None:
    tally = Tally()
    tally.add(call(answer), expected)

    assert len(tally.wrong) == wrong


@pytest.mark.parametrize(
    ("answer", "expected", "wrong"),
    [
        ("served", "invalid_token", 0),
        ("invalid_token", "served", 0),
        ("invalid_token", "insufficient_scope", 0),
        ("served", "insufficient_scope", 1),
    ],
)
def test_validity_is_open_only_while_the_clock_moves(
    answer: Answer, expected: Answer, wrong: int
) -> None:
    tally = Tally(moves=[10.5])
    tally.add(call(answer), expected)
    assert len(tally.wrong) == wrong

    tally.add(call(answer, 10.6, 11.0), expected)
    assert len(tally.wrong) == wrong + 1


def test_a_call_may_be_lost_only_at_a_killed_worker() -> None:
    tally = Tally(kills=[10.5])
    tally.add(call("lost"), "served")
    assert tally.lost_without_reason == []

    tally.add(call("lost", 12.0, 12.1), "served")
    assert len(tally.lost_without_reason) == 1


def test_an_answer_without_a_record_is_counted() -> None:
    tally = Tally(kills=[50.0])
    tally.add(call("served", number="a"), "served")
    tally.add(call("invalid_token", number="b"), "invalid_token")
    tally.add(call("served", 49.8, 49.9, number="c"), "served")
    named, unnamed = json.dumps({"request_id": "a"}), json.dumps({"verdict": "refused"})

    assert tally.unrecorded([named, unnamed, json.dumps({"request_id": "c"})]) == (0, 0)
    assert tally.unrecorded([named, unnamed]) == (1, 1)
    assert tally.unrecorded([unnamed]) == (2, 1)
    assert tally.unrecorded([named]) == (2, 1)
