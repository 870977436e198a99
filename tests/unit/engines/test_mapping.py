"""What is asked about an MCP message, and what is never sent?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import ISSUER, person
from toolguard import OperationCall, Principal
from toolguard.engines import MappingError, default_mapping
from toolguard.engines.mapping import Evaluation, build_evaluations, without
from toolguard.policies.operations import METHODS, named_operations

ALICE = person("alice", claims={"sub": "alice"})
CALL = OperationCall("tool", "pay")
SUBJECT = {"type": "identity", "id": "alice", "properties": {"issuer": ISSUER}}
SERVER = "https://mcp.example.com/mcp"


def build_evaluation(*asked: Any) -> Evaluation:
    """Return the only question about a call."""
    (only,) = build_evaluations(*asked)
    return only


@pytest.mark.parametrize(
    ("method", "params", "resource", "context"),
    [
        *(
            (method, {}, {"type": "mcp_server", "id": SERVER}, {})
            for method in ("tools/list", "resources/list", "prompts/list", "tasks/list")
        ),
        (
            *("initialize", {"protocolVersion": "2025-11-25"}),
            *({"type": "mcp_server", "id": SERVER}, {"protocol_version": "2025-11-25"}),
        ),
        (
            *("logging/setLevel", {"level": "debug"}),
            *({"type": "mcp_server", "id": SERVER}, {"level": "debug"}),
        ),
        ("tools/call", {"name": "pay", "arguments": {"a": 1}}, {"type": "tool", "id": "pay"}, {}),
        *(
            (method, {"uri": "a://b"}, {"type": "resource", "id": "a://b"}, {})
            for method in ("resources/read", "resources/subscribe", "resources/unsubscribe")
        ),
        ("prompts/get", {"name": "plan"}, {"type": "prompt", "id": "plan"}, {}),
        (
            *("completion/complete", {"ref": {"type": "ref/prompt", "name": "plan"}}),
            *({"type": "prompt", "id": "plan"}, {}),
        ),
        (
            *("completion/complete", {"ref": {"type": "ref/resource", "uri": "a://{b}"}}),
            *({"type": "resource", "id": "a://{b}"}, {}),
        ),
        *(
            (method, {"taskId": "t1"}, {"type": "task", "id": "t1"}, {})
            for method in ("tasks/get", "tasks/result", "tasks/cancel")
        ),
    ],
)
def test_each_method_is_asked_about_as_the_draft_says(
    method: str, params: dict[str, Any], resource: dict[str, str], context: dict[str, str]
) -> None:
    assert default_mapping(method, params, ALICE, SERVER) == {
        "subject": SUBJECT,
        "action": {"name": method},
        "resource": resource,
        "context": {"agent": "desktop", **context},
    }


@pytest.mark.parametrize("method", ["ping", "notifications/cancelled", "notifications/anything"])
def test_what_passes_is_not_asked_about(method: str) -> None:
    assert default_mapping(method, {}, ALICE, SERVER) is None


@pytest.mark.parametrize(
    ("method", "params"),
    [
        *(("tools/delete", {"name": "a"}), ("", {}), ("Tools/Call", {"name": "a"})),
        *(("tools/call", {}), ("tools/call", {"name": ""}), ("tools/call", {"name": ["a"]})),
        *(("completion/complete", {}), ("completion/complete", {"ref": {"type": "x"}})),
        ("sampling/createMessage", {}),
    ],
)
def test_what_has_no_mapping_is_an_error(method: str, params: dict[str, Any]) -> None:
    with pytest.raises(MappingError):
        default_mapping(method, params, ALICE, SERVER)


def test_a_server_without_a_name_cannot_be_asked_about() -> None:
    with pytest.raises(MappingError):
        default_mapping("tools/list", {}, ALICE)


@pytest.mark.parametrize(
    "caller", [person(None), person("", claims={"sub": ""}), person(claims={"sub": 7})]
)
def test_a_caller_without_a_subject_cannot_be_asked_about(caller: Principal) -> None:
    with pytest.raises(MappingError):
        build_evaluation(caller, OperationCall("tool", "pay"))


def test_the_current_actor_is_in_the_context() -> None:
    claims = {"sub": "alice", "iss": ISSUER, "act": {"sub": "bot", "iss": ISSUER}}

    asked = build_evaluation(person(claims=claims), OperationCall("tool", "pay"))

    assert asked["context"] == {"agent": "desktop", "actor": "bot"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_that_names_operations_is_mapped(method: str) -> None:
    params = {
        "name": "a",
        "uri": "a://b",
        "ref": {"type": "ref/prompt", "name": "a"},
        "notifications": {"resourceSubscriptions": ["a://b"]},
    }
    named = {"name", "arguments"} if method.startswith(("tools/", "prompts/")) else set(params)

    (call,) = named_operations(method, {k: v for k, v in params.items() if k in named})

    listens = method == "subscriptions/listen"
    name = build_evaluation(ALICE, call)["action"]["name"]
    assert name == ("resources/subscribe" if listens else method)


# --- mappings of the developer's


def test_no_argument_is_sent_by_default() -> None:
    asked = build_evaluation(ALICE, OperationCall("tool", "pay", {"to": "secret"}))

    assert "secret" not in str(asked)


def test_a_mapping_replaces_action_and_resource_and_adds_to_the_context() -> None:
    def mapping(principal: Principal, call: OperationCall) -> dict[str, Any]:
        account = {"type": "account", "id": call.arguments["to"]}
        return {"action": {"name": "transfer"}, "resource": account, "context": {"x": 1}}

    asked = build_evaluation(ALICE, OperationCall("tool", "pay", {"to": "bob"}), mapping)

    assert asked == {
        "subject": SUBJECT,
        "action": {"name": "transfer"},
        "resource": {"type": "account", "id": "bob"},
        "context": {"x": 1, "agent": "desktop"},
    }


@pytest.mark.parametrize(
    "own",
    [
        *(None, [], "pay", {"subject": {"type": "identity", "id": "bob"}}, {"decision": True}),
        *({"context": []}, {"context": {"agent": "trusted"}}),
    ],
)
def test_a_mapping_cannot_change_who_calls(own: Any) -> None:
    with pytest.raises(MappingError):
        build_evaluation(ALICE, OperationCall("tool", "pay"), lambda _, __: own)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "pin", "secret"]), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(["a", "pin", "secret"]), json_values))
def test_what_never_leaves_is_left_out_at_any_depth(arguments: dict[str, Any]) -> None:
    kept = without(arguments, frozenset({"pin", "secret"}))

    def names(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set(value).union(*map(names, value.values()))
        return set().union(*map(names, value)) if isinstance(value, list) else set()

    assert names(kept) <= {"a", "b"}
    assert without(arguments, frozenset()) == arguments


def test_a_mapping_that_asks_several_questions_asks_each_of_this_caller() -> None:
    questions = [{"action": {"name": "read"}}, {"action": {"name": "write"}, "context": {"a": 1}}]

    read, write = build_evaluations(ALICE, OperationCall("tool", "copy"), lambda _, __: questions)

    assert (read["action"], write["action"]) == ({"name": "read"}, {"name": "write"})
    assert read["subject"] == write["subject"] == build_evaluation(ALICE, CALL)["subject"]
    assert read["resource"] == write["resource"] == {"type": "tool", "id": "copy"}
    assert write["context"] == {"a": 1, **read["context"]}


@pytest.mark.parametrize("own", [[], [{"subject": {}}], [{}, "text"], [{}, {"subject": {}}]])
def test_no_question_of_several_may_change_who_calls(own: Any) -> None:
    with pytest.raises(MappingError):
        build_evaluations(ALICE, CALL, lambda _, __: own)
