"""Who meets which requirement, and what does a rule say of it?"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from support.callers import NOW, Caller, Desk, person
from toolguard import (
    AccessDeniedError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    OperationCall,
    Principal,
    ToolGuardError,
    all_of,
    any_of,
    public,
    requires,
    requires_auth,
    requires_claim,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
    with_connection,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.policies.policy import Policy
from toolguard.testing import FrozenClock

CALL = OperationCall("tool", "delete", {"tenant_id": "t1"})


def refusal(guard: GuardDecorator, caller: Principal, **arguments: Any) -> ToolGuardError | None:
    """Return why ``caller`` is refused by ``guard``; None if not."""

    @guard
    async def tool(tenant_id: str = "none", amount: int = 0) -> str:
        return "done"

    try:
        Caller(caller, Desk()).calls(tool, **arguments)
    except ToolGuardError as error:
        return error
    return None


def claimed(**claims: Any) -> Principal:
    return person("alice", claims=claims)


# --- each requirement by itself


@pytest.mark.parametrize(
    ("guard", "welcome", "others"),
    [
        (
            requires_permissions("events.delete"),
            [person(permissions=("events.delete", "x"))],
            [person(), person(permissions=("events.deleted",)), person("a", "events.delete")],
        ),
        (
            requires_permissions("a", "b"),
            [person(permissions=("b", "a"))],
            [person(permissions=("a",)), person(permissions=("a b",))],
        ),
        (requires_roles("admin"), [person(roles=("admin",))], [person(roles=("Admin",))]),
        (
            requires_tenant("t1", "t2"),
            [person(tenant_ids=("t1",)), person(tenant_ids=("t9", "t2"))],
            [person(), person(tenant_ids=("t3",)), person(tenant_ids=("t1 ",))],
        ),
        (
            requires_client("desktop", "ci-*"),
            [person(client_id="desktop"), person(client_id="ci-7")],
            [person(client_id=None), person(client_id="desktop2"), person(client_id="ci/7")],
        ),
        (
            requires_claim("email_verified", lambda value: value is True),
            [claimed(email_verified=True)],
            [claimed(), claimed(email_verified="true"), claimed(email_verified=False)],
        ),
        (
            requires_recent_auth(max_age=60),
            [claimed(auth_time=NOW), claimed(auth_time=NOW - 60)],
            [
                claimed(),
                claimed(auth_time=NOW - 61),
                claimed(auth_time=NOW + 1),
                claimed(auth_time=str(NOW)),
                claimed(auth_time=True),
            ],
        ),
        (
            requires_recent_auth(acr_values=["phr", "mfa"]),
            [claimed(acr="mfa"), claimed(acr="phr")],
            [claimed(), claimed(acr="pwd"), claimed(acr=["mfa"]), claimed(acr="mfa phr")],
        ),
    ],
    ids=lambda each: repr(each) if isinstance(each, GuardDecorator) else "",
)
def test_a_requirement_lets_in_who_meets_it_and_nobody_else(
    guard: GuardDecorator, welcome: list[Principal], others: list[Principal]
) -> None:
    assert [refusal(guard, each) for each in welcome] == [None] * len(welcome)
    assert all(refusal(guard, each) is not None for each in others)


@pytest.mark.parametrize("tenant_id", ["t1", "t2"])
def test_the_tenant_that_a_call_names_has_to_be_one_of_the_callers(tenant_id: str) -> None:
    guard = requires_tenant(tenant_from="tenant_id")
    alice = person(tenant_ids=("t1", "t2"))

    assert refusal(guard, alice, tenant_id=tenant_id) is None
    assert isinstance(refusal(guard, alice, tenant_id="t3"), AccessDeniedError)
    assert isinstance(refusal(guard, alice, tenant_id=""), AccessDeniedError)
    assert isinstance(refusal(guard, alice), AccessDeniedError), "the default is no tenant of hers"


@pytest.mark.parametrize(
    "client_id",
    [
        "https://evil.test?.example.com/app",
        "https://evil.test/.example.com/app",
        "https://evil.test#.example.com/app",
        "https://user@evil.test:1.example.com/app",
        "https://a.example.com/app/../../evil",
        "https://a.example.com/app\n",
    ],
)
def test_a_pattern_for_a_host_reaches_into_no_other_part_of_a_url(client_id: str) -> None:
    guard = requires_client("https://*.example.com/app")

    assert refusal(guard, person(client_id="https://a.b.example.com/app")) is None
    assert isinstance(refusal(guard, person(client_id=client_id)), AccessDeniedError)


# --- checks of one's own


@pytest.mark.parametrize("answer", [True, False])
def test_a_check_decides_on_the_caller_and_the_call(answer: bool) -> None:
    seen: list[Any] = []

    def check(principal: Principal, call: OperationCall) -> bool:
        seen.append((principal.user_id, dict(call.arguments)))
        return answer

    async def later(principal: Principal, call: OperationCall) -> bool:
        return check(principal, call)

    for each in (check, later):
        error = refusal(requires(each), person("alice"), amount=3)
        assert (error is None) == answer
    assert seen == [("alice", {"tenant_id": "none", "amount": 3})] * 2


def test_a_synchronous_check_does_not_block_the_event_loop() -> None:
    threads: list[threading.Thread] = []

    def check(principal: Principal, call: OperationCall) -> bool:
        threads.append(threading.current_thread())
        return True

    assert refusal(requires(check), person()) is None
    assert threads[0] is not threading.main_thread()


def test_a_check_named_twice_is_asked_once_per_call() -> None:
    asked: list[str] = []

    def check(principal: Principal, call: OperationCall) -> bool:
        asked.append(call.name)
        return False

    guard = any_of(all_of(requires(check), "a"), all_of(requires(check), "b"))
    assert isinstance(refusal(guard, person("alice", "a", "b")), AccessDeniedError)
    assert len(asked) == 1


def test_a_check_is_not_asked_where_the_role_beside_it_says_no() -> None:
    def check(principal: Principal, call: OperationCall) -> bool:
        raise AssertionError("asked")

    assert refusal(all_of(requires(check), requires_roles("admin")), person()) is not None


@pytest.mark.parametrize("answer", [None, 1, "yes", "", object(), [True]])
def test_what_is_neither_true_nor_false_is_a_no_and_is_logged(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    def check(principal: Principal, call: OperationCall) -> Any:
        return answer

    assert isinstance(refusal(requires(check), person()), AccessDeniedError)
    assert "answered" in caplog.text
    assert ".check answered" in caplog.text


def _failing(*_: object) -> bool:
    raise RuntimeError("the token is eyJhbGciOi")


async def _failing_later(principal: Principal, call: OperationCall) -> bool:
    raise RuntimeError("the token is eyJhbGciOi")


def _exiting(*_: object) -> bool:
    sys.exit("eyJhbGciOi")


async def _exiting_later(principal: Principal, call: OperationCall) -> bool:
    sys.exit("eyJhbGciOi")


@pytest.mark.parametrize(
    ("guard", "name"),
    [
        (requires(_failing), "check _failing"),
        (requires(_failing_later), "check _failing_later"),
        (requires_claim("email", _failing), "claim email"),
        (requires_scopes(lambda call: call.arguments["none"]), "scopes by <lambda>"),
        (requires(_exiting), "check _exiting"),
        (requires(_exiting_later), "check _exiting_later"),
        (requires_claim("email", _exiting), "claim email"),
        (requires_scopes(lambda call: sys.exit("eyJhbGciOi")), "scopes by <lambda>"),
    ],
    ids=str,
)
def test_an_exception_in_a_check_refuses_and_is_logged_with_its_name_alone(
    guard: GuardDecorator, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    error = refusal(guard, claimed(email="a@example.com"))

    assert isinstance(error, AccessDeniedError)
    assert f"{name} failed: " in caplog.text
    assert "eyJ" not in caplog.text + str(error) + error.to_json()


def test_a_token_that_expires_while_a_check_runs_is_not_used() -> None:
    clock = FrozenClock(NOW)

    def check(principal: Principal, call: OperationCall) -> bool:
        clock.advance(3_600)
        return True

    @requires(check)
    async def tool() -> str:
        return "done"

    with pytest.raises(ToolGuardError) as refused:
        Caller(person(), Desk(clock=clock)).calls(tool)
    assert refused.value.error == "invalid_token"


# --- what a refusal says


def test_a_refusal_by_an_opaque_rule_does_not_name_the_rule() -> None:
    error = refusal(all_of("calendar.secret", requires_roles("admin")), person())

    assert isinstance(error, AccessDeniedError)
    assert error.rule == "role admin"
    assert error.to_dict() == {
        "error": "access_denied",
        "error_description": "You are not allowed to do this",
    }
    assert "admin" not in str(error)


def test_only_the_scopes_of_an_alternative_that_is_left_are_named() -> None:
    guard = any_of(
        all_of(requires_roles("admin"), "secret.all"),
        all_of(requires_roles("owner"), "calendar.write", "calendar.read"),
    )
    error = refusal(guard, person("alice", "calendar.read", roles=("owner",)))

    assert isinstance(error, InsufficientScopeError)
    assert error.required_scopes == ("calendar.write", "calendar.read")
    assert error.missing_scopes == ("calendar.write",)
    assert isinstance(refusal(guard, person()), AccessDeniedError)


def test_who_has_to_sign_in_again_is_told_how_and_keeps_the_scopes() -> None:
    guard = all_of("write", requires_recent_auth(max_age=300, acr_values=["phr", "mfa"]))
    error = refusal(guard, person("alice", "read", claims={"auth_time": NOW - 400, "acr": "mfa"}))

    assert isinstance(error, InsufficientAuthenticationError)
    assert (error.max_age, error.acr_values) == (300, ("phr", "mfa"))
    assert error.scopes == ("read", "write")


def test_several_rules_about_the_sign_in_are_asked_for_at_once() -> None:
    guard = all_of(
        requires_recent_auth(max_age=300, acr_values=["phr", "mfa"]),
        requires_recent_auth(max_age=60),
        requires_recent_auth(acr_values=["mfa", "hw"]),
    )
    error = refusal(guard, person())

    assert isinstance(error, InsufficientAuthenticationError)
    assert (error.max_age, error.acr_values) == (60, ("mfa",))


def test_sign_ins_that_exclude_each_other_are_asked_for_by_nobody() -> None:
    guard = all_of(
        requires_recent_auth(acr_values=["phr"]), requires_recent_auth(acr_values=["pwd"])
    )

    assert isinstance(refusal(guard, person(claims={"acr": "phr"})), AccessDeniedError)


# --- how rules are written


@pytest.mark.parametrize(
    ("guard", "text"),
    [
        (requires_permissions("a", "b"), "permission a & permission b"),
        (requires_tenant("t1", "t2"), "tenant t1 | tenant t2"),
        (requires_tenant(tenant_from="tenant_id"), "tenant in tenant_id"),
        (requires_client("x*"), "client x*"),
        (requires_claim("email", bool), "claim email"),
        (requires(_failing), "check _failing"),
        (requires_recent_auth(max_age=60), "authenticated within 60 s"),
        (any_of("admin", requires_roles("owner")), "admin | role owner"),
        (all_of(requires_auth, any_of(requires_roles("a"), "b")), "role a | b"),
        (any_of(requires_auth, "admin"), "any authenticated caller"),
        (requires_scopes("a.{tenant_id}.b"), "a.{tenant_id}.b"),
    ],
)
def test_a_guard_reads_like_the_rule_it_is(guard: GuardDecorator, text: str) -> None:
    assert repr(guard) == f"<guard: {text}>"


def test_guards_that_say_the_same_are_equal_policies() -> None:
    once = all_of(requires_roles("a"), any_of("x", requires_roles("a")))

    assert once.policy == requires_roles("a").policy == Policy(once.policy.formula)
    assert hash(requires_tenant("a", "b").policy) == hash(requires_tenant("b", "a").policy)


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (ValueError, requires_roles),
        (ValueError, lambda: requires_permissions("")),
        (ValueError, requires_tenant),
        (ValueError, lambda: requires_tenant("a", tenant_from="b")),
        (ValueError, lambda: requires_tenant(tenant_from="not a name")),
        (ValueError, lambda: requires_client("")),
        (ValueError, lambda: requires_claim("", bool)),
        (ValueError, requires_recent_auth),
        (ValueError, lambda: requires_recent_auth(max_age=0)),
        (ValueError, lambda: requires_recent_auth(acr_values=['quo"te'])),
        (ValueError, lambda: requires_recent_auth(acr_values=["two words"])),
        (ValueError, lambda: any_of(public, "a")),
        (ValueError, lambda: any_of(with_connection("mail"), "a")),
        (ValueError, lambda: all_of(public, "a", requires_auth)),
        (TypeError, lambda: requires_roles(["a"])),  # type: ignore[arg-type]
        (TypeError, lambda: requires_claim("email", "a@x.test")),  # type: ignore[arg-type]
        (TypeError, lambda: requires_recent_auth(acr_values="mfa")),
        (TypeError, lambda: requires(len)),  # type: ignore[arg-type]
        (TypeError, lambda: requires("check")),  # type: ignore[arg-type]
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_where_it_is_written(
    kind: type[Exception], write: Callable[[], object]
) -> None:
    with pytest.raises(kind):
        write()


def test_a_rule_about_an_absent_argument_is_refused_at_import() -> None:
    async def tool(calendar: str, *, user_id: str) -> None: ...

    for guard in (requires_tenant(tenant_from="tenant"), requires_scopes("a.{user_id}")):
        with pytest.raises(TypeError, match=r"reads an argument that tool\(\) does not have"):
            guard(tool)


def test_a_check_that_is_cancelled_stays_cancelled() -> None:
    async def check(principal: Principal, call: OperationCall) -> bool:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return True

    @requires(check)
    async def tool() -> str:
        return "done"

    with pytest.raises(asyncio.CancelledError):
        Caller(person(), Desk()).calls(tool)
