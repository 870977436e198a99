"""Users, machines, and agents that act for users."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toolguard import (
    Actor,
    ConnectionRequest,
    Principal,
    requires_actor,
    requires_machine,
    requires_user,
)
from toolguard.connections.cache import _key
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.errors import InvalidTokenError
from toolguard.policies.decision import Caller, Verdict, decide
from toolguard.policies.operations import OperationCall
from toolguard.testing import LocalIssuer

ISSUER = "https://a.test"
LOCAL = LocalIssuer(ISSUER, algorithm="ES256")
USER = {"iss": ISSUER, "sub": "alice", "client_id": "app", "exp": 9e9}


def principal_of(**claims: Any) -> Principal:
    made = {**USER, **claims}
    return Principal.from_claims({name: value for name, value in made.items() if value is not None})


def permits(guard: GuardDecorator, principal: Principal) -> bool:
    decision = asyncio.run(decide(guard.policy, Caller(principal), OperationCall("tool", "t")))
    return decision.verdict is Verdict.PERMIT


MACHINES = {
    "Auth0": {"sub": "app@clients", "gty": "client-credentials", "azp": "app"},
    "Auth0 without gty": {"sub": "app@clients"},
    "Okta, Cognito, Ory": {"sub": "app"},
    "Duende": {"sub": None},
    "Entra with idtyp": {"idtyp": "app", "oid": "o", "tid": "t"},
    "Entra": {"sub": "o", "oid": "o", "tid": "t", "roles": ["Notes.Read.All"]},
    "XSUAA": {"grant_type": "client_credentials"},
    "Keycloak": {
        "sub": "5d1f",
        "client_id": None,
        "azp": "App",
        "clientHost": "10.0.0.1",
        "preferred_username": "service-account-app",
    },
}
USERS = {
    "a user": {},
    "a name that ends so": {"sub": "mallory@clients"},
    "a name that begins so": {"preferred_username": "service-account-app"},
    "a user of Entra": {"oid": "o", "tid": "t", "scp": "notes.read"},
    "another grant": {"gty": "refresh_token", "grant_type": "authorization_code"},
    "claims of other types": {"gty": ["client-credentials"], "idtyp": {"app": 1}, "oid": None},
}


@pytest.mark.parametrize("claims", MACHINES.values(), ids=MACHINES)
def test_a_machine_is_told_by_its_token(claims: dict[str, Any]) -> None:
    caller = principal_of(**claims)

    assert caller.is_machine
    assert permits(requires_machine, caller)
    assert not permits(requires_user, caller)


@pytest.mark.parametrize("claims", USERS.values(), ids=USERS)
def test_a_user_is_not_taken_for_a_machine(claims: dict[str, Any]) -> None:
    caller = principal_of(**claims)

    assert not caller.is_machine
    assert permits(requires_user, caller)
    assert not permits(requires_machine, caller)


CHAIN = {"sub": "agent-2", "act": {"sub": "agent-1", "iss": "https://b.test"}}


def test_the_chain_of_actors_is_read_the_current_one_first() -> None:
    caller = principal_of(act=CHAIN)

    assert caller.actor == Actor("agent-2", ISSUER)
    assert caller.actors == (Actor("agent-2", ISSUER), Actor("agent-1", "https://b.test"))
    assert permits(requires_user, caller)
    assert principal_of().actor is None


@pytest.mark.parametrize(
    ("act", "permitted"),
    [
        ({"sub": "agent-2"}, True),
        ({"sub": "agent-2", "iss": ISSUER}, True),
        ({"sub": "agent-2", "iss": "https://b.test"}, False),
        ({"sub": "other", "act": {"sub": "agent-1"}}, False),
        ({"sub": "agent-/../x"}, False),
        ({"sub": "xagent-1"}, False),
        (None, False),
    ],
)
def test_the_current_actor_decides(act: Any, permitted: bool) -> None:
    caller = principal_of(act=act)

    assert permits(requires_actor("agent-*"), caller) is permitted
    assert permits(requires_actor("nobody", "agent-*"), caller) is permitted


@pytest.mark.parametrize("patterns", [(), ("",), (5,)])
def test_an_actor_needs_a_name(patterns: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="agent"):
        requires_actor(*patterns)


def nested(depth: int) -> dict[str, Any]:
    return {"sub": "agent", **({"act": nested(depth - 1)} if depth > 1 else {})}


@pytest.mark.parametrize(
    "act",
    ["agent", [], {}, {"sub": 5}, {"sub": ""}, {"sub": "a", "iss": 1}, {"sub": "a", "act": 1}],
)
def test_an_actor_that_is_not_understood_is_refused(act: Any) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        LOCAL.verifier().verify_now(LOCAL.mint("alice", act=act))
    assert caught.value.reason == "claims"


def test_a_chain_has_ten_actors_at_most() -> None:
    verified = LOCAL.verifier().verify_now(LOCAL.mint("alice", act=nested(10)))

    assert verified is not None
    assert len(verified.actors) == 10
    with pytest.raises(InvalidTokenError):
        LOCAL.verifier().verify_now(LOCAL.mint("alice", act=nested(11)))


def test_a_cached_connection_belongs_to_the_actor_too() -> None:
    keys = {
        _key("vault", ConnectionRequest("calendar", (), principal_of(act=act), None))
        for act in (None, {"sub": "agent-1"}, {"sub": "agent-2"}, CHAIN)
    }
    assert len(keys) == 4
