"""The policy of one operation: its formula, and the connections it needs."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from toolguard.policies.approval import ApprovalNeed
from toolguard.policies.formulas import Alternative, Formula, Requirement, requirements_in

__all__ = ["DEFAULT_POLICIES", "ConnectionNeed", "DefaultPolicy", "Policy"]


_PUBLIC_AND_GUARDED = "@public cannot be combined with another guard: remove one of them"


@dataclass(frozen=True)
class ConnectionNeed:
    """A third-party connection that an operation uses.

    Attributes:
        name: the connection's name at the provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token must have; empty accepts any.
        parameter: the keyword argument that receives it.
        tenant: whether it is the connection of the caller's tenant instead of the user's.
        optional: whether the operation also runs if the user has not connected the account.
        fresh: whether a cached token must not be used.
    """

    name: str
    scopes: tuple[str, ...]
    parameter: str
    tenant: bool = False
    optional: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Policy:
    """The policy of one operation. Immutable; stacked decorators merge theirs with ``&``.

    Attributes:
        formula: the formula that the caller must meet; None requires a valid token only.
        connections: the connections to fetch for the caller once the call is permitted.
        public: whether callers without a token are permitted.
        approval: the approval that each call needs once the formula is met; None if it needs none.
    """

    formula: Formula | None = None
    connections: tuple[ConnectionNeed, ...] = ()
    public: bool = False
    approval: ApprovalNeed | None = None

    def __post_init__(self) -> None:
        has_rule = self.formula is not None or self.approval is not None
        if self.public and (has_rule or self.connections):
            raise ValueError(_PUBLIC_AND_GUARDED)
        parameters = [need.parameter for need in self.connections]
        for name in parameters:
            if parameters.count(name) > 1:
                raise ValueError(
                    f"two connections cannot both arrive as {name}: give each a parameter of its "
                    "own with with_connection(..., as_=...)"
                )

    def __and__(self, other: Policy) -> Policy:
        """Return the policy that requires everything that either policy requires.

        Raises:
            ValueError: if one of the two is public and the other requires something, or they need
                two approvals.
        """
        if self.public or other.public:
            if self != other:
                raise ValueError(_PUBLIC_AND_GUARDED)
            return self
        if self.approval and other.approval and self.approval != other.approval:
            raise ValueError("a call is approved once: write one @requires_approval")
        rules = [rule for rule in (self.formula, other.formula) if rule is not None]
        return replace(
            self,
            formula=rules[0] & rules[1] if len(rules) == 2 else next(iter(rules), None),  # noqa: PLR2004
            connections=tuple(dict.fromkeys((*self.connections, *other.connections))),
            approval=self.approval or other.approval,
        )

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The conditions of the rule that are not scope-tokens."""
        return self.formula.requirements if self.formula is not None else ()

    @functools.cached_property
    def reads_arguments(self) -> bool:
        """Whether the decision depends on the call, and not only on the caller."""
        is_read = any(each.reads_arguments for each in self.requirements)
        return is_read or self.approval is not None

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments of the call that the rule is known to read."""
        return tuple(name for each in self.requirements for name in each.arguments)

    @functools.cached_property
    def first_scopes(self) -> tuple[str, ...]:
        """The scopes that a caller without any grant needs for this operation.

        Clients can request scopes but not roles: alternatives of scopes alone come first.
        """
        if self.formula is None:
            return ()

        def distance(way: tuple[Alternative, tuple[str, ...]]) -> tuple[bool, int]:
            alternative, scopes = way
            return any(each.opaque for each in requirements_in(alternative)), len(scopes)

        ways = zip(self.formula.alternatives, self.formula.grants, strict=True)
        return min(ways, key=distance, default=((), ()))[1]

    def __str__(self) -> str:
        if self.public:
            return "public"
        parts = [str(self.formula) if self.formula is not None else "any authenticated caller"]
        parts += [str(self.approval)] if self.approval is not None else []
        parts += [f"connection {need.name}" for need in self.connections]
        return ", ".join(parts)


DefaultPolicy = Literal["authenticated", "deny", "public"]
"""The policy of an operation without a guard, by name."""

DEFAULT_POLICIES: Mapping[DefaultPolicy, Policy | None] = {
    "authenticated": Policy(),
    "deny": None,
    "public": Policy(public=True),
}
"""The policy of each default; None refuses every caller."""
