"""What does a refusal say, to whom, and what does it keep?"""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import errors
from toolguard.errors import (
    AccessDeniedError,
    ApprovalRefusedError,
    ApprovalRequiredError,
    ApprovalUnavailableError,
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    DecisionUnavailableError,
    GuardNotConfiguredError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    InvalidInputError,
    InvalidProofError,
    InvalidTokenError,
    KeyMismatchError,
    KeysUnavailableError,
    MalformedCredentialsError,
    MalformedMessageError,
    MissingTokenError,
    NonceRequiredError,
    ToolGuardError,
)
from toolguard.testing.strategies import scope_tokens

# type, parent, HTTP status, error code
TREE = [
    (MissingTokenError, ToolGuardError, 401, "missing_token"),
    (MalformedCredentialsError, ToolGuardError, 400, "invalid_request"),
    (MalformedMessageError, ToolGuardError, 400, "invalid_request"),
    (InvalidTokenError, ToolGuardError, 401, "invalid_token"),
    (InvalidProofError, ToolGuardError, 401, "invalid_dpop_proof"),
    (KeyMismatchError, InvalidProofError, 401, "invalid_token"),
    (NonceRequiredError, InvalidProofError, 401, "use_dpop_nonce"),
    (InsufficientScopeError, ToolGuardError, 403, "insufficient_scope"),
    (
        InsufficientAuthenticationError,
        ToolGuardError,
        401,
        "insufficient_user_authentication",
    ),
    (AccessDeniedError, ToolGuardError, 403, "access_denied"),
    (DecisionUnavailableError, ToolGuardError, None, "decision_unavailable"),
    (ApprovalRequiredError, ToolGuardError, None, "approval_required"),
    (ApprovalRefusedError, ToolGuardError, None, "approval_refused"),
    (ApprovalUnavailableError, ToolGuardError, None, "approval_unavailable"),
    (InvalidInputError, ToolGuardError, None, "invalid_input"),
    (KeysUnavailableError, ToolGuardError, 503, "temporarily_unavailable"),
    (GuardNotConfiguredError, ToolGuardError, 500, "guard_not_configured"),
    (ConnectionTokenError, ToolGuardError, None, "connection_error"),
    (ConnectionRequiredError, ConnectionTokenError, None, "connection_required"),
    (ConnectionDeniedError, ConnectionTokenError, None, "connection_denied"),
    (ConnectionRateLimitedError, ConnectionTokenError, None, "connection_rate_limited"),
    (ConnectionUnavailableError, ConnectionTokenError, None, "connection_unavailable"),
    (ConnectionResponseError, ConnectionTokenError, None, "connection_response"),
]

EVERY_ERROR = [
    MissingTokenError(scopes=["read"]),
    MalformedCredentialsError("Send exactly one Authorization header"),
    InvalidTokenError("expired", "The access token has expired"),
    InsufficientScopeError(["read", "write"], token_scopes=["read", "list"]),
    InsufficientScopeError(["a"], token_scopes=["b"], missing_scopes=["c"]),
    InsufficientAuthenticationError(max_age=60, acr_values=["mfa"], scopes=["read"]),
    AccessDeniedError("Not in this tenant", rule="tenant"),
    DecisionUnavailableError(),
    ApprovalRequiredError("Approve it", tool="pay", approve_url="https://x.test/a", expires_at=9.5),
    ApprovalRequiredError("Still waiting", tool="pay", is_waiting=True),
    ApprovalRefusedError("No", tool="pay"),
    ApprovalUnavailableError("Try again"),
    InvalidInputError("The argument id cannot be part of a scope", argument="id"),
    KeysUnavailableError("The issuer cannot be reached", retry_after=7),
    GuardNotConfiguredError("No guard"),
]
CONNECTION_ERRORS = [
    ConnectionTokenError("No", connection="mail"),
    ConnectionRequiredError(
        "Connect mail", connection="mail", connect_url="https://x.test/c", missing_scopes=["send"]
    ),
    ConnectionDeniedError("No", connection="mail"),
    ConnectionRateLimitedError("Later", connection="mail", retry_after=30),
    ConnectionUnavailableError("Again", connection="mail"),
    ConnectionResponseError("What?", connection="mail"),
]


def state(error: ToolGuardError) -> tuple[Any, ...]:
    return type(error), str(error), vars(error), error.to_dict()


# --- the tree


@pytest.mark.parametrize(("kind", "parent", "status", "code"), TREE)
def test_every_error_has_its_parent_its_status_and_its_code(
    kind: type[ToolGuardError], parent: type[ToolGuardError], status: int | None, code: str
) -> None:
    assert kind.__bases__ == (parent,)
    assert kind.status == status
    assert kind.error == code


