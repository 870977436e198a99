"""Which laws does a decision obey that is made before the arguments are known?

It may leave the answer open. It may not give another one than the full decision gives, whatever
the arguments turn out to be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.situations import (
    ANY_ARGUMENTS,
    ARGUMENTS,
    RULES,
    RULES_OF_CALLS,
    SITUATIONS,
    Situation,
    rule_of,
    told,
)
from toolguard import ToolGuardError, any_of
from toolguard.decorators.requires import RuleLike
from toolguard.testing.strategies import rules

SOME_RULES = RULES_OF_CALLS | RULES
SOME_ARGUMENTS = ARGUMENTS | ANY_ARGUMENTS


@given(SOME_RULES, SITUATIONS, SOME_ARGUMENTS)
def test_the_early_decision_refuses_nobody_whom_the_full_one_lets_in(
    rule: RuleLike, situation: Situation, arguments: dict[str, Any]
) -> None:
    early = situation.decision(rule_of(rule), early=True)
    full = replace(situation, arguments=arguments).decision(rule_of(rule))

    if full is True:
        assert isinstance(early, bool)


@given(SOME_RULES, SITUATIONS, SOME_ARGUMENTS)
def test_the_early_decision_lets_in_nobody_whom_the_full_one_refuses(
    rule: RuleLike, situation: Situation, arguments: dict[str, Any]
) -> None:
    early = situation.decision(rule_of(rule), early=True)
    full = replace(situation, arguments=arguments).decision(rule_of(rule))

    if early is True:
        assert full is True


@given(SOME_RULES, SITUATIONS, SOME_ARGUMENTS)
def test_an_early_refusal_says_what_the_full_one_says(
    rule: RuleLike, situation: Situation, arguments: dict[str, Any]
) -> None:
    early = situation.decision(rule_of(rule), early=True)
    full = replace(situation, arguments=arguments).decision(rule_of(rule))

    if isinstance(early, ToolGuardError):
        assert isinstance(full, ToolGuardError)
        assert told(early) == told(full)


@given(rules(), SITUATIONS)
def test_what_reads_no_call_is_decided_early(rule: RuleLike, situation: Situation) -> None:
    early = situation.decision(rule_of(rule), early=True)

    assert early is not False
    assert told(early) == told(situation.decision(rule_of(rule)))


@given(st.lists(SOME_RULES, min_size=1, max_size=3), SITUATIONS)
def test_an_any_of_is_allowed_early_exactly_if_one_member_is(
    members: list[RuleLike], situation: Situation
) -> None:
    early = [situation.decision(rule_of(each), early=True) is True for each in members]

    assert (situation.decision(rule_of(any_of(*members)), early=True) is True) is any(early)


@given(SOME_RULES, SITUATIONS, SOME_ARGUMENTS)
def test_the_full_decision_is_always_made(
    rule: RuleLike, situation: Situation, arguments: dict[str, Any]
) -> None:
    assert replace(situation, arguments=arguments).decision(rule_of(rule)) is not False
