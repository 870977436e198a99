"""Does what a client owns belong to its key as well?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from toolguard.connections.cache import _key
from toolguard.connections.protocol import ConnectionRequest
from toolguard.frameworks.task_owners import TaskOwners
from toolguard.http.event_ids import EventIds, EventOwner
from toolguard.http.identity import told_client
from toolguard.http.sessions import SessionOwners
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")
EVENTS = EventIds("the secret of every replica")
KEYS = st.none() | st.sampled_from(["key-of-a-phone", "key-of-a-desktop", "desktop"])

callers = st.builds(
    Principal,
    st.just("alice"),
    st.just(ISSUER.issuer),
    st.none() | st.sampled_from(["desktop", "key-of-a-phone", "desktop key-of-a-phone"]),
    jkt=KEYS,
)


def bound(principal: Principal, jkt: str | None) -> Principal:
    return replace(principal, jkt=jkt)


@given(callers, KEYS)
def test_a_session_is_admitted_with_its_key_only(caller: Principal, jkt: str | None) -> None:
    sessions = SessionOwners()
    sessions.open("1", caller)

    assert sessions.admits("1", bound(caller, jkt)) is (jkt == caller.jkt)


@given(callers, KEYS)
def test_an_event_is_resumed_with_its_key_only(caller: Principal, jkt: str | None) -> None:
    sealed = EVENTS.sealed(b"7", EventOwner.of(caller, "1"))

    unsealed = EVENTS.unsealed(sealed, EventOwner.of(bound(caller, jkt), "1"))
    assert (unsealed == b"7") is (jkt == caller.jkt)


@given(callers, KEYS)
def test_a_task_is_known_with_its_key_only(caller: Principal, jkt: str | None) -> None:
    owners = TaskOwners()
    owners.note("1", caller)

    assert owners.owns(bound(caller, jkt), "1") is (jkt == caller.jkt)


@given(callers, KEYS)
def test_a_connection_is_cached_for_its_key_only(caller: Principal, jkt: str | None) -> None:
    def key(principal: Principal) -> str | None:
        return _key("vault", ConnectionRequest("github", (), principal, "token"))

    assert (key(caller) == key(bound(caller, jkt))) is (jkt == caller.jkt)


@given(callers, callers)
def test_frameworks_are_told_bound_callers_apart(one: Principal, other: Principal) -> None:
    verifier = ISSUER.verifier()
    told = [told_client(each, verifier) for each in (one, other)]

    is_same = ((one.client_id or ""), one.jkt) == ((other.client_id or ""), other.jkt)
    if one.jkt is not None and other.jkt is not None:
        assert (told[0] == told[1]) is is_same
    elif one.jkt == other.jkt:
        assert told == [one.client_id or "", other.client_id or ""]
    else:  # a client id of an issuer does not begin with the issuer and a space
        assert told[0] != told[1]


OTHERS = st.sampled_from(
    [
        {"tenant_id": "acme"},
        {"claims": {"act": {"sub": "agent"}}},
        {"tenant_id": "acme", "claims": {"act": {"sub": "agent"}}},
    ]
)


@given(callers, OTHERS)
def test_a_tenant_and_an_actor_own_what_is_theirs(
    caller: Principal, changes: dict[str, Any]
) -> None:
    other = replace(caller, **changes)
    sessions, owners = SessionOwners(), TaskOwners()
    sessions.open("1", caller)
    owners.note("1", caller)
    sealed = EVENTS.sealed(b"7", EventOwner.of(caller, "1"))

    assert not sessions.admits("1", other)
    assert not owners.owns(other, "1")
    assert EVENTS.unsealed(sealed, EventOwner.of(other, "1")) is None
    assert sessions.admits("1", caller)
