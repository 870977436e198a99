"""What does a policy decision point get to see, and what follows from what it answers?"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import person
from support.decision_points import FAULTS, PERMIT_ALL, DecisionPointImitation, Fault, hang, raw
from support.virtual_time import run_in_virtual_time
from toolguard import Answer, OperationCall, Principal, requires
from toolguard.engines import AuthZEN, BasicClient, BearerClient, authzen
from toolguard.tokens.client_credentials import ClientCredentials

ALICE = person("alice", claims={"sub": "alice"})
PAY = OperationCall("tool", "pay", {"to": "bob", "pin": "1234"})
ALL = {(PERMIT_ALL, PERMIT_ALL)}


def asking(point: DecisionPointImitation, **settings: Any) -> AuthZEN:
    transport = httpx.ASGITransport(point.app, raise_app_exceptions=False)
    return authzen(**{"url": point.url, "transport": transport, **settings})


def run(engine: AuthZEN, *asked: Callable[[AuthZEN], Awaitable[Any]]) -> list[Any]:
    async def ask() -> list[Any]:
        try:
            return [await each(engine) for each in asked]
        finally:
            await engine.aclose()

    found, _ = run_in_virtual_time(ask())
    if isinstance(found, Exception):
        raise found
    return found


def answer(engine: AuthZEN, call: OperationCall = PAY, caller: Principal = ALICE) -> Answer:
    (found,) = run(engine, lambda e: e(caller, call))
    assert isinstance(found, Answer)
    return found


def tools(*names: str) -> list[OperationCall]:
    return [OperationCall("tool", name) for name in names]


def answers(engine: AuthZEN, *calls: OperationCall) -> list[str | None]:
    (found,) = run(engine, lambda e: e.answer_each(ALICE, calls))
    return [None if each is None else each.verdict for each in found]


# --- decisions


def copying(_: Principal, call: OperationCall) -> list[dict[str, Any]]:
    """Return two questions, as COAZ-MCP has them for a tool that copies an object."""
    ids = {"read": call.arguments["source"], "write": call.arguments["destination"]}
    return [
        {"action": {"name": name}, "resource": {"type": "object", "id": id_}}
        for name, id_ in ids.items()
    ]


@pytest.mark.parametrize("has_evaluations", [True, False])
@pytest.mark.parametrize(
    ("permitted", "verdict"),
    [
        ({("alice", "a"), ("alice", "b")}, "permit"),
        ({("alice", "a")}, "deny"),
        ({("alice", "b")}, "deny"),
        (set(), "deny"),
    ],
)
def test_a_call_with_several_questions_needs_every_permit(
    permitted: set[tuple[str, str]], verdict: str, has_evaluations: bool
) -> None:
    point = DecisionPointImitation(permitted=permitted, batches=has_evaluations)
    call = OperationCall("tool", "copy", {"source": "a", "destination": "b"})

    assert answer(asking(point, mapping=copying), call).verdict == verdict
    assert [path for path, _ in point.asked] == (
        ["/access/v1/evaluations"] if has_evaluations else ["/access/v1/evaluation"] * 2
    )


def test_a_list_asks_all_questions_of_its_tools_at_once() -> None:
    def both(_: Principal, call: OperationCall) -> list[dict[str, Any]]:
        first, second = list(call.name)
        return [{"resource": {"type": "object", "id": id_}} for id_ in (first, second)]

    point = DecisionPointImitation(permitted={("alice", "a"), ("alice", "b")})
    found = answers(asking(point, mapping=both), *tools("ab", "ac", "abc", "ba"))

    assert found == ["permit", "deny", None, "permit"]
    assert [len(body["evaluations"]) for _, body in point.asked] == [6]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_fault_permits_a_call_with_several_questions(fault: Fault) -> None:
    point = DecisionPointImitation(permitted=ALL)
    point.fault = fault
    call = OperationCall("tool", "copy", {"source": "a", "destination": "b"})

    assert answer(asking(point, mapping=copying), call).verdict == "try again"


def test_a_decision_is_a_permit_or_a_denial() -> None:
    point = DecisionPointImitation(permitted={("alice", "pay")})

    assert answer(asking(point)).verdict == "permit"
    assert answer(asking(point), caller=person("bob", claims={"sub": "bob"})).verdict == "deny"
    assert answer(asking(point), OperationCall("tool", "fire")).verdict == "deny"


def test_the_question_is_the_mapping_and_nothing_else() -> None:
    point = DecisionPointImitation()

    answer(asking(point))

    ((path, body),) = point.asked
    assert path == "/access/v1/evaluation"
    assert body == {
        "subject": {
            "type": "identity",
            "id": "alice",
            "properties": {"issuer": "https://issuer.example"},
        },
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "pay"},
        "context": {"agent": "desktop"},
    }
    (headers,) = point.headers
    assert headers["content-type"] == "application/json"
    assert {"authorization", "cookie"}.isdisjoint(headers)


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"reason_admin": {"en": "policy C0"}, "reason_user": {"en": "no"}}, "policy C0"),
        ({"reason": "too late"}, "too late"),
        ({"reason_user": {"en-403": "no"}}, "no"),
        *(({"reason": 7}, ""), ({"reason_admin": {}}, ""), ({}, ""), (None, "")),
        ({"reason": "x" * 999}, "x" * 200),
        ({"error": {"status": 404, "message": "?"}}, ""),
    ],
)
def test_a_denial_has_its_reason_for_the_record(context: Any, reason: str) -> None:
    point = DecisionPointImitation()
    point.context = context

    assert answer(asking(point)) == Answer.deny(reason)


def test_a_denial_may_be_read_as_what_a_client_can_act_on() -> None:
    point = DecisionPointImitation()
    point.context = {"obligations": ["step-up"]}

    def read(context: Mapping[str, Any]) -> Answer | None:
        return Answer.needs_sign_in(max_age=60) if "obligations" in context else None

    assert answer(asking(point, denial=read)) == Answer.needs_sign_in(max_age=60)
    point.context = {"reason": "no"}
    assert answer(asking(point, denial=read)) == Answer.deny("no")


@pytest.mark.parametrize("said", [Answer.permit(), True, "permit", ValueError("permit")])
def test_no_reading_of_a_denial_permits(said: Any) -> None:
    def read(_: Mapping[str, Any]) -> Any:
        if isinstance(said, Exception):
            raise said
        return said

    assert answer(asking(DecisionPointImitation(), denial=read)).verdict == "deny"


# --- faults


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whatever_is_not_a_decision_cannot_be_told(fault: Fault) -> None:
    point = DecisionPointImitation(permitted=ALL)
    point.fault = fault

    assert answer(asking(point, timeout=0.5)).verdict == "try again"
    assert answers(asking(point, timeout=0.5), *tools("a", "b")) == ["try again"] * 2


def test_a_decision_point_that_hangs_cannot_be_told() -> None:
    point = DecisionPointImitation()
    point.fault = hang

    assert answer(asking(point, timeout=0.02)) == Answer.try_again("no answer")


@given(st.binary(max_size=40) | st.text(max_size=40))
def test_no_body_but_an_explicit_permit_permits(body: bytes | str) -> None:
    point = DecisionPointImitation()
    point.fault = raw(body)

    assert answer(asking(point)).verdict in ("try again", "deny")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda i: (
            st.lists(i, max_size=3)
            | st.dictionaries(
                st.sampled_from(["decision", "context", "error", "evaluations"]), i, max_size=3
            )
        ),
        max_leaves=8,
    )
)
def test_only_a_true_decision_permits(body: Any) -> None:
    point = DecisionPointImitation()
    point.fault = raw(json.dumps(body))

    permits = isinstance(body, dict) and body.get("decision") is True
    if answer(asking(point)).verdict == "permit":
        assert permits
    assert "permit" not in answers(asking(point), *tools("a")) or (
        body["evaluations"][0]["decision"] is True and len(body["evaluations"]) == 1
    )


def test_after_failures_of_several_callers_it_is_asked_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    point = DecisionPointImitation()
    point.fault = raw("", 500)
    engine = asking(point)
    people = [person(each, claims={"sub": each}) for each in "abcdefgh"]

    found = run(engine, *(lambda e, who=who: e(who, PAY) for who in people))

    assert {each.verdict for each in found} == {"try again"}
    assert len(point.asked) == 3
    assert "asked less often" in caplog.text


# --- lists


def test_a_list_is_one_request() -> None:
    names = [f"tool{n}" for n in range(200)]
    point = DecisionPointImitation(permitted={("alice", name) for name in names[::2]})

    found = answers(asking(point), *tools(*names))

    assert found == ["permit", "deny"] * 100
    assert [path for path, _ in point.asked] == ["/access/v1/evaluations"]


def test_a_very_long_list_is_a_few_requests() -> None:
    point = DecisionPointImitation(permitted=ALL)

    found = answers(asking(point), *tools(*(f"tool{n}" for n in range(1_001))))

    assert found == ["permit"] * 1_001
    assert len(point.asked) == 3


def test_without_batches_each_operation_is_asked_about() -> None:
    point = DecisionPointImitation(permitted={("alice", "a")}, batches=False)

    assert answers(asking(point), *tools("a", "b", "c")) == ["permit", "deny", "deny"]
    assert [path for path, _ in point.asked] == ["/access/v1/evaluation"] * 3


def test_a_template_is_left_open() -> None:
    point = DecisionPointImitation()
    calls = [OperationCall("resource", "a://{b}"), OperationCall("resource", "a://b")]

    assert answers(asking(point), *calls) == [None, "deny"]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_another_number_of_decisions_cannot_be_told(number: int) -> None:
    point = DecisionPointImitation()
    point.fault = raw(json.dumps({"decision": True, "evaluations": [{"decision": True}] * number}))

    assert answers(asking(point), *tools("a", "b")) == ["try again"] * 2


def test_one_bad_decision_spoils_no_other() -> None:
    point = DecisionPointImitation()
    entries = [{"decision": True}, {"decision": "true"}, {"decision": False}, None]
    point.fault = raw(json.dumps({"evaluations": entries}))

    assert answers(asking(point), *tools(*"abcd")) == ["permit", "try again", "deny", "try again"]


def test_nothing_is_asked_about_an_empty_list() -> None:
    point = DecisionPointImitation()

    assert answers(asking(point)) == []
    assert (point.asked, point.discoveries) == ([], [])


# --- arguments


def by_recipient(principal: Principal, call: OperationCall) -> Mapping[str, Any]:
    return {
        "resource": {
            "type": "account",
            "id": call.arguments["to"],
            "properties": dict(call.arguments),
        }
    }


def test_arguments_leave_only_by_a_mapping_and_never_the_named_ones() -> None:
    point = DecisionPointImitation(permitted={("alice", "bob")})

    assert answer(asking(point, mapping=by_recipient, never_sent=["pin"])).verdict == "permit"
    ((_, body),) = point.asked
    assert body["resource"] == {"type": "account", "id": "bob", "properties": {"to": "bob"}}


def test_a_mapping_that_needs_arguments_leaves_lists_open() -> None:
    point = DecisionPointImitation()
    engine = asking(point, mapping=by_recipient)

    assert requires(engine).policy.reads_arguments
    assert answers(engine, *tools("pay")) == [None]
    assert not requires(asking(point)).policy.reads_arguments


@pytest.mark.parametrize(
    "mapping",
    [
        lambda p, c: c.arguments["pin"],
        lambda p, c: {"subject": {"type": "identity", "id": "bob"}},
        lambda p, c: {"resource": object()},
        lambda p, c: {"resource": {"type": "account", "id": float("nan")}},
        lambda p, c: {"resource": {"type": "account", "id": "x" * 300_000}},
    ],
)
def test_a_question_that_cannot_be_asked_is_a_denial(mapping: Any) -> None:
    point = DecisionPointImitation(permitted=ALL)

    found = answer(asking(point, mapping=mapping, never_sent=["pin"]))

    assert found.verdict == "deny"
    assert found.reason.startswith("nothing can be asked: ")
    assert point.asked == []


def test_a_caller_without_a_subject_is_denied() -> None:
    assert (
        answer(asking(DecisionPointImitation(permitted=ALL)), caller=person(None)).verdict == "deny"
    )


# --- discovery


@pytest.mark.parametrize(
    ("url", "document"),
    [
        ("https://pdp.test", "/.well-known/authzen-configuration"),
        ("https://pdp.test/tenant1", "/.well-known/authzen-configuration/tenant1"),
    ],
)
def test_metadata_is_discovered_once(url: str, document: str) -> None:
    point = DecisionPointImitation(url, permitted=ALL)
    assert point.document is not None
    point.document["access_evaluation_endpoint"] = "https://pdp.test/access/v1/evaluation"

    found = run(asking(point), *[lambda e: e(ALICE, PAY)] * 3)

    assert [each.verdict for each in found] == ["permit"] * 3
    assert point.discoveries == [document]


def test_without_metadata_the_usual_paths_are_asked() -> None:
    point = DecisionPointImitation(permitted=ALL, metadata=False)

    assert answer(asking(point)).verdict == "permit"
    assert answers(asking(point), *tools("a")) == ["permit"]


@pytest.mark.parametrize(
    "changed",
    [
        *({"policy_decision_point": "https://other.test"}, {"policy_decision_point": None}),
        *({"policy_decision_point": "https://pdp.test/"}, {"access_evaluation_endpoint": None}),
        {"access_evaluation_endpoint": "http://pdp.test/access/v1/evaluation"},
        {"access_evaluation_endpoint": "http://127.0.0.1/access/v1/evaluation"},
        {"access_evaluations_endpoint": "http://localhost/access/v1/evaluations"},
        {"access_evaluations_endpoint": 7},
    ],
)
def test_metadata_of_another_decision_point_is_not_used(changed: dict[str, Any]) -> None:
    point = DecisionPointImitation(permitted=ALL)
    assert point.document is not None
    point.document |= changed

    assert answer(asking(point)).verdict == "try again"
    assert point.asked == []


def test_to_warm_up_is_to_find_out_where_to_ask() -> None:
    point = DecisionPointImitation(permitted=ALL)
    run(asking(point), lambda e: e.warm_up())
    assert len(point.discoveries) == 1
    assert point.document is not None
    point.document["policy_decision_point"] = "https://other.test"

    with pytest.raises(ConnectionError, match=r"pdp\.test"):
        run(asking(point), lambda e: e.warm_up())


# --- how this server proves itself


@pytest.mark.parametrize(
    ("client", "header"),
    [
        (BearerClient("s3cret"), "Bearer s3cret"),
        (BasicClient("mcp", "s3cret"), "Basic bWNwOnMzY3JldA=="),
    ],
)
def test_the_server_authenticates_with_what_it_was_given(client: Any, header: str) -> None:
    point = DecisionPointImitation(permitted=ALL, authorization=header)
    engine = asking(point, client=client)

    assert answer(engine).verdict == "permit"
    assert answer(asking(point)).verdict == "try again"
    assert "s3cret" not in repr(engine) + repr(vars(engine))


def test_a_rejected_server_is_logged_without_its_credential(
    caplog: pytest.LogCaptureFixture,
) -> None:
    point = DecisionPointImitation(authorization="Bearer other")

    with caplog.at_level(logging.DEBUG, "toolguard"):
        found = answer(asking(point, client=BearerClient("s3cret")))

    assert found.verdict == "try again"
    assert "does not accept this server: HTTP 401" in caplog.text
    assert "s3cret" not in caplog.text + found.reason


class _InForm:
    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:
        return ClientCredentials({"client_secret": "s3cret"})


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        *(({"url": "http://pdp.example.com"}, ValueError), ({"url": "pdp"}, ValueError)),
        *(({"url": "https://pdp.test?a=b"}, ValueError), ({"timeout": 0}, ValueError)),
        *(({"client": _InForm()}, ValueError), ({"never_sent": "pin"}, TypeError)),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(
    settings: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        authzen(**{"url": "https://pdp.test", **settings})


# --- messages about the server


def test_a_message_about_the_server_can_be_asked_about() -> None:
    point = DecisionPointImitation(permitted={("alice", "https://mcp.test/mcp")})

    def ask(method: str) -> Any:
        return lambda e: e.answer(ALICE, method, {}, "https://mcp.test/mcp")

    found = run(asking(point), *map(ask, ["tools/list", "ping", "tools/unknown", "tasks/get"]))

    assert [each.verdict for each in found] == ["permit", "permit", "deny", "deny"]
    assert len(point.asked) == 1
