"""The one decision: may this caller do this operation?

Opaque requirements are asked first. Only if some alternative is left after that, the scopes of
what is left are compared and named; so a refusal discloses no scope that would not help.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from toolguard.errors import (
    AccessDeniedError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    InvalidInputError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.argument_scopes import CallScope, of_call
from toolguard.policies.formulas import Alternative, Condition, Rule
from toolguard.policies.operations import Invocation
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import RecentAuthentication, Requirement
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal

__all__ = [
    "NEEDS_ARGUMENTS",
    "PERMIT",
    "Caller",
    "Decision",
    "Verdict",
    "decide",
    "decide_now",
    "decide_on_scopes",
]

_log = logging.getLogger("toolguard")


class Verdict(Enum):
    """What was decided."""

    PERMIT = "permit"
    NEEDS_ARGUMENTS = "needs arguments"
    REFUSE = "refuse"


@dataclass(frozen=True)
class Decision:
    """What was decided about one operation for one caller.

    Attributes:
        verdict: permit, refuse, or that only the arguments of the call can tell.
        refusal: why not, naming everything that is missing; None unless refused.
    """

    verdict: Verdict
    refusal: ToolGuardError | None = None


PERMIT = Decision(Verdict.PERMIT)
"""The caller may do it."""

NEEDS_ARGUMENTS = Decision(Verdict.NEEDS_ARGUMENTS)
"""The arguments of the call tell."""


class Caller(NamedTuple):
    """The caller at the moment of a decision.

    Attributes:
        principal: the verified caller; None for a caller without a token.
        scopes: the granted scopes, with those that they include.
        now: the time, in seconds since the epoch.
        leeway: seconds by which the issuer's clock may differ.
        on_missing: the sentence for a caller without a token who needs one.
        failure: why their token is not good, where it is treated as one that they did not send.
    """

    principal: Principal | None
    scopes: frozenset[str] = frozenset()
    now: float = 0.0
    leeway: float = 0.0
    on_missing: str = "This operation needs an access token"
    failure: ToolGuardError | None = None

    def meets(self, alternative: Alternative) -> bool:
        """Return whether the caller meets these scopes and sign-ins."""
        return all(map(self._meets, alternative))

    def _meets(self, condition: Condition) -> bool:
        if isinstance(condition, RecentAuthentication):
            return self.principal is not None and condition.holds(
                self.principal, self.now, self.leeway
            )
        return condition in self.scopes

    def refusal(self, alternatives: Sequence[Alternative]) -> ToolGuardError:
        """Return the refusal that names what is missing for the nearest of ``alternatives``.

        The nearest is the one with the fewest conditions that are not met; ties: the first.
        """
        nearest = min(alternatives, key=lambda each: sum(not self._meets(c) for c in each))
        scopes = [each for each in nearest if isinstance(each, str)]
        missing = [scope for scope in scopes if scope not in self.scopes]
        sign_in = [each for each in nearest if isinstance(each, RecentAuthentication)]
        held = self.principal.scopes if self.principal is not None else ()
        if not all(map(self._meets, sign_in)):
            return _sign_in_again(sign_in, tuple(dict.fromkeys((*held, *missing))))
        return InsufficientScopeError(scopes, token_scopes=held, missing_scopes=missing)


async def decide(
    policy: Policy | None,
    caller: Caller,
    call: Invocation | None = None,
    *,
    listing: bool = False,
) -> Decision:
    """Decide whether ``caller`` may do what ``policy`` guards.

    Args:
        policy: what the operation asks for; None if no caller may do it.
        caller: the caller, at this moment.
        call: the call, with its arguments; None while they are not known.
        listing: whether the operation is only to be listed: ``call`` has no arguments, and what
            depends on them is left open.
    """
    decided = decide_now(policy, caller)
    if decided is not None:
        return decided
    assert policy is not None  # noqa: S101 - decided above
    assert policy.rule is not None  # noqa: S101 - the same
    assert caller.principal is not None  # noqa: S101 - the same
    evaluation = _Evaluation(caller.principal, call, listing)
    left: list[Alternative] = []
    for alternative in policy.rule.alternatives:
        for rest in await evaluation.left_of(alternative):
            if caller.meets(rest):
                return PERMIT
            left.append(rest)
    if evaluation.undecided:
        return NEEDS_ARGUMENTS
    if evaluation.invalid is not None:
        return _refuse(evaluation.invalid)
    if not left:
        return _refuse(AccessDeniedError(rule=" | ".join(evaluation.denied_by)))
    return _refuse(caller.refusal(left))


def decide_on_scopes(policy: Policy, caller: Caller) -> Decision:
    """Decide, by a policy of scopes alone. Pure: no I/O, no function of the user's.

    Raises:
        TypeError: if the policy asks for more than scopes; decide on it with :func:`decide`.
    """
    decided = decide_now(policy, caller)
    if decided is None:
        raise TypeError(f"{policy.rule!r} asks for more than scopes")
    return decided


def decide_now(policy: Policy | None, caller: Caller) -> Decision | None:
    """Decide where no function of the user's has to be asked; None if one has to be. Pure."""
    if policy is None:
        return _refuse(AccessDeniedError(rule="default=deny"))
    if caller.principal is None:
        missing = MissingTokenError(caller.on_missing, scopes=policy.first_scopes)
        return PERMIT if policy.public else _refuse(caller.failure or missing)
    if caller.principal.is_expired(caller.now - caller.leeway):
        return _refuse(InvalidTokenError("expired", "The access token has expired"))
    if policy.rule is None:
        return PERMIT
    if not isinstance(policy.rule, Scope):
        return None
    is_allowed = policy.rule.allows(caller.scopes)
    return PERMIT if is_allowed else _refuse(caller.refusal(policy.rule.alternatives))


