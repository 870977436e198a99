"""What does an operation ask of its caller, and does this caller meet it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from toolguard.errors import (
    AccessDeniedError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.argument_scopes import CallScope
from toolguard.policies.formulas import Alternative, Condition, Rule
from toolguard.policies.requirements import RecentAuthentication, Requirement
from toolguard.policies.scopes import Scope, ScopeHierarchy
from toolguard.principal import Principal

__all__ = ["DEFAULT_POLICIES", "ConnectionNeed", "DefaultRule", "Grant", "Policy"]


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


@dataclass(frozen=True)
class Grant:
    """What a caller may be taken to hold.

    Attributes:
        principal: the verified caller.
        scopes: the granted scopes, with those that they include.
        now: the time, in seconds since the epoch.
        leeway: seconds by which the issuer's clock may differ.
    """

    principal: Principal
    scopes: frozenset[str]
    now: float = 0.0
    leeway: float = 0.0

    def meets(self, alternative: Alternative) -> bool:
        """Return whether the caller meets these conditions."""
        return all(map(self._meets, alternative))

    def _meets(self, condition: Condition) -> bool:
        if isinstance(condition, RecentAuthentication):
            return condition.holds(self.principal, self.now, self.leeway)
        return condition in self.scopes

    def refusal(self, alternatives: Sequence[Alternative]) -> ToolGuardError:
        """Return the refusal that names what is missing for the nearest of ``alternatives``.

        The nearest is the one with the fewest conditions that are not met; ties: the first.
        """
        nearest = min(alternatives, key=lambda each: sum(not self._meets(c) for c in each))
        scopes = [each for each in nearest if isinstance(each, str)]
        missing = [scope for scope in scopes if scope not in self.scopes]
        sign_in = [each for each in nearest if isinstance(each, RecentAuthentication)]
        held = self.principal.scopes
        if not all(map(self._meets, sign_in)):
            return _sign_in_again(sign_in, tuple(dict.fromkeys((*held, *missing))))
        return InsufficientScopeError(scopes, token_scopes=held, missing_scopes=missing)


def _is_opaque(alternative: Alternative) -> bool:
    return any(isinstance(each, Requirement) for each in alternative)


def _sign_in_again(
    asked: Sequence[RecentAuthentication], scopes: tuple[str, ...]
) -> ToolGuardError:
    ages = [each.max_age for each in asked if each.max_age is not None]
    classes = [each.acr_values for each in asked if each.acr_values]
    # The new sign-in has to do for all of them, those that the last one did for among them.
    common = [acr for acr in (classes[0] if classes else ()) if all(acr in c for c in classes)]
    if classes and not common:  # none ever will: asking for one would never end
        return AccessDeniedError(rule="sign-in classes that exclude each other")
    return InsufficientAuthenticationError(
        max_age=min(ages, default=None), acr_values=common, scopes=scopes
    )


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

    def check(self, principal: Principal | None, hierarchy: ScopeHierarchy) -> None:
        """Return if the call is allowed, by a rule of scopes alone. Pure: no I/O, no clock.

        Args:
            principal: the verified caller, None if no token was sent.
            hierarchy: which scopes stand for others.

        Raises:
            MissingTokenError: if there is no caller and the operation is not public.
            InsufficientScopeError: naming every scope of the alternative nearest to the grant.
            TypeError: if the rule asks for more than scopes; decide on it with ``decide``.
        """
        if principal is None:
            if self.public:
                return
            raise MissingTokenError(scopes=self.first_scopes)
        if self.rule is None:
            return
        if not isinstance(self.rule, Scope):
            raise TypeError(f"{self.rule!r} asks for more than scopes")
        granted = hierarchy.expand(principal.scopes)
        if not self.rule.allows(granted):
            raise Grant(principal, granted).refusal(self.rule.alternatives)

    @property
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

    @property
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
