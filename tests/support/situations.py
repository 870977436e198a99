"""Who calls what in the laws of rules, and what are they told?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

from support.callers import Caller, Desk
from toolguard import (
    InvalidInputError,
    OperationCall,
    Principal,
    ScopeHierarchy,
    ToolGuardError,
    all_of,
    requires,
    requires_scopes,
    requires_tenant,
)
from toolguard.decorators.requires import RuleLike
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.policies.argument_scopes import ArgumentScope
from toolguard.policies.decision import PERMIT, decide
from toolguard.policies.decision import Caller as Holder
from toolguard.policies.formulas import Alternative, Formula, requirements_in
from toolguard.policies.policy import Policy
from toolguard.testing.strategies import (
    NOW,
    SCOPES,
    TENANTS,
    hierarchies,
    principals,
    rules,
    scope_rules,
    single_rules,
    tool_arguments,
)

__all__ = [
    "ANY_ARGUMENTS",
    "ARGUMENTS",
    "READS_CALL",
    "RULES",
    "RULES_OF_CALLS",
    "SITUATIONS",
    "Situation",
    "asked",
    "is_paid",
    "rule_of",
    "same",
    "told",
]


async def is_paid(principal: Principal, call: OperationCall) -> Any:
    return said(call.arguments["paid"])


async def is_signed(principal: Principal, call: OperationCall) -> Any:
    return said(call.arguments["signed"])


def said(answer: object) -> object:
    if isinstance(answer, str):
        raise TypeError("what was paid or signed is no text")
    return answer


def scopes_of(call: OperationCall) -> Any:
    return call.arguments.get("scopes", "read")


READS_CALL = st.sampled_from(
    (requires(is_paid), requires(is_signed), requires_tenant(tenant_from="tenant"))
)
CALL_SCOPES = st.sampled_from((requires_scopes("{action}"), requires_scopes(scopes_of)))
RULES_OF_CALLS = rules(st.sampled_from(SCOPES) | READS_CALL | CALL_SCOPES)
RULES = scope_rules() | RULES_OF_CALLS | rules(single_rules() | READS_CALL | CALL_SCOPES)

ARGUMENTS = st.fixed_dictionaries(
    {
        "paid": st.booleans(),
        "signed": st.booleans(),
        "tenant": st.sampled_from((*TENANTS, "nowhere")),
        "action": st.sampled_from((*SCOPES, "no scope")),
        "scopes": st.lists(st.sampled_from(SCOPES), unique=True) | scope_rules(),
    }
)
ANY_ARGUMENTS = tool_arguments("paid", "signed", "tenant", "action", "scopes")


def rule_of(rule: RuleLike) -> Formula:
    asked = rule.policy.formula if isinstance(rule, GuardDecorator) else all_of(rule)
    assert asked is not None
    return asked


@dataclass(frozen=True)
class Situation:
    """One caller who makes one call."""

    caller: Principal
    arguments: Mapping[str, Any] = field(default_factory=dict)
    hierarchy: ScopeHierarchy = field(default_factory=ScopeHierarchy)

    def refusal(self, *stack: RuleLike) -> ToolGuardError | None:
        """Return why a function with these guards, top to bottom, refuses; None if not."""

        async def tool(
            paid: Any = False,
            signed: Any = False,
            tenant: Any = None,
            action: Any = None,
            scopes: Any = None,
        ) -> str:
            return "done"

        guarded: Callable[..., Any] = tool
        for rule in reversed(stack):
            guard = rule if isinstance(rule, GuardDecorator) else requires_scopes(rule)
            guarded = guard(guarded)
        desk = Desk(clock=lambda: NOW)
        desk.scope_hierarchy = self.hierarchy
        try:
            Caller(self.caller, desk).calls(guarded, **self.arguments)
        except ToolGuardError as refusal:
            return refusal
        return None

    def lets_in(self, rule: RuleLike) -> bool:
        return self.refusal(rule) is None

    def decision(self, rule: Formula, *, early: bool = False) -> bool | ToolGuardError:
        """Return what is decided with the arguments, or before they are known."""
        invocation = None if early else OperationCall("tool", "tool", self.arguments)
        holder = Holder(self.caller, self.hierarchy.expand(self.caller.scopes), NOW)
        decision = asyncio.run(decide(Policy(rule), holder, invocation))
        return decision.refusal or decision is PERMIT

    def leaves_open(self, alternative: Alternative) -> bool:
        """Return whether what is left of it are scopes and a sign-in."""
        opaque = [each for each in requirements_in(alternative) if each.opaque]
        return all(self.decision(Formula(each)) is True for each in opaque)

    def scopes_in(self, alternative: Alternative) -> set[str]:
        """Return the scopes that it may name for this call; none if that is invalid."""
        call = OperationCall("tool", "tool", self.arguments)
        resolve_argument_scopes = [each for each in alternative if isinstance(each, ArgumentScope)]
        named: set[str] = {each for each in alternative if isinstance(each, str)}
        try:
            return named.union(*(each.scope(call).tokens for each in resolve_argument_scopes))
        except InvalidInputError:
            return set()

    def holding(self, fact: str, more: Iterable[str]) -> Situation:
        """Return the same call by a caller who holds more."""
        held: dict[str, Any] = {fact: (*getattr(self.caller, fact), *more)}
        return replace(self, caller=replace(self.caller, **held))


SITUATIONS = st.builds(Situation, principals(), ARGUMENTS, hierarchies())


def told(refusal: object) -> object:
    """Return all that a client learns of a refusal; nothing if it is none."""
    if not isinstance(refusal, ToolGuardError):
        return None
    challenge = Desk().challenge(refusal)
    return type(refusal), str(refusal), refusal.to_json(), challenge and challenge.header


def asked(refusal: ToolGuardError | None) -> object:
    """Return what a client is to ask for, in no order."""
    challenge = refusal and Desk().challenge(refusal)
    return challenge and (challenge.error, {*challenge.scope}, challenge.max_age)


def same(one: RuleLike, other: RuleLike, situation: Situation) -> bool:
    """Return whether two rules are equal, and decided alike."""
    are_equal = rule_of(one) == rule_of(other)
    return are_equal and situation.lets_in(one) == situation.lets_in(other)
