"""What an operation asks of its caller."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from toolguard.policies.argument_scopes import CallScope
from toolguard.policies.formulas import Alternative, Rule
from toolguard.policies.requirements import Requirement

__all__ = ["DEFAULT_POLICIES", "ConnectionNeed", "DefaultRule", "Policy"]


_PUBLIC_AND_GUARDED = "@public cannot be combined with another guard: remove one of them"


@dataclass(frozen=True)
class ConnectionNeed:
    """A third-party connection that an operation uses.

    Attributes:
        name: the connection's name at the provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token has to carry; empty means "whatever there is".
        parameter: the keyword argument that receives it.
        tenant: whether it is the connection of the caller's tenant, instead of the caller's own.
        optional: whether the operation runs without it, too, where the user has not connected.
        fresh: whether a token that was kept will not do.
    """

    name: str
    scopes: tuple[str, ...]
    parameter: str
    tenant: bool = False
    optional: bool = False
    fresh: bool = False


def _is_opaque(alternative: Alternative) -> bool:
    return any(isinstance(each, Requirement) for each in alternative)


@dataclass(frozen=True)
class Policy:
    """The rules of one operation. Immutable; stacked decorators merge theirs with ``&``.

    Attributes:
        rule: what the caller has to meet; None asks for a valid token only.
        connections: what is fetched for the caller once the policy has allowed the call.
        public: whether a caller without a token is welcome.
    """

    rule: Rule | None = None
    connections: tuple[ConnectionNeed, ...] = ()
    public: bool = False

    def __post_init__(self) -> None:
        if self.public and (self.rule is not None or self.connections):
            raise ValueError(_PUBLIC_AND_GUARDED)
        parameters = [need.parameter for need in self.connections]
        for name in parameters:
            if parameters.count(name) > 1:
                raise ValueError(
                    f"two connections cannot both arrive as {name}: give each a parameter of its "
                    "own with with_connection(..., as_=...)"
                )

    def __and__(self, other: Policy) -> Policy:
        """Return the policy that asks for everything both ask for.

        Raises:
            ValueError: if one of the two is public and the other asks for something.
        """
        if self.public or other.public:
            if self != other:
                raise ValueError(_PUBLIC_AND_GUARDED)
            return self
        rules = [rule for rule in (self.rule, other.rule) if rule is not None]
        return replace(
            self,
            rule=rules[0] & rules[1] if len(rules) == 2 else next(iter(rules), None),  # noqa: PLR2004
            connections=tuple(dict.fromkeys((*self.connections, *other.connections))),
        )

    @functools.cached_property
    def reads_call(self) -> bool:
        """Whether the decision depends on the call, and not only on the caller."""
        conditions = self.rule.conditions if self.rule is not None else ()
        return any(isinstance(c, (CallScope, Requirement)) and c.reads_call for c in conditions)

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the call that the rule is known to read."""
        conditions = self.rule.conditions if self.rule is not None else ()
        return tuple(
            name
            for each in conditions
            if isinstance(each, (CallScope, Requirement))
            for name in each.arguments
        )

    @functools.cached_property
    def first_scopes(self) -> tuple[str, ...]:
        """The scopes a caller with no grant at all needs for this operation.

        They can ask for scopes, and not for a role: an alternative that needs none comes first.
        """
        if self.rule is None:
            return ()
        ways = zip(self.rule.alternatives, self.rule.grants, strict=True)
        first = min(ways, key=lambda way: (_is_opaque(way[0]), len(way[1])), default=((), ()))
        return first[1]

    def __str__(self) -> str:
        if self.public:
            return "public"
        parts = [str(self.rule) if self.rule is not None else "any authenticated caller"]
        parts += [f"connection {need.name}" for need in self.connections]
        return ", ".join(parts)


DefaultRule = Literal["authenticated", "deny", "public"]
"""What an operation without a guard asks for."""

DEFAULT_POLICIES: Mapping[DefaultRule, Policy | None] = {
    "authenticated": Policy(),
    "deny": None,
    "public": Policy(public=True),
}
"""The policy that each default stands for; None: nobody may."""
