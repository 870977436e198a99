"""Rules that grant scopes to users.

The rules are data, and the decision is a pure function of them. The first rule with all conditions
met decides; without such a rule, nothing is granted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "PolicyCondition",
    "PolicyError",
    "ScopeDecision",
    "ScopeRule",
    "UserFacts",
    "decide",
    "parse_condition",
]

Attribute = Literal["tenantIds", "permissions"]

_ATTRIBUTES: tuple[Attribute, ...] = ("tenantIds", "permissions")
_CONDITION = re.compile(
    r"user\.(?P<attribute>[A-Za-z]+) +contains +"
    r"(?:(?P<word>[A-Za-z0-9._:@/-]+)|\"(?P<quoted>[^\"\\]+)\")"
)
_EXAMPLES = "'any', 'user.tenantIds contains tenant-a' or 'user.permissions contains scheduler'"
# RFC 6749 §3.3
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class PolicyError(ValueError):
    """A rule that cannot be read; the text says which, and what to write instead."""


@dataclass(frozen=True)
class UserFacts:
    """What rules may ask about a user.

    Attributes:
        tenant_ids: the tenants the user belongs to.
        permissions: what the groups of the user's provider map to.
    """

    tenant_ids: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


@dataclass(frozen=True)
class PolicyCondition:
    """One condition: that an attribute of the user contains a value; ``any`` holds always."""

    attribute: Attribute | Literal["any"]
    value: str = ""

    def holds(self, user: UserFacts) -> bool:
        """Return whether it holds for ``user``; values are compared exactly."""
        if self.attribute == "any":
            return True
        held = user.tenant_ids if self.attribute == "tenantIds" else user.permissions
        return self.value in held

    def __str__(self) -> str:
        if self.attribute == "any":
            return "any"
        return f'user.{self.attribute} contains "{self.value}"'


@dataclass(frozen=True)
class ScopeRule:
    """One rule of the policy.

    Attributes:
        name: what people call it.
        conditions: what must hold, all of it.
        grant: the scopes a user may have by it, if the client asks for them.
        along: the scopes that come with any of ``grant``, asked for or not.

    Raises:
        PolicyError: if there is no name, no condition or no scope, or one of them is invalid.
    """

    name: str
    conditions: tuple[PolicyCondition, ...]
    grant: tuple[str, ...]
    along: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise PolicyError('a rule has a name: write name = "Read-Only Access"')
        if not self.conditions:
            # An empty conjunction is true: a rule without conditions would apply to all users.
            raise PolicyError(f'rule "{self.name}" has no conditions: write when = ["any"]')
        if not self.grant:
            raise PolicyError(f'rule "{self.name}" grants nothing: write grant = ["a.scope"]')
        for scope in (*self.grant, *self.along):
            if not _SCOPE.fullmatch(scope):
                raise PolicyError(f'rule "{self.name}": {scope!r} is not a scope (RFC 6749 §3.3)')

    @classmethod
    def parse(
        cls,
        name: str,
        when: Sequence[str],
        grant: Sequence[str],
        along: Sequence[str] = (),
    ) -> ScopeRule:
        """Return the rule that these texts write.

        Raises:
            PolicyError: naming the rule, and the condition that cannot be read.
        """
        conditions = []
        for number, text in enumerate(when, 1):
            condition = parse_condition(text)
            if condition is None:
                raise PolicyError(
                    f'rule "{name}", condition {number}: {text!r} is not a condition; '
                    f"write {_EXAMPLES}"
                )
            conditions.append(condition)
        return cls(name, tuple(conditions), tuple(grant), tuple(along))

    def applies(self, user: UserFacts) -> bool:
        """Return whether every condition holds for ``user``."""
        return all(condition.holds(user) for condition in self.conditions)


@dataclass(frozen=True)
class ScopeDecision:
    """What the policy says to a request.

    Attributes:
        rule: the name of the rule that decided; None if none applies to the user.
        granted: the scopes the user may give to the client, in the order asked for, then what
            comes along.
        refused: the scopes asked for that the user may not give.
    """

    rule: str | None
    granted: tuple[str, ...]
    refused: tuple[str, ...]


def parse_condition(text: str) -> PolicyCondition | None:
    """Return the condition that ``text`` writes; None if it writes none.

    >>> parse_condition("user.permissions contains scheduler")
    PolicyCondition(attribute='permissions', value='scheduler')
    """
    if text == "any":
        return PolicyCondition("any")
    match = _CONDITION.fullmatch(text)
    if match is None:
        return None
    for attribute in _ATTRIBUTES:
        if match["attribute"] == attribute:
            return PolicyCondition(attribute, match["word"] or match["quoted"])
    return None


def decide(rules: Sequence[ScopeRule], user: UserFacts, asked: Sequence[str]) -> ScopeDecision:
    """Return which of the scopes ``asked`` for this user gets.

    >>> rules = [ScopeRule.parse("Readers", ["any"], ["read"], ["fetch"])]
    >>> decide(rules, UserFacts(), ["read", "write"])
    ScopeDecision(rule='Readers', granted=('read', 'fetch'), refused=('write',))
    """
    asked = tuple(dict.fromkeys(asked))
    rule = next((rule for rule in rules if rule.applies(user)), None)
    if rule is None:
        return ScopeDecision(None, (), asked)
    granted = [scope for scope in asked if scope in rule.grant or scope in rule.along]
    if any(scope in rule.grant for scope in granted):
        granted.extend(scope for scope in rule.along if scope not in granted)
    refused = tuple(scope for scope in asked if scope not in granted)
    return ScopeDecision(rule.name, tuple(granted), refused)
