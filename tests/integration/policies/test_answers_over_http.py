"""What reaches the client, the record and the lists of what a check answers?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, Mode, Serve
from support.wire import Caller, Visit
from toolguard import Answer, OperationCall, Principal, Refusals, requires
from toolguard.calls.request import UnauthorizedTools
from toolguard.telemetry import DecisionRecord
from toolguard.testing import LocalIssuer

SECRET = "policy 7 of payroll"
ANSWERS: dict[str, bool | Answer] = {
    "may": True,
    "permit": Answer.permit(),
    "deny": Answer.deny(SECRET),
    "later": Answer.try_again(SECRET),
    "scopes": Answer.needs_scopes("pay.write", reason=SECRET),
    "sign_in": Answer.needs_sign_in(max_age=60, reason=SECRET),
}


class Engine:
    """Answers by the name of the call, and counts what it is asked."""

    reads_arguments = False

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str | None]] = Counter()
        self.lists = 0

    def answer(self, name: str) -> bool | Answer:
        return ANSWERS[name.rpartition("/")[2]]

    async def __call__(self, principal: Principal, call: OperationCall) -> bool | Answer:
        self.asked[call.name, call.method] += 1
        return self.answer(call.name)

    async def answer_each(
        self, principal: Principal, calls: Sequence[OperationCall]
    ) -> Sequence[bool | Answer]:
        self.lists += 1
        return [self.answer(call.name) for call in calls]


ENGINE = Engine()


def _payroll(line: Line) -> Any:
    server = line.server("payroll")
    for name in ANSWERS:

        def tool() -> str:
            return "done"

        def resource() -> str:
            return "read"

        server.tool(name)(tool)
        server.resource(f"pay://{name}")(resource)
    return server


@pytest.fixture
def alice(visit: Visit, guarding: Guarding, issuer: LocalIssuer) -> Callable[..., Caller]:
    """Make Alice, who may call what the engine permits, by what lists leave out."""

    def made(shown: UnauthorizedTools = "show") -> Caller:
        def make(line: Line) -> Any:
            guard = guarding(refusals=Refusals(unauthorized_tools=shown))
            return guard.protect(_payroll(line), rules={"*": requires(ENGINE)})

        caller = visit(f"payroll {shown}", make, issuer.mint("alice", scopes=["pay.read"]))
        ENGINE.asked.clear()
        ENGINE.lists = 0
        return caller

    return made


@pytest.mark.parametrize("name", ["may", "permit"])
def test_a_permitted_call_is_asked_about_once(alice: Callable[..., Caller], name: str) -> None:
    assert alice().call(name).value == "done"
    assert ENGINE.asked == {(name, None): 1}


def test_a_denial_says_no_reason_to_the_caller(alice: Callable[..., Caller]) -> None:
    reply = alice().call("deny")

    assert reply.denial == {
        "error": "access_denied",
        "error_description": "You are not allowed to do this",
    }
    assert SECRET not in reply.content + str(reply.headers)
    assert ENGINE.asked == {("deny", None): 1}


def test_what_cannot_be_told_is_a_tool_error_to_try_again(alice: Callable[..., Caller]) -> None:
    reply = alice().call("later")

    assert reply.status == 200
    assert json.loads(reply.tool_error)["error"] == "decision_unavailable"
    assert SECRET not in reply.content
    assert ENGINE.asked == {("later", None): 1}


def test_what_cannot_be_told_of_a_resource_is_an_error_to_try_again(
    alice: Callable[..., Caller],
) -> None:
    reply = alice().send("resources/read", {"uri": "pay://later"})

    assert reply.status == 200
    assert reply.messages[-1]["error"]["data"]["error"] == "decision_unavailable"


def test_needed_scopes_are_a_real_403(alice: Callable[..., Caller]) -> None:
    reply = alice().call("scopes")

    assert reply.status == 403
    assert reply.challenge is not None
    assert 'error="insufficient_scope"' in reply.challenge
    assert reply.body["missing_scopes"] == ["pay.write"]
    assert SECRET not in reply.content + str(reply.headers)


def test_a_needed_sign_in_is_a_real_401(alice: Callable[..., Caller]) -> None:
    reply = alice().call("sign_in")

    assert reply.status == 401
    assert reply.challenge is not None
    assert 'error="insufficient_user_authentication"' in reply.challenge
    assert "max_age" in reply.challenge


def test_the_reason_is_in_the_record(
    mode: Mode, guarding: Guarding, issuer: LocalIssuer, serve: Serve, http: httpx.Client
) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(on_decision=records.append)
    url = serve(mode.app(guard.protect(_payroll(mode.line), rules={"*": requires(ENGINE)})))
    caller = Caller(http, f"{url}/mcp", mode.protocol, token=issuer.mint("alice"))
    if mode.has_sessions:
        caller.open()

    for name in ("deny", "later"):
        caller.call(name)

    assert guard.recorder.flush()
    assert [(each.verdict, each.denied_by) for each in records if each.operation] == [
        ("refused", f"check Engine: {SECRET}"),
        ("outage", f"check Engine: {SECRET}"),
    ]


def test_a_list_hides_what_the_engine_denies_with_one_question(
    alice: Callable[..., Caller],
) -> None:
    caller = alice("hide")

    tools = {each["name"] for each in caller.send("tools/list").result["tools"]}

    assert tools == ANSWERS.keys() - {"deny"}
    assert (ENGINE.lists, ENGINE.asked) == (1, {})
    uris = {each["uri"] for each in caller.send("resources/list").result["resources"]}
    assert uris == {f"pay://{name}" for name in ANSWERS.keys() - {"deny"}}
    assert (ENGINE.lists, ENGINE.asked) == (2, {})


def test_a_list_can_hide_all_that_is_not_permitted(alice: Callable[..., Caller]) -> None:
    tools = alice("hide-all").send("tools/list").result["tools"]

    assert {each["name"] for each in tools} == {"may", "permit"}


def test_a_list_that_shows_everything_asks_nothing(alice: Callable[..., Caller]) -> None:
    tools = alice("show").send("tools/list").result["tools"]

    assert {each["name"] for each in tools} == ANSWERS.keys()
    assert (ENGINE.lists, ENGINE.asked) == (0, {})
