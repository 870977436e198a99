"""Which laws do rules obey, and the decision on them, whatever they ask for?"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any, TypeAlias

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from support.callers import person
from support.situations import (
    ARGUMENTS,
    READS_CALL,
    RULES,
    SITUATIONS,
    Situation,
    asked,
    is_paid,
    rule_of,
    same,
    told,
)
from toolguard import (
    AccessDeniedError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    all_of,
    any_of,
    requires,
    requires_auth,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_tenant,
)
from toolguard.decorators.requires import RuleLike
from toolguard.policies.formulas import Formula
from toolguard.policies.scopes import Scope
from toolguard.testing.strategies import (
    NOW,
    PERMISSIONS,
    ROLES,
    SCOPES,
    TENANTS,
    every_grant,
    principals,
    rules,
    scope_rules,
    single_rules,
    tool_arguments,
)

MEMBERS = st.lists(RULES, min_size=1, max_size=3)
OPAQUE = rules(READS_CALL | st.builds(requires_roles, st.sampled_from(ROLES)))
RECENT = st.builds(requires_recent_auth, max_age=st.sampled_from((300, 60))) | st.builds(
    requires_recent_auth, acr_values=st.sampled_from((["mfa", "hwk"], ["pwd", "mfa"]))
)

Combine: TypeAlias = Callable[..., RuleLike]
COMBINED = pytest.mark.parametrize("combine", [all_of, any_of])


# --- what all_of and any_of mean


@given(MEMBERS, SITUATIONS)
def test_an_any_of_is_allowed_exactly_if_one_member_is(
    members: list[RuleLike], situation: Situation
) -> None:
    assert situation.lets_in(any_of(*members)) is any(map(situation.lets_in, members))


@given(MEMBERS, SITUATIONS)
def test_an_all_of_is_allowed_exactly_if_every_member_is(
    members: list[RuleLike], situation: Situation
) -> None:
    assert situation.lets_in(all_of(*members)) is all(map(situation.lets_in, members))


@given(RULES, SITUATIONS)
def test_a_valid_token_is_part_of_every_rule(rule: RuleLike, situation: Situation) -> None:
    assert same(all_of(rule, requires_auth), rule, situation)
    assert situation.lets_in(any_of(rule, requires_auth))


@COMBINED
@given(
    MEMBERS.flatmap(lambda members: st.tuples(st.just(members), st.permutations(members))),
    SITUATIONS,
)
def test_the_order_of_members_does_not_matter(
    combine: Combine, orders: tuple[list[RuleLike], list[RuleLike]], situation: Situation
) -> None:
    one, other = orders

    assert same(combine(*one), combine(*other), situation)


@COMBINED
@given(RULES, RULES, RULES, SITUATIONS)
def test_the_nesting_of_members_does_not_matter(
    combine: Combine, a: RuleLike, b: RuleLike, c: RuleLike, situation: Situation
) -> None:
    assert same(combine(a, combine(b, c)), combine(a, b, c), situation)
    assert same(combine(combine(a, b), c), combine(a, b, c), situation)


@COMBINED
@given(RULES, SITUATIONS)
def test_the_repetition_of_members_does_not_matter(
    combine: Combine, a: RuleLike, situation: Situation
) -> None:
    assert same(combine(a, a), a, situation)
    assert same(combine(a), a, situation)


@given(RULES, RULES, SITUATIONS)
def test_all_of_and_any_of_absorb_each_other(
    a: RuleLike, b: RuleLike, situation: Situation
) -> None:
    assert same(all_of(a, any_of(a, b)), a, situation)
    assert same(any_of(a, all_of(a, b)), a, situation)


@given(RULES, RULES, RULES, SITUATIONS)
def test_all_of_and_any_of_distribute_over_each_other(
    a: RuleLike, b: RuleLike, c: RuleLike, situation: Situation
) -> None:
    assert same(all_of(a, any_of(b, c)), any_of(all_of(a, b), all_of(a, c)), situation)
    assert same(any_of(a, all_of(b, c)), all_of(any_of(a, b), any_of(a, c)), situation)


@given(scope_rules(), SITUATIONS)
def test_scopes_are_decided_alike_by_themselves_and_as_part_of_a_rule(
    scope: Scope, situation: Situation
) -> None:
    decision = situation.decision(Formula.of(scope.alternatives))

    assert situation.lets_in(scope) is (decision is True)
    assert told(situation.refusal(scope)) == told(decision)


# --- equality and the normal form

# None of these says anything about another.
INDEPENDENT = rules(
    st.sampled_from(
        ("read", requires_roles("editor"), requires_permissions("export"), requires(is_paid))
    )
)
EVERY_SITUATION = [
    Situation(
        person("alice", *scopes, roles=roles, permissions=may, expires_at=NOW + 60),
        {"paid": paid},
    )
    for scopes in [(), ("read",)]
    for roles in [(), ("editor",)]
    for may in [(), ("export",)]
    for paid in [False, True]
]


@given(INDEPENDENT, INDEPENDENT)
def test_equality_means_the_same_decision_for_every_caller_and_call(
    one: RuleLike, other: RuleLike
) -> None:
    a, b = rule_of(one), rule_of(other)
    alike = all((s.decision(a) is True) == (s.decision(b) is True) for s in EVERY_SITUATION)

    assert (a == b) is alike


@given(RULES, RULES, RULES)
def test_equal_rules_have_equal_hashes(a: RuleLike, b: RuleLike, c: RuleLike) -> None:
    one, other = all_of(any_of(a, b), c), any_of(all_of(c, b), all_of(c, a))

    assert hash(rule_of(one)) == hash(rule_of(other))


@given(RULES)
def test_no_alternative_contains_another(rule: RuleLike) -> None:
    groups = [set(group) for group in rule_of(rule).alternatives]

    assert groups
    assert not any(one <= other for one, other in permutations(groups, 2))


@given(RULES)
def test_no_alternative_is_empty_or_names_a_condition_twice(rule: RuleLike) -> None:
    for group in rule_of(rule).alternatives:
        assert len(group) == len(set(group)) > 0


@given(RULES)
def test_pickling_and_copying_change_nothing(rule: RuleLike) -> None:
    whole = rule_of(rule)
    pickled = [pickle.loads(pickle.dumps(whole, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)]

    for again in (*pickled, copy.copy(whole), copy.deepcopy(whole)):
        assert type(again) is type(whole)
        assert (again, again.alternatives) == (whole, whole.alternatives)


# --- what a caller holds


@pytest.mark.parametrize(
    ("fact", "names", "single"),
    [
        ("scopes", SCOPES, st.sampled_from(SCOPES) | READS_CALL),
        ("roles", ROLES, st.builds(requires_roles, st.sampled_from(ROLES))),
        ("permissions", PERMISSIONS, st.builds(requires_permissions, st.sampled_from(PERMISSIONS))),
        ("tenant_ids", TENANTS, st.builds(requires_tenant, st.sampled_from(TENANTS))),
    ],
)
@given(data=st.data(), situation=SITUATIONS)
def test_holding_more_never_turns_a_yes_into_a_no(
    fact: str,
    names: tuple[str, ...],
    single: SearchStrategy[RuleLike],
    data: st.DataObject,
    situation: Situation,
) -> None:
    rule = data.draw(rules(single) | RULES)

    if situation.lets_in(rule):
        assert all(situation.holding(fact, [name]).lets_in(rule) for name in names)
        assert situation.holding(fact, names).lets_in(rule)


@given(RULES, SITUATIONS)
def test_granting_exactly_the_missing_scopes_turns_a_refusal_for_scopes_into_a_yes(
    rule: RuleLike, situation: Situation
) -> None:
    refusal = situation.refusal(rule)

    if isinstance(refusal, InsufficientScopeError):
        assert situation.holding("scopes", refusal.missing_scopes).lets_in(rule)


@settings(max_examples=3 * settings().max_examples)
@given(scope_rules() | RULES, st.builds(Situation, principals(), ARGUMENTS))
def test_no_fewer_scopes_than_the_missing_ones_do(rule: RuleLike, situation: Situation) -> None:
    refusal = situation.refusal(rule)

    if isinstance(refusal, InsufficientScopeError):
        for grant in every_grant():
            if len(grant) < len(refusal.missing_scopes):
                assert situation.holding("scopes", grant).decision(rule_of(rule)) is not True


@settings(max_examples=3 * settings().max_examples)
@given(rules(RECENT | st.sampled_from(SCOPES)), SITUATIONS)
@example(
    all_of(requires_recent_auth(max_age=60), requires_recent_auth(acr_values=["mfa"])),
    Situation(person(expires_at=NOW + 60, claims={"acr": "mfa"})),
)
def test_who_signs_in_as_asked_with_the_scopes_asked_for_is_let_in(
    rule: RuleLike, situation: Situation
) -> None:
    refusal = situation.refusal(rule)

    if isinstance(refusal, InsufficientAuthenticationError):
        for acr in refusal.acr_values or (None,):
            signed_in = {"auth_time": NOW - (refusal.max_age or 0), "acr": acr}
            caller = replace(situation.caller, claims=signed_in, scopes=refusal.scopes)
            assert replace(situation, caller=caller).lets_in(rule)


# --- what a caller is told


@given(MEMBERS, SITUATIONS)
def test_stacked_guards_permit_as_one_in_any_order(
    stack: list[RuleLike], situation: Situation
) -> None:
    whole = all_of(*stack)

    for order in permutations(stack):
        assert situation.lets_in(whole) is (situation.refusal(*order) is None)


@given(RULES, RULES, SITUATIONS)
def test_two_stacked_guards_are_challenged_as_one_guard_with_both_rules_is(
    upper: RuleLike, lower: RuleLike, situation: Situation
) -> None:
    assert told(situation.refusal(upper, lower)) == told(situation.refusal(all_of(upper, lower)))


# Without alternatives: which of two that are equally near comes first depends on the order.
@given(st.lists(single_rules() | READS_CALL, min_size=1, max_size=4), SITUATIONS)
def test_stacked_guards_challenge_as_one_in_any_order(
    stack: list[RuleLike], situation: Situation
) -> None:
    one, other = situation.refusal(*stack), situation.refusal(*reversed(stack))

    assert told(one) == told(situation.refusal(all_of(*stack)))
    assert asked(one) == asked(other)


@given(st.lists(st.tuples(OPAQUE, RULES, RULES), min_size=1, max_size=3), SITUATIONS)
def test_a_refusal_by_opaque_rules_says_the_same_whatever_the_scopes_beside_them(
    alternatives: list[tuple[RuleLike, RuleLike, RuleLike]], situation: Situation
) -> None:
    unmet = [each for each in alternatives if not situation.lets_in(each[0])]
    assume(unmet)

    one = situation.refusal(any_of(*(all_of(opaque, a) for opaque, a, _ in unmet)))
    other = situation.refusal(any_of(*(all_of(opaque, b) for opaque, _, b in unmet)))

    assert told(one) == told(other) == told(AccessDeniedError())


@given(OPAQUE, RULES, RULES, SITUATIONS)
def test_alternatives_with_a_failed_check_do_not_change_the_refusal(
    opaque: RuleLike, beside: RuleLike, rule: RuleLike, situation: Situation
) -> None:
    assume(not situation.lets_in(opaque))
    shut = all_of(opaque, beside)

    for members in [(shut, rule), (rule, shut)]:
        assert told(situation.refusal(any_of(*members))) == told(situation.refusal(rule))


@given(RULES, SITUATIONS)
def test_challenges_name_only_scopes_of_alternatives_whose_checks_hold(
    rule: RuleLike, situation: Situation
) -> None:
    refusal = situation.refusal(rule)
    if isinstance(refusal, InsufficientScopeError):
        named = set(refusal.required_scopes)
    elif isinstance(refusal, InsufficientAuthenticationError):
        named = set(refusal.scopes) - {*situation.caller.scopes}
    else:
        named = set()

    open_ = [a for a in rule_of(rule).alternatives if situation.leaves_open(a)]
    assert not named or any(named <= situation.scopes_in(each) for each in open_)


@given(st.booleans(), OPAQUE, SITUATIONS, tool_arguments("paid"))
def test_what_a_check_says_counts_only_if_it_is_true(
    signed: bool, rule: RuleLike, situation: Situation, said: dict[str, Any]
) -> None:
    assume(said.get("paid") is not True)
    weird = {**situation.arguments, "signed": signed, "paid": None, **said}
    plain = {**weird, "paid": False}

    one, other = (replace(situation, arguments=each) for each in (weird, plain))
    assert told(one.refusal(rule)) == told(other.refusal(rule))
