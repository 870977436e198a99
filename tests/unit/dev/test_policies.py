"""Which scopes a user gets, and what a rule has to look like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.policies import (
    PolicyCondition,
    PolicyError,
    ScopeDecision,
    ScopeRule,
    UserFacts,
    decide,
    parse_condition,
)

READ = "mcp:calendar.readonly"
WRITE = "mcp:calendar.write"
FETCH = "outbound.token.fetch"
SCHEDULERS = "Scheduler Write Access"
OTHERS = "Read-Only Access for All Others"
RULES = builtin_world().rules

ALICE = UserFacts(("tenant-a",), ("scheduler",))
BOB = UserFacts(("tenant-a",))
CAROL = UserFacts(("tenant-b",))

words = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)
facts = st.builds(
    UserFacts, st.lists(words, max_size=3).map(tuple), st.lists(words, max_size=3).map(tuple)
)
conditions = st.one_of(
    st.just(PolicyCondition("any")),
    st.builds(PolicyCondition, st.sampled_from(["tenantIds", "permissions"]), words),
)
rules = st.builds(
    ScopeRule,
    words,
    st.lists(conditions, min_size=1, max_size=3).map(tuple),
    st.lists(words, min_size=1, max_size=3).map(tuple),
    st.lists(words, max_size=2).map(tuple),
)


def test_a_scheduler_of_tenant_a_may_write() -> None:
    assert decide(RULES, ALICE, [READ, WRITE]) == ScopeDecision(
        SCHEDULERS, (READ, WRITE, FETCH), ()
    )


@pytest.mark.parametrize("user", [BOB, CAROL])
def test_everybody_else_may_read_only(user: UserFacts) -> None:
    assert decide(RULES, user, [READ, WRITE]) == ScopeDecision(OTHERS, (READ, FETCH), (WRITE,))


def test_a_scheduler_of_another_tenant_may_read_only() -> None:
    user = UserFacts(("tenant-b",), ("scheduler",))
    assert decide(RULES, user, [WRITE]) == ScopeDecision(OTHERS, (), (WRITE,))


def test_only_what_is_asked_for_is_granted() -> None:
    assert decide(RULES, ALICE, [READ]).granted == (READ, FETCH)


def test_nothing_comes_along_with_nothing() -> None:
    assert decide(RULES, BOB, [WRITE]).granted == ()


def test_what_comes_along_can_be_asked_for_alone() -> None:
    assert decide(RULES, BOB, [FETCH]).granted == (FETCH,)


def test_scopes_nobody_knows_are_refused() -> None:
    assert decide(RULES, ALICE, ["openid", READ]).refused == ("openid",)


def test_without_a_rule_that_applies_nothing_is_granted() -> None:
    rules = [ScopeRule.parse("Nobody", ["user.permissions contains root"], [READ])]
    assert decide(rules, ALICE, [READ]) == ScopeDecision(None, (), (READ,))


def test_all_conditions_of_a_rule_have_to_hold() -> None:
    rule = ScopeRule.parse(
        "Both",
        ["user.tenantIds contains tenant-a", "user.permissions contains scheduler"],
        [READ],
    )
    assert rule.applies(ALICE)
    assert not rule.applies(BOB)
    assert not rule.applies(UserFacts(("tenant-b",), ("scheduler",)))


def test_values_are_compared_whole() -> None:
    condition = parse_condition("user.tenantIds contains tenant")
    assert condition is not None
    assert not condition.holds(ALICE)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("any", PolicyCondition("any")),
        ("user.tenantIds contains tenant-a", PolicyCondition("tenantIds", "tenant-a")),
        ("user.permissions  contains  a:b/c", PolicyCondition("permissions", "a:b/c")),
        ('user.permissions contains "two words"', PolicyCondition("permissions", "two words")),
    ],
)
def test_conditions_are_read(text: str, expected: PolicyCondition) -> None:
    assert parse_condition(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Any",
        "any ",
        "user.tenantIds",
        "user.tenantIds contains",
        "user.tenantIds contains a b",
        "user.tenantIds contains a or any",
        "user.tenantids contains a",
        "user.email contains a",
        "not user.tenantIds contains a",
        "user.permissions is scheduler",
        'user.permissions contains ""',
        "user.permissions contains scheduler\n",
        "user.permissions contains schedul\u0435r",
    ],
)
def test_whatever_is_not_a_condition_is_refused_with_the_rule_and_its_number(text: str) -> None:
    with pytest.raises(PolicyError, match=r'rule "Mine", condition 2: .*write'):
        ScopeRule.parse("Mine", ["any", text], [READ])


@pytest.mark.parametrize(
    ("name", "when", "grant", "message"),
    [
        ("", ["any"], [READ], "a name"),
        ("Mine", [], [READ], r'write when = \["any"\]'),
        ("Mine", ["any"], [], "grants nothing"),
        ("Mine", ["any"], ["two words"], "is not a scope"),
        ("Mine", ["any"], [""], "is not a scope"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(
    name: str, when: list[str], grant: list[str], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        ScopeRule.parse(name, when, grant)


@given(st.text(max_size=60))
def test_any_text_is_a_condition_or_none(text: str) -> None:
    condition = parse_condition(text)
    assert condition is None or parse_condition(str(condition)) == condition


@given(st.lists(rules, max_size=4), facts, st.lists(words, max_size=5))
def test_nothing_is_granted_that_the_deciding_rule_does_not_name(
    policy: list[ScopeRule], user: UserFacts, asked: list[str]
) -> None:
    decision = decide(policy, user, asked)
    named = {scope for rule in policy if rule.applies(user) for scope in (*rule.grant, *rule.along)}
    assert set(decision.granted) <= named
    assert set(decision.granted) | set(decision.refused) >= set(asked)
    assert not set(decision.granted) & set(decision.refused)


@given(st.lists(rules, max_size=4), facts, st.lists(words, max_size=5))
def test_the_first_rule_that_applies_decides_alone(
    policy: list[ScopeRule], user: UserFacts, asked: list[str]
) -> None:
    applying = [rule for rule in policy if rule.applies(user)]
    assert decide(policy, user, asked) == decide(applying[:1], user, asked)


@given(rules, facts, conditions)
def test_another_condition_never_widens_a_rule(
    rule: ScopeRule, user: UserFacts, condition: PolicyCondition
) -> None:
    narrower = ScopeRule(rule.name, (*rule.conditions, condition), rule.grant, rule.along)
    assert rule.applies(user) or not narrower.applies(user)


@given(st.lists(rules, max_size=4), facts, st.lists(words, max_size=5), words)
def test_asking_for_more_never_takes_anything_away(
    policy: list[ScopeRule], user: UserFacts, asked: list[str], more: str
) -> None:
    assert set(decide(policy, user, asked).granted) <= set(
        decide(policy, user, [*asked, more]).granted
    )
