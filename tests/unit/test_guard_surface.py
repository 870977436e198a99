"""What does a guard say on behalf of the operations that it protects?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from support.callers import NOW, Tokens, person
from toolguard import (
    Refusals,
    Scope,
    ToolGuard,
    TrustedUser,
    public,
    requires_auth,
    requires_scopes,
)
from toolguard.calls.message import Frame, MessageContext
from toolguard.calls.stdio import HOW_TO_SET
from toolguard.decorators.wrapper import policy_of
from toolguard.errors import (
    AccessDeniedError,
    InsufficientScopeError,
    InvalidTokenError,
    MalformedCredentialsError,
    MissingTokenError,
)
from toolguard.http.challenge import ChallengeScopes
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.principal import Principal

URL = "https://mcp.example.com/mcp"
METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"


def guard(**settings: Any) -> ToolGuard:
    return ToolGuard(**{"verifier": Tokens(), "audience": URL, **settings})


class Shelf:
    """A server without a framework: its operations are what is put on it."""

    def __init__(self, *functions: Any) -> None:
        self.functions = list(functions)

    def policies(self) -> Iterator[Policy]:
        return (policy for each in self.functions if (policy := policy_of(each)) is not None)

    @property
    def serves_without_scopes(self) -> bool:
        return any(not policy.first_scopes for policy in self.policies())

    def revision(self) -> tuple[object, ...]:
        return tuple(map(id, self.functions))

    def install(self, guard: ToolGuard) -> None:
        guard._adapters.append(self)  # type: ignore[arg-type]


@requires_scopes("calendar.write", "calendar.read")
async def write() -> None: ...


@requires_scopes(Scope("calendar.read") | "admin")
async def read() -> None: ...


@requires_auth
async def whoami() -> None: ...


@public
async def about() -> None: ...


async def unguarded() -> None: ...


def shelved(*functions: Any, **settings: Any) -> ToolGuard:
    made = guard(**settings)
    Shelf(*functions).install(made)
    return made


def test_the_policies_are_those_of_the_guarded_operations_in_order() -> None:
    made = shelved(write, unguarded, read, whoami)

    assert made.policies == (policy_of(write), policy_of(read), Policy())


def test_the_supported_scopes_are_all_that_the_guards_mention() -> None:
    assert shelved(write, read, whoami, unguarded).scopes_supported == (
        "calendar.write",
        "calendar.read",
        "admin",
    )
    assert guard().scopes_supported == ()


def test_the_initial_scopes_open_the_smallest_operation_unless_they_are_given() -> None:
    assert shelved(write, read).initial_scopes == ("calendar.read",)
    assert shelved(write, read, refusals=Refusals(initial_scopes=["openid"])).initial_scopes == (
        "openid",
    )
    assert shelved(write, read, refusals=Refusals(initial_scopes=[])).initial_scopes == ()
    assert guard().initial_scopes == ()


def test_operations_that_are_registered_later_count_from_then_on() -> None:
    shelf = Shelf(whoami)
    made = guard()
    shelf.install(made)
    before = (made.scopes_supported, made.admits_anonymous)
    shelf.functions += [read, about]

    assert before == ((), False)
    assert (made.scopes_supported, made.admits_anonymous) == (("calendar.read", "admin"), True)


def test_anonymous_callers_are_let_in_where_something_is_public() -> None:
    assert not shelved(read, whoami, unguarded).admits_anonymous
    assert shelved(read, about).admits_anonymous
    assert shelved(read, default="public").admits_anonymous


def test_the_metadata_names_resource_issuer_and_scopes() -> None:
    made = shelved(read, issuer="https://auth.example.com")

    assert made.metadata() == {
        "resource": "https://mcp.example.com/mcp",
        "authorization_servers": ["https://auth.example.com"],
        "scopes_supported": ["calendar.read", "admin"],
        "bearer_methods_supported": ["header"],
    }


def header(made: ToolGuard, refusal: Any) -> str | None:
    challenge = made.challenge(refusal)
    return None if challenge is None else challenge.header


def test_whoever_has_no_good_token_is_told_where_to_begin() -> None:
    made = shelved(write, read)

    assert header(made, MissingTokenError()) == (
        f'Bearer scope="calendar.read", resource_metadata="{METADATA}"'
    )
    assert header(made, InvalidTokenError("expired", "The access token has expired")) == (
        f'Bearer error="invalid_token", scope="calendar.read", resource_metadata="{METADATA}", '
        'error_description="The access token has expired"'
    )
    assert header(made, MissingTokenError(scopes=["admin"])) == (
        f'Bearer scope="admin", resource_metadata="{METADATA}"'
    )


def test_other_refusals_do_not_name_the_initial_scopes() -> None:
    made = shelved(read)

    assert header(made, AccessDeniedError()) is None
    assert header(made, MalformedCredentialsError("Send one header")) == (
        f'Bearer error="invalid_request", resource_metadata="{METADATA}", '
        'error_description="Send one header"'
    )


@pytest.mark.parametrize(
    ("mode", "scope"), [("required", "read write"), ("combined", "profile read write")]
)
def test_a_challenge_names_what_is_required_or_that_and_what_is_held(
    mode: ChallengeScopes, scope: str
) -> None:
    refusal = InsufficientScopeError(["read", "write"], token_scopes=["profile", "read"])

    challenge = guard(refusals=Refusals(challenge_scopes=mode)).challenge(refusal)

    assert challenge is not None
    assert " ".join(challenge.scope) == scope


def test_the_route_of_the_metadata_is_at_the_root_of_the_host() -> None:
    assert guard().metadata_route().path == "/.well-known/oauth-protected-resource/mcp"


# --- stdio


async def over_stdio(made: ToolGuard, policy: Policy) -> Principal | None:
    with made.serving_stdio():
        call = OperationCall("tool", "read")
        frame = Frame(made, MessageContext(await made.stdio_auth())).enter(policy, call)
        return await frame.authorize(call)


def test_stdio_that_is_trusted_is_one_user_with_every_scope(
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = shelved(write, read, stdio=TrustedUser("ada"))

    with caplog.at_level(logging.WARNING):
        principal = asyncio.run(over_stdio(made, Policy(Scope("admin"))))

    assert principal is not None
    assert principal.user_id == "ada"
    assert caplog.messages == ["stdio is trusted: every call is made as 'ada'"]


def test_stdio_is_who_the_token_in_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    made = guard(verifier=Tokens({"alices": person("alice", "read")}), clock=lambda: NOW)
    monkeypatch.setenv("TOOLGUARD_ACCESS_TOKEN", "alices")

    assert asyncio.run(over_stdio(made, Policy(Scope("read")))) == person("alice", "read")
    with pytest.raises(InsufficientScopeError):
        asyncio.run(over_stdio(made, Policy(Scope("write"))))


def test_a_bad_token_in_the_environment_is_good_for_public_operations_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLGUARD_ACCESS_TOKEN", "forged")
    made = guard()

    with pytest.raises(InvalidTokenError):
        asyncio.run(over_stdio(made, Policy()))
    assert asyncio.run(over_stdio(made, Policy(public=True))) is None


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_in_the_environment_only_public_operations_can_be_used(
    token: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("TOOLGUARD_ACCESS_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("TOOLGUARD_ACCESS_TOKEN", token)

    with pytest.raises(MissingTokenError):
        asyncio.run(over_stdio(guard(), Policy()))
    assert asyncio.run(over_stdio(guard(), Policy(public=True))) is None
    logged = [record.getMessage() for record in caplog.records if record.name == "toolguard"]
    assert set(logged) == {f"only public operations can be used: {HOW_TO_SET}"}
    assert HOW_TO_SET == (
        "Set TOOLGUARD_ACCESS_TOKEN or TOOLGUARD_ACCESS_TOKEN_FILE in the environment of this "
        "stdio server"
    )


def test_a_message_that_came_neither_by_http_nor_by_stdio_has_no_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLGUARD_ACCESS_TOKEN", "alices")
    token = guard(verifier=Tokens({"alices": person()}))
    trusted = guard(stdio=TrustedUser("ada"))

    for made in (token, trusted):
        assert asyncio.run(made.stdio_auth()) is None