def _refuse(refusal: ToolGuardError) -> Decision:
    return Decision(Verdict.REFUSE, refusal)


def _sign_in_again(
    asked: Sequence[RecentAuthentication], scopes: tuple[str, ...]
) -> ToolGuardError:
    ages = [each.max_age for each in asked if each.max_age is not None]
    classes = [each.acr_values for each in asked if each.acr_values]
    # The new sign-in has to do for all of them, those that the last one did for among them.
    common = [acr for acr in (classes[0] if classes else ()) if all(acr in c for c in classes)]
    if classes and not common:  # no sign-in ever will: asking for one would never end
        return AccessDeniedError(rule="sign-in classes that exclude each other")
    return InsufficientAuthenticationError(
        max_age=min(ages, default=None), acr_values=common, scopes=scopes
    )


@dataclass
class _Evaluation:
    """What has been asked so far for one decision; nothing is asked twice.

    Attributes:
        principal: the caller.
        call: the call; None while its arguments are not known.
        listing: whether it is a call without arguments, that stands for any.
        denied_by: the requirements that the caller does not meet.
        invalid: why an alternative cannot be applied to the arguments.
        undecided: whether an alternative needs to know the arguments.
    """

    principal: Principal
    call: Invocation | None
    listing: bool
    denied_by: dict[str, None] = field(default_factory=dict)
    invalid: InvalidInputError | None = None
    undecided: bool = False
    _answers: dict[Requirement, bool] = field(default_factory=dict)

    async def left_of(self, alternative: Alternative) -> Iterable[Alternative]:
        """Return what the caller can do something about, as alternatives; empty if denied."""
        opaque = [each for each in alternative if isinstance(each, Requirement)]
        # What needs no arguments and no function of the user's comes first.
        for requirement in sorted(opaque, key=lambda each: each.reads_call):
            is_open = self.call is None or (self.listing and bool(requirement.arguments))
            if requirement.reads_call and is_open:
                self.undecided = True
                return ()
            if not await self._meets(requirement):
                self.denied_by[str(requirement)] = None
                return ()
        rest = tuple(each for each in alternative if not isinstance(each, Requirement))
        return self._with_call_scopes(rest)

    def _with_call_scopes(self, rest: Alternative) -> Iterable[Alternative]:
        if not any(isinstance(each, CallScope) for each in rest):
            return (rest,)
        if self.call is None or self.listing:
            self.undecided = True
            return ()
        try:
            return of_call(Rule.of((rest,)), self.call).alternatives
        except InvalidInputError as refusal:
            self.invalid = refusal
            return ()
        except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
            named = [str(each) for each in rest if isinstance(each, CallScope)]
            self._failed(", ".join(named), error)
            return ()

    async def _meets(self, requirement: Requirement) -> bool:
        if requirement not in self._answers:
            self._answers[requirement] = await self._ask(requirement)
        return self._answers[requirement]

    async def _ask(self, requirement: Requirement) -> bool:
        call = self.call or Invocation("tool", "")
        try:
            answer = requirement.holds(self.principal, call)
            said: object = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
            self.undecided |= self.listing  # it may have looked for an argument
            self._failed(str(requirement), error)
            return False
        if not isinstance(said, bool):
            _log.error("%s answered %s, not True or False", requirement, type(said).__name__)
        return said is True

    def _failed(self, name: str, error: Exception) -> None:
        # Not its text: it may hold a token.
        _log.error("%s failed: %s", name, type(error).__name__)
        self.denied_by[name] = None
