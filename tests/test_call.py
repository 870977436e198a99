"""Who calls, in this message, on this server, and at this moment?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import anyio
import pytest
from callers import ISSUER, NOW, TOKEN, Desk, Tokens, person
from toolguard.calls.context import (
    Admission,
    Call,
)
from toolguard.calls.current import current_call, outer_call, serving

from toolguard.calls.request import RequestAuth
from toolguard.errors import (
    AccessDeniedError,
    GuardNotConfiguredError,
    InsufficientScopeError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.policy import DefaultRule, Policy
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal
from toolguard.testing import FrozenClock


def request(guard: Desk, principal: Principal | None = person()) -> RequestAuth:  # noqa: B008 - a frozen value
    return RequestAuth(None if principal is None else TOKEN, principal, guard)


def admit(call: Call, policy: Policy = Policy()) -> Admission:  # noqa: B008 - a frozen value
    return asyncio.run(call.admit(policy))


def refusal(verdict: Awaitable[object]) -> ToolGuardError:
    async def wait() -> object:
        return await verdict

    with pytest.raises(ToolGuardError) as caught:
        asyncio.run(wait())
    return caught.value


# --- who calls


def test_the_caller_is_who_the_request_of_this_message_says() -> None:
    guard = Desk()

    assert admit(Call(guard, request(guard))) == Admission(person(), {})
    assert admit(Call(guard, request(guard, person("bob")))).principal == person("bob")


def test_within_one_request_the_token_is_not_verified_again() -> None:
    tokens = Tokens()
    guard = Desk(tokens)
    call = Call(guard, request(guard))

    admit(call)
    admit(call, Policy(public=True))

    assert tokens.seen == []


def test_without_a_request_nobody_calls_and_the_call_is_refused() -> None:
    for policy in (Policy(), Policy(public=True)):
        error = refusal(Call(Desk(), None).admit(policy))
        assert isinstance(error, GuardNotConfiguredError)
        assert str(error).startswith("No request is being served here, so there is no caller")


def test_an_inner_server_verifies_the_token_for_itself() -> None:
    outer, tokens = Desk(), Tokens({TOKEN: person("alice", "inner.read")})
    inner = Desk(tokens)

    admission = admit(Call(inner, request(outer, person("alice", "outer.read"))))

    assert tokens.seen == [TOKEN]
    assert admission.principal == person("alice", "inner.read")


def test_a_token_that_is_good_for_the_outer_server_only_is_refused_by_the_inner_one() -> None:
    error = refusal(Call(Desk(), request(Desk())).admit(Policy()))

    assert isinstance(error, InvalidTokenError)


def test_an_inner_server_asks_for_its_own_scopes_by_its_own_hierarchy() -> None:
    outer = Desk(hierarchy={"write": ["read"]})
    inner = Desk(Tokens({TOKEN: person("alice", "write")}))

    error = refusal(Call(inner, request(outer)).admit(Policy(Scope("read"))))

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
    call = Call(guard, request(guard, person(expires_at=expires_at)))

    if good:
        assert admit(call).principal is not None
    else:
        error = refusal(call.admit(Policy()))
        assert isinstance(error, InvalidTokenError)
        assert error.reason == "expired"


def test_expiry_counts_at_use_and_not_only_at_entry() -> None:
    clock = FrozenClock(NOW)
    guard = Desk(clock=clock)
    call = Call(guard, request(guard, person(expires_at=NOW + 60)))
    admit(call)
    clock.advance(60)

    assert isinstance(refusal(call.admit(Policy())), InvalidTokenError)
    assert isinstance(refusal(call.admit(Policy(public=True))), InvalidTokenError)


def test_an_expired_caller_is_not_told_which_scopes_are_missing() -> None:
    guard = Desk()
    call = Call(guard, request(guard, person(expires_at=NOW)))

    assert isinstance(refusal(call.admit(Policy(Scope("read")))), InvalidTokenError)


def test_a_task_that_outlives_its_call_has_no_caller() -> None:
    guard = Desk()
    call = Call(guard, request(guard))

    async def outlive() -> Admission:
        with serving(call):
            ended = asyncio.Event()

            async def later() -> Admission:
                await ended.wait()
                return await current_call().admit(Policy())

            task = asyncio.create_task(later())
        ended.set()
        return await task

    assert isinstance(refusal(outlive()), GuardNotConfiguredError)


# --- which call


def test_the_current_call_is_the_innermost_one_that_is_served() -> None:
    outer, inner = Call(Desk(), None), Call(Desk(), None)

    with serving(outer):
        with serving(inner):
            assert current_call() is inner
        assert current_call() is outer
        assert outer_call() is outer
    assert outer_call() is None


def test_without_a_call_the_developer_is_told_what_to_write() -> None:
    with pytest.raises(GuardNotConfiguredError, match=r"write ToolGuard\(\.\.\.\)\.protect"):
        current_call()


def test_a_closed_call_is_not_around_anything() -> None:
    call = Call(Desk(), None)

    with serving(call):
        call.close()
        assert outer_call() is None


def test_calls_that_are_served_at_the_same_time_do_not_see_each_other() -> None:
    guard = Desk()
    seen: dict[str, list[Principal | None]] = {}

    async def message(name: str) -> None:
        with serving(Call(guard, request(guard, person(name)))):
            for _ in range(10):
                await asyncio.sleep(0)
                admission = await current_call().admit(Policy())
                seen.setdefault(name, []).append(admission.principal)

    async def serve() -> None:
        async with anyio.create_task_group() as group:
            for number in range(20):
                group.start_soon(message, f"user-{number}")

    asyncio.run(serve())

    assert seen == {f"user-{n}": [person(f"user-{n}")] * 10 for n in range(20)}


# --- what carries no guard

HANDSHAKE = ["initialize", "ping", "server/discover", "notifications/initialized"]
LISTS = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]
OTHER = ["tools/call", "resources/read", "completion/complete", "logging/setLevel", "x/y", ""]


@pytest.mark.parametrize("default", ["authenticated", "deny", "public"])
@pytest.mark.parametrize("method", HANDSHAKE)
def test_what_a_client_does_before_it_can_ask_for_anything_needs_no_rule(
    method: str, default: DefaultRule
) -> None:
    guard = Desk(default=default)

    asyncio.run(Call(guard, request(guard, None)).admit_undeclared(method))


@pytest.mark.parametrize("default", ["authenticated", "deny"])
@pytest.mark.parametrize("method", LISTS)
def test_what_there_is_may_be_listed_by_callers_and_by_nobody_where_something_is_public(
    method: str, default: DefaultRule
) -> None:
    closed, opened = Desk(default=default), Desk(default=default, admits_anonymous=True)

    asyncio.run(Call(closed, request(closed)).admit_undeclared(method))
    asyncio.run(Call(opened, request(opened, None)).admit_undeclared(method))
    error = refusal(Call(closed, request(closed, None)).admit_undeclared(method))
    assert isinstance(error, MissingTokenError)


@pytest.mark.parametrize(
    ("default", "principal", "error"),
    [
        ("authenticated", person(), None),
        ("authenticated", None, MissingTokenError),
        ("deny", person(), AccessDeniedError),
        ("deny", None, AccessDeniedError),
        ("public", person(), None),
        ("public", None, None),
    ],
)
@pytest.mark.parametrize("method", OTHER)
def test_an_operation_without_a_guard_is_held_against_the_default(
    method: str,
    default: DefaultRule,
    principal: Principal | None,
    error: type[ToolGuardError] | None,
) -> None:
    guard = Desk(default=default)
    call = Call(guard, request(guard, principal))

    if error is None:
        asyncio.run(call.admit_undeclared(method))
    else:
        assert type(refusal(call.admit_undeclared(method))) is error


def test_a_refusal_that_a_message_ends_in_is_recorded_for_whoever_answers_the_request() -> None:
    guard = Desk()
    state = request(guard)
    call = Call(guard, state)
    error = AccessDeniedError()

    raised = call.refuse(error)
    before = state.refusal

    assert raised is error
    assert before is None
    assert call.settle(failed=True) is error
    assert state.refusal is error


def test_a_refusal_that_a_function_coped_with_is_nobodys() -> None:
    guard = Desk()
    state = request(guard)
    call = Call(guard, state)
    call.refuse(AccessDeniedError())

    assert call.settle(failed=False) is None
    assert state.refusal is None


def test_a_message_that_failed_without_a_refusal_was_not_refused() -> None:
    guard = Desk()
    state = request(guard)

    assert Call(guard, state).settle(failed=True) is None
    assert state.refusal is None


def test_a_task_that_outlives_its_call_leaves_no_refusal_behind() -> None:
    guard = Desk()
    state = request(guard)
    with serving(Call(guard, state)) as call:
        pass
    call.refuse(AccessDeniedError())

    assert state.noted is None


def test_why_there_is_no_caller_is_the_refusal_of_every_operation() -> None:
    guard = Desk()
    failure = InvalidTokenError("expired", "The access token has expired")
    call = Call(guard, RequestAuth(TOKEN, None, guard, failure=failure))

    assert refusal(call.admit(Policy())) is failure
    assert refusal(call.admit(Policy(public=True))) is failure


def test_a_framework_says_no_in_its_own_words() -> None:
    call = Call(Desk(), None, lambda refusal: LookupError(refusal.to_json()))

    assert isinstance(call.refuse(AccessDeniedError()), LookupError)


def test_a_request_shows_neither_its_token_nor_its_guard() -> None:
    shown = repr(request(Desk()))

    assert TOKEN not in shown
    assert "Desk" not in shown
    assert f"principal=<Principal: alice of {ISSUER} via desktop []>" in shown