def test_the_tree_is_complete() -> None:
    exported = {getattr(errors, name) for name in errors.__all__}

    kinds = {kind for kind in exported if inspect.isclass(kind)}
    assert kinds == {ToolGuardError, *(row[0] for row in TREE)}


def test_the_root_is_an_exception_that_no_http_status_belongs_to() -> None:
    assert ToolGuardError.__bases__ == (Exception,)
    assert ToolGuardError.status is None
    assert ToolGuardError.error == "error"


def test_the_drawing_of_the_tree_has_the_status_of_every_error() -> None:
    drawing = str(errors.__doc__).splitlines()

    for kind, _, status, _ in TREE:
        (line,) = [line for line in drawing if f"─ {kind.__name__} " in line]
        if kind.__bases__ == (ToolGuardError,):
            assert f" {status or '---'}  " in line


# --- bodies


@pytest.mark.parametrize("error", [*EVERY_ERROR, *CONNECTION_ERRORS], ids=lambda e: e.error)
def test_every_body_has_the_code_and_the_sentence(error: ToolGuardError) -> None:
    body = error.to_dict()

    assert body["error"] == error.error
    assert body["error_description"] == error.error_description == str(error)
    assert json.loads(error.to_json()) == body


def test_a_missing_token_is_described_without_the_scopes_it_would_need() -> None:
    assert MissingTokenError(scopes=["read"]).to_dict() == {
        "error": "missing_token",
        "error_description": "This operation needs an access token",
    }
    assert MissingTokenError(scopes=["read"]).scopes == ("read",)
    assert MissingTokenError().scopes == ()


def test_why_a_token_was_refused_is_for_logs_and_not_in_the_body() -> None:
    error = InvalidTokenError("audience", "The token is for another audience")

    assert error.reason == "audience"
    assert error.to_dict() == {
        "error": "invalid_token",
        "error_description": "The token is for another audience",
    }


def test_the_rule_that_denied_access_is_for_logs_and_not_in_the_body() -> None:
    assert AccessDeniedError(rule="role admin").rule == "role admin"
    assert AccessDeniedError(rule="role admin").to_dict() == {
        "error": "access_denied",
        "error_description": "You are not allowed to do this",
    }


@pytest.mark.parametrize(("given_", "kept"), [(7, 7), (1, 1), (0, 1), (-3, 1)])
def test_keys_are_asked_for_again_after_one_second_at_least(given_: int, kept: int) -> None:
    assert KeysUnavailableError("down", retry_after=given_).retry_after == kept
    assert KeysUnavailableError("down").retry_after == 5


def test_a_required_connection_names_where_to_connect_and_what_is_missing() -> None:
    error = ConnectionRequiredError(
        "Connect mail", connection="mail", connect_url="https://x.test/c", missing_scopes=["send"]
    )

    assert error.to_dict() == {
        "error": "connection_required",
        "error_description": "Connect mail",
        "connection": "mail",
        "connect_url": "https://x.test/c",
        "missing_scopes": ["send"],
    }


def test_what_is_not_known_of_a_connection_is_left_out() -> None:
    required = ConnectionRequiredError("Connect mail", connection="mail")
    limited = ConnectionRateLimitedError("Later", connection="mail")

    assert required.to_dict() == {
        "error": "connection_required",
        "error_description": "Connect mail",
        "connection": "mail",
    }
    assert limited.to_dict() == {
        "error": "connection_rate_limited",
        "error_description": "Later",
        "connection": "mail",
    }


def test_a_limited_connection_says_when_to_come_back() -> None:
    error = ConnectionRateLimitedError("Later", connection="mail", retry_after=30)

    assert error.to_dict()["retry_after"] == 30


# --- InsufficientScopeError


def test_an_insufficient_scope_names_what_was_compared_and_what_to_ask_for() -> None:
    error = InsufficientScopeError(
        ["read", "write", "calendar.read"], token_scopes=["read", "write"]
    )

    assert error.required_scopes == ("read", "write", "calendar.read")
    assert error.token_scopes == ("read", "write")
    assert error.missing_scopes == ("calendar.read",)
    assert error.combined_scopes == ("read", "write", "calendar.read")
    assert error.scope_parameter == "read write calendar.read"
    assert error.error_description == "Token missing required scopes: calendar.read"


def test_the_json_of_an_insufficient_scope_is_exactly_this() -> None:
    error = InsufficientScopeError(
        ["read", "write", "calendar.read"], token_scopes=["read", "write"]
    )

    assert error.to_json() == (
        '{"error": "insufficient_scope", "scope": "read write calendar.read", '
        '"error_description": "Token missing required scopes: calendar.read", '
        '"missing_scopes": ["calendar.read"], "token_scopes": ["read", "write"], '
        '"required_scopes": ["read", "write", "calendar.read"]}'
    )


