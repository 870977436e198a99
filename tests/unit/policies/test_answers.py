"""What follows from what a check answers, alone and together with other requirements?"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import NOW, person
from toolguard import (
    AccessDeniedError,
    Answer,
    DecisionUnavailableError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    OperationCall,
    Principal,
    all_of,
    any_of,
    requires,
    requires_roles,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.policies.decision import (
    NEEDS_ARGUMENTS,
    PERMIT,
    Caller,
    Decision,
    decide,
    decide_listed,
)
from toolguard.policies.policy import Policy

CALL = OperationCall("tool", "pay", {"amount": 3})


class Says:
    """A check that says what it is told to, and counts how often it is asked."""

    def __init__(self, said: Any, name: str = "says") -> None:
        self.said = said
        self.asked = 0
        self.__qualname__ = name

    async def __call__(self, principal: Principal, call: OperationCall) -> Any:
        self.asked += 1
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


def decided(
    guard: GuardDecorator,
    *scopes: str,
    call: OperationCall | None = CALL,
    listing: bool = False,
    **facts: Any,
) -> Decision:
    caller = Caller(person("alice", *scopes, **facts), frozenset(scopes), NOW)
    return asyncio.run(decide(guard.policy, caller, call, listing=listing))


# --- one answer


@pytest.mark.parametrize("said", [True, Answer.permit()])
def test_a_permit_permits(said: Any) -> None:
    assert decided(requires(Says(said))) is PERMIT


@pytest.mark.parametrize(
    "said",
    [
        *(False, Answer.deny(), Answer.deny("over the limit")),
        *(None, 1, 0, "permit", "yes", object(), [True], {"decision": True}, Answer),
        *(ValueError("permit"), TimeoutError(), KeyError("amount")),
    ],
    ids=lambda said: type(said).__name__,
)
def test_whatever_is_not_a_permit_denies(said: Any) -> None:
    assert isinstance(decided(requires(Says(said))).refusal, AccessDeniedError)


def test_the_reason_of_a_denial_is_for_the_record_only() -> None:
    refusal = decided(requires(Says(Answer.deny("the limit is 2"), "may_pay"))).refusal

    assert isinstance(refusal, AccessDeniedError)
    assert refusal.rule == "check may_pay: the limit is 2"
    assert "limit" not in str(refusal) + refusal.to_json()


def test_what_cannot_be_told_is_an_outage_and_no_denial() -> None:
    refusal = decided(requires(Says(Answer.try_again("no route to 10.0.0.7"), "may_pay"))).refusal

    assert isinstance(refusal, DecisionUnavailableError)
    assert refusal.rule == "check may_pay: no route to 10.0.0.7"
    assert refusal.to_dict() == {
        "error": "decision_unavailable",
        "error_description": "It cannot be decided now whether you may do this: try again",
    }


def test_needed_scopes_become_the_challenge() -> None:
    guard = all_of("read", requires(Says(Answer.needs_scopes("pay", "audit"))))

    refusal = decided(guard, "read", "audit").refusal

    assert isinstance(refusal, InsufficientScopeError)
    assert refusal.missing_scopes == ("pay",)
    assert refusal.required_scopes == ("read", "pay", "audit")


def test_a_needed_sign_in_becomes_the_challenge() -> None:
    guard = requires(Says(Answer.needs_sign_in(max_age=60, acr_values=["mfa"])))

    refusal = decided(guard, claims={"auth_time": NOW - 61, "acr": "mfa"}).refusal

    assert isinstance(refusal, InsufficientAuthenticationError)
    assert (refusal.max_age, refusal.acr_values) == (60, ("mfa",))


@pytest.mark.parametrize(
    ("answer", "claims"),
    [
        (Answer.needs_scopes("pay"), {}),
        (Answer.needs_sign_in(max_age=60), {"auth_time": NOW}),
        (Answer.needs_sign_in(acr_values=["mfa"]), {"acr": "mfa"}),
    ],
)
def test_needing_what_the_caller_has_is_a_denial(answer: Answer, claims: Any) -> None:
    refusal = decided(requires(Says(answer)), "pay", claims=claims).refusal

    assert isinstance(refusal, AccessDeniedError)


@pytest.mark.parametrize(
    "make",
    [
        *(Answer.needs_scopes, lambda: Answer.needs_scopes("a b")),
        *(lambda: Answer.needs_scopes("a=b"), lambda: Answer.needs_scopes("")),
        *(Answer.needs_sign_in, lambda: Answer.needs_sign_in(max_age=0)),
        *(lambda: Answer.needs_sign_in(max_age=True), lambda: Answer("yes")),  # type: ignore[arg-type]
        *(lambda: Answer("permit", scopes=("a",)), lambda: Answer("deny", max_age=3)),
        lambda: Answer.needs_sign_in(acr_values=["a b"]),
    ],
)
def test_an_answer_that_no_challenge_can_carry_cannot_be_made(make: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        make()


@pytest.mark.parametrize(
    ("make", "write"),
    [
        (lambda: Answer.deny(403), "the reason of an answer is a string"),  # type: ignore[arg-type]
        (lambda: Answer.needs_sign_in(acr_values="gold"), "acr_values=['gold']: a list"),
    ],
)
def test_an_answer_of_another_type_cannot_be_made(make: Any, write: str) -> None:
    with pytest.raises(TypeError, match=re.escape(write)):
        make()


def test_an_answer_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="no truth value"):
        bool(Answer.deny())


# --- time, and how often a check is asked


def test_a_check_without_an_answer_in_time_cannot_tell() -> None:
    async def hangs(principal: Principal, call: OperationCall) -> bool:
        await asyncio.Event().wait()
        return True

    refusal = decided(requires(hangs, timeout=0.01)).refusal

    assert isinstance(refusal, DecisionUnavailableError)
    assert refusal.rule is not None
    assert refusal.rule.endswith("no answer in 0.01 s")


def test_an_ordinary_function_that_hangs_is_left_behind() -> None:
    let_go = threading.Event()

    def hangs(principal: Principal, call: OperationCall) -> bool:
        return let_go.wait(60)

    caller = Caller(person(), frozenset(), NOW)

    async def asked() -> Decision:
        try:
            return await decide(requires(hangs, timeout=0.01).policy, caller, CALL)
        finally:
            let_go.set()

    assert isinstance(asyncio.run(asked()).refusal, DecisionUnavailableError)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_time_limit_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout="):
        requires(Says(True), timeout=timeout)


def test_a_check_in_several_alternatives_is_asked_once() -> None:
    check = Says(False)
    guard = any_of(all_of("a", requires(check)), all_of("b", requires(check)))

    decided(guard, "a", "b")

    assert check.asked == 1


def test_a_check_by_name_is_asked_before_arguments_are_known() -> None:
    check = Says(True)
    check.reads_arguments = False  # type: ignore[attr-defined]

    assert decided(requires(check), call=OperationCall("tool", "pay")) is PERMIT
    assert decided(requires(check), call=None) is NEEDS_ARGUMENTS
    assert not requires(check).policy.reads_arguments


# --- lists


class SaysEach(Says):
    """A check that answers for a whole list."""

    async def answer_each(self, principal: Principal, calls: Sequence[OperationCall]) -> Any:
        self.asked += 1
        if isinstance(self.said, Exception):
            raise self.said
        if isinstance(self.said, Mapping):
            return [self.said[call.name] for call in calls]
        return self.said


def listed(said: Any, *names: str, timeout: float = 1.0) -> list[Decision]:
    policy = requires(SaysEach(said), timeout=timeout).policy
    calls = [(policy, OperationCall("tool", name)) for name in names]
    return list(asyncio.run(decide_listed(calls, Caller(person(), frozenset(), NOW))))


def test_a_list_is_decided_with_one_question() -> None:
    check = SaysEach({f"tool{n}": n % 2 == 0 for n in range(200)})
    policy = requires(check).policy
    calls = [(policy, OperationCall("tool", f"tool{n}")) for n in range(200)]

    found = asyncio.run(decide_listed(calls, Caller(person(), frozenset(), NOW)))

    assert check.asked == 1
    assert [each is PERMIT for each in found] == [n % 2 == 0 for n in range(200)]


def test_each_operation_of_a_list_gets_its_own_answer() -> None:
    answers = {"a": True, "b": Answer.deny("no"), "c": Answer.try_again(), "d": None}

    a, b, c, d = listed(answers, *answers)

    assert (a, d) == (PERMIT, NEEDS_ARGUMENTS)
    assert isinstance(b.refusal, AccessDeniedError)
    assert isinstance(c.refusal, DecisionUnavailableError)


@pytest.mark.parametrize(
    "said",
    [[], [True], [True, True, True], "yes", None, 7, {"a": 1, "b": "yes"}, OSError()],
    ids=str,
)
def test_a_list_without_one_answer_each_is_denied(said: Any) -> None:
    assert all(isinstance(each.refusal, AccessDeniedError) for each in listed(said, "a", "b"))


def test_a_list_without_answers_in_time_cannot_be_told() -> None:
    class Hangs(Says):
        async def answer_each(self, principal: Principal, calls: Sequence[OperationCall]) -> Any:
            await asyncio.Event().wait()

    calls = [(requires(Hangs(True), timeout=0.01).policy, OperationCall("tool", "a"))]

    (found,) = asyncio.run(decide_listed(calls, Caller(person(), frozenset(), NOW)))

    assert isinstance(found.refusal, DecisionUnavailableError)


def test_who_needs_no_answer_is_not_asked_about() -> None:
    check = SaysEach({})
    public, closed = Policy(public=True), None

    asyncio.run(
        decide_listed(
            [(public, CALL), (closed, CALL), (requires(check).policy, CALL)], Caller(None)
        )
    )

    assert check.asked == 0


# --- the algebra

PERMITS, DENIES = (True, Answer.permit()), (False, Answer.deny("no"), None, ValueError("no"))
UNTOLD, NEEDS = (Answer.try_again(),), (Answer.needs_scopes("x"), Answer.needs_sign_in(max_age=1))
SAID = [*PERMITS, *DENIES, *UNTOLD, *NEEDS]

Tree = Any  # what a check says, or ("all" | "any", trees)
trees: st.SearchStrategy[Tree] = st.recursive(
    st.sampled_from(SAID),
    lambda inner: st.tuples(
        st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def guard_of(tree: Tree) -> GuardDecorator:
    if isinstance(tree, tuple):
        kind, parts = tree
        return (all_of if kind == "all" else any_of)(*map(guard_of, parts))
    return requires(Says(tree))


def could_be(tree: Tree, *, untold: bool) -> bool:
    """Return whether a tree permits, if what cannot be told were ``untold``."""
    if isinstance(tree, tuple):
        return (all if tree[0] == "all" else any)(could_be(each, untold=untold) for each in tree[1])
    if any(tree is each for each in UNTOLD):
        return untold
    return any(tree is each for each in PERMITS)


@given(trees)
def test_what_is_permitted_is_permitted_whatever_cannot_be_told(tree: Tree) -> None:
    assert (decided(guard_of(tree)) is PERMIT) is could_be(tree, untold=False)


@given(trees)
def test_what_cannot_be_told_is_an_outage_exactly_if_it_could_permit(tree: Tree) -> None:
    refusal = decided(guard_of(tree)).refusal

    is_open = could_be(tree, untold=True) and not could_be(tree, untold=False)
    if is_open:
        assert isinstance(refusal, DecisionUnavailableError)
    elif refusal is not None and not _waits_for_a_client(tree):
        assert isinstance(refusal, AccessDeniedError)


def _waits_for_a_client(tree: Tree) -> bool:
    if isinstance(tree, tuple):
        return any(map(_waits_for_a_client, tree[1]))
    return any(tree is each for each in (*NEEDS, *UNTOLD))


@given(trees, st.sampled_from([each for each in SAID if each not in PERMITS]))
def test_no_combination_permits_what_one_needed_part_does_not(tree: Tree, said: Any) -> None:
    assert decided(all_of(guard_of(tree), requires(Says(said)))) is not PERMIT


@given(trees, st.sampled_from(DENIES))
def test_a_needed_denial_is_never_an_outage_or_a_challenge(tree: Tree, said: Any) -> None:
    refusal = decided(all_of(guard_of(tree), requires(Says(said)))).refusal

    assert isinstance(refusal, AccessDeniedError)


@given(trees, st.sampled_from(PERMITS))
def test_one_sufficient_permit_permits(tree: Tree, said: Any) -> None:
    assert decided(any_of(guard_of(tree), requires(Says(said)))) is PERMIT


@given(trees)
def test_the_order_of_the_parts_changes_no_verdict(tree: Tree) -> None:
    def turned(each: Tree) -> Tree:
        return (
            (each[0], [turned(e) for e in reversed(each[1])]) if isinstance(each, tuple) else each
        )

    refusals = [type(decided(guard_of(each)).refusal) for each in (tree, turned(tree))]

    client_can_act = {InsufficientScopeError, InsufficientAuthenticationError}
    assert refusals[0] is refusals[1] or set(refusals) <= client_can_act


def test_a_role_that_is_missing_is_a_denial_also_in_an_outage() -> None:
    guard = all_of(requires(Says(Answer.try_again())), requires_roles("boss"))

    assert isinstance(decided(guard).refusal, AccessDeniedError)
