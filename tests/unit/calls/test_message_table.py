"""The caller of a message, and the table of what was decided for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import ISSUER, NOW, TOKEN, Desk, Tokens, person
from toolguard.calls.message import (
    Frame,
    MessageContext,
    as_current,
    current_access_token,
    current_frame,
    current_principal,
    here,
)
from toolguard.calls.request import RequestAuth
from toolguard.calls.rows import Row, State
from toolguard.connections.static import StaticConnections
from toolguard.errors import (
    AccessDeniedError,
    GuardNotConfiguredError,
    InsufficientScopeError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.approval import ApprovalNeed
from toolguard.policies.decision import NEEDS_ARGUMENTS, PERMIT, Decision, Verdict
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal
from toolguard.testing import FrozenClock


def request(guard: Desk, principal: Principal | None = person()) -> RequestAuth:  # noqa: B008 - a frozen value
    return RequestAuth(None if principal is None else TOKEN, principal, guard)


CALL = OperationCall("tool", "read")


def door(guard: Desk, state: RequestAuth | None) -> Frame:
    return Frame(guard, MessageContext(state))


async def admission(frame: Frame, policy: Policy = Policy()) -> Principal | None:  # noqa: B008 - a frozen value
    return await frame.enter(policy, CALL).authorize(CALL)


def admit(frame: Frame, policy: Policy = Policy()) -> Principal | None:  # noqa: B008 - a frozen value
    return asyncio.run(admission(frame, policy))


def refusal(verdict: Awaitable[object]) -> ToolGuardError:
    async def wait() -> object:
        return await verdict

    with pytest.raises(ToolGuardError) as caught:
        asyncio.run(wait())
    return caught.value


# --- who calls


def test_the_caller_is_who_the_request_of_this_message_says() -> None:
    guard = Desk()

    assert admit(door(guard, request(guard))) == person()
    assert admit(door(guard, request(guard, person("bob")))) == person("bob")


def test_within_one_request_the_token_is_not_verified_again() -> None:
    tokens = Tokens()
    guard = Desk(tokens)
    call = door(guard, request(guard))

    admit(call)
    admit(call, Policy(public=True))

    assert tokens.seen == []


def test_without_a_request_nobody_calls_and_the_call_is_refused() -> None:
    for policy in (Policy(), Policy(public=True)):
        error = refusal(admission(door(Desk(), None), policy))
        assert isinstance(error, GuardNotConfiguredError)
        assert str(error).startswith("No request is being served here, so there is no caller")


def test_an_inner_server_verifies_the_token_for_itself() -> None:
    outer, tokens = Desk(), Tokens({TOKEN: person("alice", "inner.read")})
    inner = Desk(tokens)

    found = admit(door(inner, request(outer, person("alice", "outer.read"))))

    assert tokens.seen == [TOKEN]
    assert found == person("alice", "inner.read")


def test_the_inner_server_refuses_tokens_of_the_outer() -> None:
    error = refusal(admission(door(Desk(), request(Desk()))))

    assert isinstance(error, InvalidTokenError)


def test_an_inner_server_asks_for_its_own_scopes_by_its_own_hierarchy() -> None:
    outer = Desk(hierarchy={"write": ["read"]})
    inner = Desk(Tokens({TOKEN: person("alice", "write")}))

    error = refusal(admission(door(inner, request(outer)), Policy(Scope("read"))))

    assert isinstance(error, InsufficientScopeError)


# --- when


@pytest.mark.parametrize(
    ("expires_at", "leeway", "good"),
    [
        (NOW + 1, 0.0, True),
        (NOW, 0.0, False),
        (NOW - 1, 0.0, False),
        (NOW - 4, 5.0, True),
        (NOW - 5, 5.0, False),
        (0.0, 5.0, False),
    ],
)
def test_a_token_counts_until_it_expires_give_or_take_the_leeway(
    expires_at: float, leeway: float, good: bool
) -> None:
    guard = Desk(leeway=leeway)
    call = door(guard, request(guard, person(expires_at=expires_at)))

    if good:
        assert admit(call) is not None
    else:
        error = refusal(admission(call, Policy()))
        assert isinstance(error, InvalidTokenError)
        assert error.reason == "expired"


def test_expiry_counts_at_use_and_not_only_at_entry() -> None:
    clock = FrozenClock(NOW)
    guard = Desk(clock=clock)
    call = door(guard, request(guard, person(expires_at=NOW + 60)))
    admit(call)
    clock.advance(60)

    assert isinstance(refusal(admission(call, Policy())), InvalidTokenError)
    assert isinstance(refusal(admission(call, Policy(public=True))), InvalidTokenError)


def test_a_call_that_outlives_its_token_gets_no_connection() -> None:
    clock = FrozenClock(NOW)
    connections = StaticConnections({"calendar": "third-party"})
    guard = Desk(clock=clock, connections=connections)
    auth = request(guard, person(expires_at=NOW + 60))
    auth.outlives_token = True
    frame = door(guard, auth)
    needs = [ConnectionNeed("calendar", (), "connection_token")]

    before = asyncio.run(frame.connect(needs, auth.principal, CALL))
    clock.advance(60)
    principal = asyncio.run(admission(frame, Policy()))

    assert before["connection_token"] is not None
    assert principal == auth.principal
    with pytest.raises(InvalidTokenError):
        asyncio.run(frame.connect(needs, principal, CALL))
    with as_current(frame), pytest.raises(InvalidTokenError):
        current_access_token()


def test_an_expired_caller_is_not_told_which_scopes_are_missing() -> None:
    guard = Desk()
    call = door(guard, request(guard, person(expires_at=NOW)))

    assert isinstance(refusal(admission(call, Policy(Scope("read")))), InvalidTokenError)


def test_a_task_that_outlives_its_message_has_no_caller() -> None:
    guard = Desk()
    frame = door(guard, request(guard))

    async def outlive() -> Principal | None:
        with as_current(frame):
            ended = asyncio.Event()

            async def later() -> Principal | None:
                await ended.wait()
                return await admission(current_frame())

            task = asyncio.create_task(later())
        frame.message.closed = True
        ended.set()
        return await task

    assert isinstance(refusal(outlive()), GuardNotConfiguredError)


def test_a_caller_without_a_token_has_no_connection_and_no_access_token() -> None:
    guard = Desk(connections=StaticConnections({"calendar": "third-party"}))
    frame = door(guard, request(guard, None))
    needs = [ConnectionNeed("calendar", (), "connection_token")]

    assert admit(frame, Policy(public=True)) is None
    assert asyncio.run(frame.connect(needs, None, CALL)) == {}
    with as_current(frame), pytest.raises(MissingTokenError):
        current_access_token()


@pytest.mark.parametrize("outlives", [True, False])
def test_a_background_task_runs_as_its_caller_in_a_message_of_its_own(outlives: bool) -> None:
    outer, tokens = Desk(), Tokens({TOKEN: person("alice", "inner.read")})
    inner = Desk(tokens)
    call = door(inner, request(outer))
    call.message.sent = CALL
    caller = admit(call)

    for message in (
        task := call.message.in_background("task-1", outlives_token=outlives),
        task.again(),
    ):
        assert (message.task, message.sent, message.rows) == ("task-1", CALL, [])
        assert asyncio.run(message.principal(inner)) == caller
        assert message.auth is not None
        assert message.auth.outlives_token is outlives
        assert message.auth is not call.message.auth
    assert tokens.seen == [TOKEN]


# --- which message


def test_the_current_frame_is_the_innermost() -> None:
    outer, inner = door(Desk(), None), door(Desk(), None)

    with as_current(outer):
        with as_current(inner):
            assert current_frame() is inner
        assert current_frame() is outer
        assert here() is outer
    assert here() is None


def test_without_a_message_the_developer_is_told_what_to_write() -> None:
    with pytest.raises(GuardNotConfiguredError, match=r"write ToolGuard\(\.\.\.\)\.protect"):
        current_frame()


def test_a_closed_message_is_not_around_anything() -> None:
    guard = Desk()
    frame = door(guard, request(guard))

    with as_current(frame):
        frame.message.closed = True
        assert here() is None
        with pytest.raises(GuardNotConfiguredError, match="The call has ended"):
            current_principal()
        with pytest.raises(MissingTokenError):
            current_access_token()


def test_a_message_through_a_session_of_another_caller_has_no_known_caller() -> None:
    guard = Desk()
    frame = door(guard, request(guard))
    frame.message.is_current = lambda: False

    with as_current(frame):
        assert here() is None
        with pytest.raises(GuardNotConfiguredError, match="open the session inside the tool"):
            current_frame()


def test_outside_of_operations_no_row_has_been_entered() -> None:
    with pytest.raises(GuardNotConfiguredError, match="No operation has been entered"):
        door(Desk(), None).entered  # noqa: B018 - reading it is what fails


def test_a_call_that_nobody_can_approve_is_refused() -> None:
    guard = Desk()
    need = ApprovalNeed("Delete {title}?")

    error = refusal(admission(door(guard, request(guard)), Policy(approval=need)))

    assert isinstance(error, GuardNotConfiguredError)
    assert "write protect(server, approvals=...)" in str(error)


def test_messages_served_at_the_same_time_do_not_see_each_other() -> None:
    guard = Desk()
    seen: dict[str, list[Principal | None]] = {}

    async def message(name: str) -> None:
        with as_current(door(guard, request(guard, person(name)))):
            for _ in range(10):
                await asyncio.sleep(0)
                seen.setdefault(name, []).append(await admission(current_frame()))

    async def serve() -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(message, f"user-{number}")

    asyncio.run(serve())

    assert seen == {f"user-{n}": [person(f"user-{n}")] * 10 for n in range(20)}


def test_the_current_principal_is_the_caller_of_this_guard() -> None:
    guard, other = Desk(), Desk()

    with as_current(door(guard, request(guard))):
        assert current_principal() == person()
    with as_current(door(guard, request(guard, None))), pytest.raises(MissingTokenError):
        current_principal()
    with as_current(door(other, request(guard))), pytest.raises(MissingTokenError):
        current_principal()


def test_without_a_caller_every_operation_is_refused_with_the_reason() -> None:
    guard = Desk()
    failure = InvalidTokenError("expired", "The access token has expired")
    frame = door(guard, RequestAuth(TOKEN, None, guard, failure=failure))

    assert refusal(admission(frame)) is failure
    assert refusal(admission(frame, Policy(public=True))) is failure


def test_a_request_shows_neither_its_token_nor_its_guard() -> None:
    shown = repr(request(Desk()))

    assert TOKEN not in shown
    assert "Desk" not in shown
    assert f"principal=<Principal: alice of {ISSUER} via desktop []>" in shown


# --- the table


def test_the_door_hears_of_a_permit_for_the_messages_own_operation_only() -> None:
    guard = Desk()
    state = request(guard)
    frame = door(guard, state)
    outer = frame.enter(Policy(), CALL)
    nested = outer.enter(Policy(), CALL)

    asyncio.run(nested.authorize(CALL))
    assert not state.permitted
    asyncio.run(outer.authorize(CALL))
    assert state.permitted


def test_a_message_without_a_decision_is_not_permitted() -> None:
    frame = door(Desk(), None)

    assert not frame.message.is_permitted
    frame.enter(Policy(), CALL)
    assert not frame.message.is_permitted


DECISIONS = st.sampled_from(
    [PERMIT, NEEDS_ARGUMENTS, Decision(Verdict.REFUSE, AccessDeniedError())]
)


@given(st.lists(DECISIONS))
def test_a_row_is_permitted_only_by_its_own_last_decision(decisions: list[Decision]) -> None:
    row = Row(Policy(), CALL)

    for decision in decisions:
        row.decided(decision, None)

    assert (row.state is State.PERMITTED) == (
        bool(decisions)
        and decisions[-1] is PERMIT
        and all(each.refusal is None for each in decisions)
        and NEEDS_ARGUMENTS not in decisions[1:]
    )


@given(st.lists(st.tuples(st.integers(0, 3), DECISIONS), max_size=12))
def test_no_decision_of_one_row_changes_another(events: list[tuple[int, Decision]]) -> None:
    together = [Row(Policy(), CALL) for _ in range(4)]
    alone = [Row(Policy(), CALL) for _ in range(4)]

    for index, decision in events:
        together[index].decided(decision, None)
    for index, row in enumerate(alone):
        for chosen, decision in events:
            if chosen == index:
                row.decided(decision, None)

    assert [row.state for row in together] == [row.state for row in alone]