def test_combined_scopes_are_the_held_ones_then_the_missing_ones() -> None:
    error = InsufficientScopeError(["b", "d", "a"], token_scopes=["z", "a"])

    assert error.missing_scopes == ("b", "d")
    assert error.combined_scopes == ("z", "a", "b", "d")


def test_a_caller_that_knows_better_says_what_is_missing() -> None:
    # With a hierarchy, "write" stands for the required "read".
    error = InsufficientScopeError(
        ["read", "list"], token_scopes=["write"], missing_scopes=["list"]
    )

    assert error.missing_scopes == ("list",)
    assert error.combined_scopes == ("write", "list")
    assert str(error) == "Token missing required scopes: list"


def test_repeated_scopes_are_named_once() -> None:
    error = InsufficientScopeError(["a", "b", "a"], missing_scopes=["b", "b"])

    assert (error.required_scopes, error.missing_scopes) == (("a", "b"), ("b",))


@pytest.mark.parametrize("required", [[], (), "read", ""])
def test_an_insufficient_scope_without_a_list_of_scopes_is_refused(required: Any) -> None:
    with pytest.raises(ValueError, match=r'^write required_scopes=\["a\.scope"\]: a list that'):
        InsufficientScopeError(required)


@pytest.mark.parametrize("name", ["token_scopes", "missing_scopes"])
def test_scopes_in_one_string_would_be_compared_by_letters_and_are_refused(name: str) -> None:
    settings: dict[str, Any] = {name: "thread"}

    with pytest.raises(TypeError, match=r'^write token_scopes=\["a\.scope"\]: lists of scopes'):
        InsufficientScopeError(["read"], **settings)


@given(st.lists(scope_tokens(), min_size=1, max_size=5), st.lists(scope_tokens(), max_size=5))
def test_missing_is_what_is_required_and_not_held(required: list[str], held: list[str]) -> None:
    error = InsufficientScopeError(required, token_scopes=held)

    assert set(error.missing_scopes) == set(required) - set(held)
    assert set(error.combined_scopes) == set(required) | set(held)
    assert error.scope_parameter.split(" ") == list(error.combined_scopes)


# --- copies


@pytest.mark.parametrize("error", [*EVERY_ERROR, *CONNECTION_ERRORS], ids=lambda e: e.error)
def test_pickling_an_error_changes_nothing(error: ToolGuardError) -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert state(pickle.loads(pickle.dumps(error, protocol))) == state(error)


@pytest.mark.parametrize("error", [*EVERY_ERROR, *CONNECTION_ERRORS], ids=lambda e: e.error)
def test_copying_an_error_changes_nothing(error: ToolGuardError) -> None:
    assert state(copy.copy(error)) == state(error)
    assert state(copy.deepcopy(error)) == state(error)


def test_an_errors_representation_shows_its_sentence_and_nothing_of_its_state() -> None:
    assert repr(AccessDeniedError("No", rule="secret rule")) == "AccessDeniedError('No')"
    assert repr(InvalidTokenError("key", "No")) == "InvalidTokenError('No')"
    assert repr(InsufficientScopeError(["a"], token_scopes=["b"])) == (
        "InsufficientScopeError('Token missing required scopes: a')"
    )


def test_no_error_takes_a_token() -> None:
    taken = {
        name
        for kind, *_ in TREE
        if "__init__" in vars(kind)
        for name in inspect.signature(vars(kind)["__init__"]).parameters
        if "token" in name or "secret" in name or "credential" in name
    }

    assert taken == {"token_scopes"}


@pytest.mark.parametrize("scope", ["files:read admin", "", " a", "a\tb", 'a"b', "a\\b", "\u00e9"])
def test_what_is_not_one_scope_cannot_be_required(scope: str) -> None:
    for settings in ({}, {"missing_scopes": ["a"]}):
        with pytest.raises(ValueError, match="is not one scope"):
            InsufficientScopeError([scope], **settings)
    with pytest.raises(ValueError, match="is not one scope"):
        InsufficientScopeError(["a"], missing_scopes=[scope])


def test_a_held_scope_that_is_several_is_not_joined() -> None:
    error = InsufficientScopeError(["write"], token_scopes=["files:read admin", "read"])

    assert error.scope_parameter == error.to_dict()["scope"] == "read write"
    assert error.to_dict()["token_scopes"] == ["files:read admin", "read"]


def test_each_denial_of_the_package_tells_its_log_why() -> None:
    unsaid = [
        f"{file.name}:{node.lineno}"
        for file in Path(errors.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "AccessDeniedError"
        if all(each.arg != "rule" for each in node.keywords)
    ]

    assert unsaid == []
