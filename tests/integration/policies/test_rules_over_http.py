"""Does each rule say over HTTP what it has to say, in every mode of every line?"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.lines import Guarding, Line
from support.wire import Caller, Visit, asked_for, denied_with
from toolguard import (
    InsufficientScopeError,
    OperationCall,
    Principal,
    all_of,
    any_of,
    requires,
    requires_claim,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
DENIED = {"error": "access_denied", "error_description": "You are not allowed to do this"}


async def _small(principal: Principal, call: OperationCall) -> bool:
    if call.arguments["amount"] < 0:
        sys.exit("a secret of the check")
    return call.kind == "tool" and int(call.arguments["amount"]) < 100


def _by_amount(principal: Principal, call: OperationCall) -> bool:
    if call.arguments["amount"] < 0:
        raise ValueError("a secret of the check")
    return bool(call.arguments["amount"] < 100)


# name -> guard, claims of who may, arguments with which
GUARDS: dict[str, tuple[GuardDecorator, dict[str, Any], dict[str, Any]]] = {
    "permission": (requires_permissions("pay"), {"permissions": ["pay"]}, {}),
    "role": (requires_roles("clerk"), {"roles": ["clerk"]}, {}),
    "tenant": (requires_tenant("t1", "t2"), {"tenants": {"t2": {}}}, {}),
    "tenant_of": (
        requires_tenant(tenant_from="tenant_id"),
        {"tenants": {"t1": {}, "t2": {}}},
        {"tenant_id": "t2"},
    ),
    "client": (requires_client("till-*"), {"client_id": "till-7"}, {}),
    "claim": (requires_claim("email_verified", lambda v: v is True), {"email_verified": True}, {}),
    "check": (requires(_small), {}, {"amount": 99}),
    "blocking_check": (requires(_by_amount), {}, {"amount": 99}),
    "nested": (
        any_of(all_of(requires_roles("a"), requires_roles("b")), requires_permissions("c")),
        {"roles": ["b", "a"]},
        {},
    ),
}


def _cashier(guarding: Guarding) -> Callable[[Line], Any]:
    def make(line: Line) -> Any:
        server = line.server("cashier")

        def register(name: str, guard: GuardDecorator) -> None:
            @server.tool(name)
            @guard
            async def tool(tenant_id: str = "none", amount: int = 100, *, user_id: str) -> str:
                return f"{name} by {user_id}"

        for name, (guard, _, _) in GUARDS.items():
            register(name, guard)
        register("mixed", all_of(requires_roles("clerk"), "pay.write", "pay.read"))
        register("either", any_of(requires_roles("owner"), "pay.write"))
        recent = requires_recent_auth(max_age=300, acr_values=["mfa"])
        register("fresh", all_of("pay.write", recent))
        register("in_tenant", requires_scopes("pay.{tenant_id}.write"))
        register("by_amount", requires_scopes(lambda call: f"pay.{call.arguments['amount']}"))

        @server.tool()
        @requires_scopes("pay.read")
        async def upstream() -> str:
            raise InsufficientScopeError(required_scopes=["bank.write"], token_scopes=["pay.read"])

        return guarding().protect(server)

    return make


@pytest.fixture
def cashier(guarding: Guarding, visit: Visit, issuer: LocalIssuer) -> Callable[..., Caller]:
    """Make callers of the cashier whose tokens have these scopes and claims."""

    def made(*scopes: str, **claims: Any) -> Caller:
        return visit("cashier", _cashier(guarding), issuer.mint("alice", scopes=scopes, **claims))

    return made


def test_each_rule_lets_in_who_meets_it(cashier: Callable[..., Caller]) -> None:
    for name, (_, claims, arguments) in GUARDS.items():
        assert cashier(**claims).call(name, arguments).value == f"{name} by alice"


def test_each_rule_refuses_others_without_a_challenge(cashier: Callable[..., Caller]) -> None:
    alice = cashier("pay", "clerk", "t1", "c")

    for name in GUARDS:
        reply = alice.call(name)
        assert (reply.status, reply.denial) == (denied_with(alice.protocol), DENIED), name


def test_a_check_that_fails_refuses_and_keeps_its_secret(
    cashier: Callable[..., Caller], caplog: pytest.LogCaptureFixture
) -> None:
    reply = cashier().call("blocking_check", {"amount": -1})

    assert reply.denial == DENIED
    assert "check _by_amount failed: ValueError" in caplog.text
    assert "secret" not in caplog.text + reply.content


def test_a_check_that_exits_ends_one_call_and_no_session(cashier: Callable[..., Caller]) -> None:
    alice, bob = cashier(), cashier()

    assert alice.call("check", {"amount": -1}).denial == DENIED
    assert alice.call("check", {"amount": 1}).value == "check by alice"
    assert bob.call("check", {"amount": 1}).value == "check by alice"


def test_no_scope_is_named_to_who_lacks_the_role_beside_it(cashier: Callable[..., Caller]) -> None:
    stranger = cashier("pay.read").call("mixed")
    alice = cashier("pay.read", roles=["clerk"])
    clerk = alice.call("mixed")

    assert stranger.denial == DENIED
    assert clerk.status == 403
    scopes = asked_for(alice.protocol, "pay.write pay.read", "pay.read")
    assert clerk.challenge == (
        f'Bearer error="insufficient_scope", scope="{scopes}", {METADATA}, '
        'error_description="Token missing required scopes: pay.write"'
    )


def test_for_role_or_scope_the_challenge_names_the_scope(
    cashier: Callable[..., Caller],
) -> None:
    assert cashier(roles=["owner"]).call("either").value
    assert cashier("pay.write").call("either").value
    refused = cashier().call("either")
    assert refused.status == 403
    assert refused.body["missing_scopes"] == ["pay.write"]


def test_an_old_sign_in_is_challenged_with_a_401_of_its_own(
    cashier: Callable[..., Caller],
) -> None:
    now = int(time.time())
    good = {"auth_time": now - 10, "acr": "mfa"}

    assert cashier("pay.write", **good).call("fresh").value
    for claims in ({}, {**good, "auth_time": now - 900}, {**good, "acr": "pwd"}):
        reply = cashier("pay.read", **claims).call("fresh")
        assert reply.status == 401
        assert reply.challenge == (
            'Bearer error="insufficient_user_authentication", scope="pay.read pay.write", '
            f'{METADATA}, error_description="A more recent or a stronger authentication is '
            'required", acr_values="mfa", max_age="300"'
        )
    assert cashier("pay.read", **good).call("fresh").body["missing_scopes"] == ["pay.write"]


@pytest.mark.parametrize(
    ("tool", "argument", "value", "scope"),
    [("in_tenant", "tenant_id", "t1", "pay.t1.write"), ("by_amount", "amount", 7, "pay.7")],
)
def test_a_scope_that_depends_on_the_call_is_asked_for_by_name(
    cashier: Callable[..., Caller], tool: str, argument: str, value: object, scope: str
) -> None:
    assert cashier(scope).call(tool, {argument: value}).value == f"{tool} by alice"
    alice = cashier("pay.write")
    refused = alice.call(tool, {argument: value})
    assert refused.status == 403
    assert refused.body["missing_scopes"] == [scope]
    named = asked_for(alice.protocol, scope, "pay.write")
    assert f'error="insufficient_scope", scope="{named}", ' in str(refused.challenge)


@pytest.mark.parametrize("value", ["t1 admin", 't1"', "t1\r\nx: y", "", "t1\x00", "é", "x" * 300])
def test_an_argument_that_makes_no_scope_is_invalid_input(
    cashier: Callable[..., Caller], value: str
) -> None:
    reply = cashier("pay.t1.write", "admin").call("in_tenant", {"tenant_id": value})

    assert '"error": "invalid_input"' in reply.tool_error
    assert reply.challenge is None
    assert reply.meta_challenges == []


def test_a_body_that_asks_for_more_scopes_is_a_403_as_well(cashier: Callable[..., Caller]) -> None:
    alice = cashier("pay.read")
    reply = alice.call("upstream")

    assert reply.status == 403
    scopes = asked_for(alice.protocol, "bank.write", "pay.read")
    assert f'error="insufficient_scope", scope="{scopes}", {METADATA}' in str(reply.challenge)
    assert reply.body["missing_scopes"] == ["bank.write"]
