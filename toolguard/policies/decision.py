"""Decide whether a caller may do an operation. Nothing else in the package decides.

Opaque requirements are evaluated first. Only the scopes of the alternatives that remain are
compared and named in a refusal; so a refusal discloses no scope that would not help.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from toolguard.errors import (
    AccessDeniedError,
    DecisionUnavailableError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    InvalidInputError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.parts.contained import contained, kind_of
from toolguard.policies.answers import Answer
from toolguard.policies.argument_scopes import resolve_argument_scopes
from toolguard.policies.formulas import (
    Alternative,
    Attempt,
    Condition,
    Formula,
    Requirement,
    requirements_in,
)
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import Check, RecentAuthentication
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal

__all__ = [
    "NEEDS_ARGUMENTS",
    "PERMIT",
    "Caller",
    "Decision",
    "Verdict",
    "decide",
    "decide_listed",
    "decide_now",
    "decide_on_scopes",
]

_log = logging.getLogger("toolguard")


class Verdict(Enum):
    """The kinds of decision."""

    PERMIT = "permit"
    NEEDS_ARGUMENTS = "needs arguments"
    REFUSE = "refuse"

    __hash__ = object.__hash__  # as they are compared: by identity


@dataclass(frozen=True)
class Decision:
    """The decision about one operation for one caller.

    Attributes:
        verdict: permit, refuse, or needs arguments.
        refusal: the refusal, which names everything that is missing; None unless refused.
    """

    verdict: Verdict
    refusal: ToolGuardError | None = None


PERMIT = Decision(Verdict.PERMIT)
"""The caller may do it."""

NEEDS_ARGUMENTS = Decision(Verdict.NEEDS_ARGUMENTS)
"""The decision depends on the arguments of the call."""


_DENY = Answer.deny()
_NOTHING_KNOWN: Mapping[Requirement, Answer | None] = {}


class Caller(NamedTuple):
    """The facts about a caller that a decision reads.

    Attributes:
        principal: the verified caller; None for a caller without a token.
        scopes: the granted scopes, with those that they include.
        now: the time, in seconds since the epoch.
        leeway: seconds by which the issuer's clock may differ.
        on_missing: the error text for a caller without a token who needs one.
        failure: why the token is invalid, where an invalid token is treated as a missing one.
        outlives_token: whether the caller stays permitted after the token has expired.
    """

    principal: Principal | None
    scopes: frozenset[str] = frozenset()
    now: float = 0.0
    leeway: float = 0.0
    on_missing: str = "This operation needs an access token"
    failure: ToolGuardError | None = None
    outlives_token: bool = False


async def decide(
    policy: Policy | None,
    caller: Caller,
    call: OperationCall | None = None,
    *,
    listing: bool = False,
    known: Mapping[Requirement, Answer | None] = _NOTHING_KNOWN,
) -> Decision:
    """Decide whether ``caller`` may do what ``policy`` guards.

    A permit of one alternative counts more than what cannot be told about another; that counts
    more than a refusal, because a refusal would be final. Within an alternative, a denial counts
    most, then what cannot be told, then what a client can act on.

    Args:
        policy: the whole policy of the operation; None if no caller may do it.
        caller: the caller, at this moment.
        call: the call, with its arguments; None while they are not known.
        listing: whether the operation is only to be listed: ``call`` has no arguments, and
            requirements that depend on them are left open.
        known: the answers that have been given already; None leaves the requirement open.
    """
    decided = decide_now(policy, caller)
    if decided is not None:
        return decided
    assert policy is not None  # noqa: S101 - decided above
    assert policy.formula is not None  # noqa: S101 - the same
    assert caller.principal is not None  # noqa: S101 - the same
    attempt = _attempt(caller, caller.principal, call)
    evaluation = _Evaluation(
        attempt, is_known=call is not None, listing=listing, answers=dict(known)
    )
    left: list[Alternative] = []
    for alternative in policy.formula.alternatives:
        for rest in await evaluation.evaluate(alternative):
            if all(_is_met(condition, attempt) for condition in rest):
                return PERMIT
            left.append(rest)
    if evaluation.undecided:
        return NEEDS_ARGUMENTS
    return _refuse(evaluation.refusal(left))


async def decide_listed(
    listed: Sequence[tuple[Policy | None, OperationCall]], caller: Caller
) -> Sequence[Decision]:
    """Decide which of the operations in a list ``caller`` may do, as far as no argument decides.

    A check that answers for all of them at once is asked once.

    Args:
        listed: the operations, with their policies.
        caller: the caller, at this moment.
    """
    asked: dict[Check, list[int]] = {}
    for at, (policy, _) in enumerate(listed):
        if policy is not None and decide_now(policy, caller) is None:
            for each in policy.requirements:
                if isinstance(each, Check) and each.answers_lists:
                    asked.setdefault(each, []).append(at)
    known: list[dict[Requirement, Answer | None]] = [{} for _ in listed]
    for check, places in asked.items():
        answers = await _ask_together(check, caller, [listed[at][1] for at in places])
        for at, answer in zip(places, answers, strict=True):
            known[at][check] = answer
    return [
        await decide(policy, caller, call, listing=True, known=answers)
        for (policy, call), answers in zip(listed, known, strict=True)
    ]


async def _ask_together(
    check: Check, caller: Caller, calls: Sequence[OperationCall]
) -> Sequence[Answer | None]:
    assert caller.principal is not None  # noqa: S101 - decided without asking
    attempt = _attempt(caller, caller.principal)
    try:
        with contained():
            said = await check.hold_each(attempt, calls)
    except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
        _log.error("%s failed: %s", check, kind_of(error))
        return [_DENY] * len(calls)
    return [None if each is None else _read(check, each, attempt) for each in said]


def decide_on_scopes(policy: Policy, caller: Caller) -> Decision:
    """Decide on a policy of scopes alone, without I/O and without functions of the user's.

    Raises:
        TypeError: if the policy has other requirements; use :func:`decide` for those.
    """
    decided = decide_now(policy, caller)
    if decided is None:
        raise TypeError(f"{policy.formula!r} asks for more than scopes")
    return decided


def decide_now(policy: Policy | None, caller: Caller) -> Decision | None:
    """Decide without evaluating requirements; None if the policy has some that count."""
    if policy is None:
        return _refuse(AccessDeniedError(rule="default=deny"))
    if caller.principal is None:
        missing = MissingTokenError(caller.on_missing, scopes=policy.first_scopes)
        return PERMIT if policy.public else _refuse(caller.failure or missing)
    is_expired = caller.principal.expires_at <= caller.now - caller.leeway
    if is_expired and not caller.outlives_token:
        return _refuse(InvalidTokenError("expired", "The access token has expired"))
    rule = policy.formula
    if rule is None or (isinstance(rule, Scope) and rule.allows(caller.scopes)):
        return PERMIT
    if not isinstance(rule, Scope):
        return None
    return _refuse(_name_missing(_attempt(caller, caller.principal), rule.alternatives))


def _attempt(caller: Caller, principal: Principal, call: OperationCall | None = None) -> Attempt:
    known = call or OperationCall("tool", "")
    return Attempt(principal, caller.scopes, known, caller.now, caller.leeway)


def _is_met(condition: Condition, attempt: Attempt) -> bool:
    if isinstance(condition, str):
        return condition in attempt.scopes
    return condition.holds(attempt) is True


def _name_missing(attempt: Attempt, alternatives: Sequence[Alternative]) -> ToolGuardError:
    """Return the refusal that names what is missing for the nearest of ``alternatives``.

    The nearest is the alternative with the fewest unmet conditions; ties: the first.
    """
    nearest = min(alternatives, key=lambda each: sum(not _is_met(c, attempt) for c in each))
    scopes = [each for each in nearest if isinstance(each, str)]
    missing = [scope for scope in scopes if scope not in attempt.scopes]
    sign_in = [each for each in nearest if isinstance(each, RecentAuthentication)]
    held = attempt.principal.scopes
    if not all(_is_met(each, attempt) for each in sign_in):
        return _sign_in_again(sign_in, tuple(dict.fromkeys((*held, *missing))))
    return InsufficientScopeError(scopes, token_scopes=held, missing_scopes=missing)


def _refuse(refusal: ToolGuardError) -> Decision:
    return Decision(Verdict.REFUSE, refusal)


def _sign_in_again(
    asked: Sequence[RecentAuthentication], scopes: tuple[str, ...]
) -> ToolGuardError:
    ages = [each.max_age for each in asked if each.max_age is not None]
    classes = [each.acr_values for each in asked if each.acr_values]
    # The new sign-in has to satisfy all of them, including those that the last one satisfied.
    common = [acr for acr in (classes[0] if classes else ()) if all(acr in c for c in classes)]
    if classes and not common:  # no sign-in satisfies all: a challenge would repeat for ever
        return AccessDeniedError(rule="sign-in classes that exclude each other")
    return InsufficientAuthenticationError(
        max_age=min(ages, default=None), acr_values=common, scopes=scopes
    )


def _read(requirement: Requirement, said: object, attempt: Attempt) -> Answer:
    """Return what a requirement answered; a denial for everything that is not an answer."""
    if isinstance(said, bool):
        return Answer.permit() if said else _DENY
    if not isinstance(said, Answer):
        _log.error("%s answered %s, not True, False or an Answer", requirement, type(said).__name__)
        return _DENY
    needed = _needed(said)
    if needed and all(_is_met(each, attempt) for each in needed):
        return Answer.deny("it asked for what the caller has")  # a challenge would repeat for ever
    return said


def _needed(answer: Answer) -> Sequence[Condition]:
    """Return the conditions of which an answer says that they would permit the call."""
    if answer.verdict == "needs sign-in":
        return (RecentAuthentication(answer.max_age, answer.acr_values),)
    return answer.scopes


@dataclass
class _Evaluation:
    """The evaluation of requirements for one decision; each requirement is evaluated once.

    Attributes:
        attempt: what the requirements are evaluated on.
        is_known: whether the call is known, with its arguments.
        listing: whether the call has no arguments and stands for any call.
        answers: the answers so far; None for a requirement that is left open.
        denied_by: the requirements that the caller does not meet.
        untold: the requirements of which it cannot be told now.
        invalid: why an alternative cannot be applied to the arguments.
        undecided: whether an alternative needs to know the arguments.
    """

    attempt: Attempt
    is_known: bool
    listing: bool
    answers: dict[Requirement, Answer | None]
    denied_by: dict[str, None] = field(default_factory=dict)
    untold: dict[str, None] = field(default_factory=dict)
    invalid: InvalidInputError | None = None
    undecided: bool = False

    async def evaluate(self, alternative: Alternative) -> Iterable[Alternative]:
        """Return the conditions that a client can act on, as alternatives; empty if denied."""
        opaque = [each for each in requirements_in(alternative) if each.opaque]
        rest = [each for each in alternative if isinstance(each, str) or not each.opaque]
        untold: list[str] = []
        # Requirements that need neither arguments nor functions of the user's come first.
        for requirement in sorted(opaque, key=lambda each: each.reads_call + each.reads_arguments):
            answer = await self._answer(requirement)
            if answer is None:
                self.undecided = True
                return ()
            reasoned = f"{requirement}: {answer.reason}" if answer.reason else str(requirement)
            if answer.verdict == "deny":
                self.denied_by[reasoned] = None
                return ()
            if answer.verdict == "try again":
                untold.append(reasoned)
            rest += _needed(answer)
        if untold:
            self.untold.update(dict.fromkeys(untold))
            return ()
        return self._with_named_scopes(rest)

    def refusal(self, left: Sequence[Alternative]) -> ToolGuardError:
        """Return why no alternative permits the call; ``left`` are those a client can act on."""
        if self.untold:
            return DecisionUnavailableError(rule=" | ".join(self.untold))
        if self.invalid is not None:
            return self.invalid
        if not left:
            return AccessDeniedError(rule=" | ".join(self.denied_by))
        return _name_missing(self.attempt, left)

    async def _answer(self, requirement: Requirement) -> Answer | None:
        """Return the answer of a requirement; None if it is open until the arguments are known."""
        if requirement in self.answers:
            return self.answers[requirement]
        is_open = not self.is_known or (self.listing and bool(requirement.arguments))
        if requirement.reads_call and is_open:
            return None
        answer = self.answers[requirement] = await self._ask(requirement)
        return answer

    def _with_named_scopes(self, rest: Sequence[Condition]) -> Iterable[Alternative]:
        naming = [each for each in requirements_in(rest) if each.names_scopes]
        if not naming:
            return (tuple(rest),)
        if not self.is_known or self.listing:
            self.undecided = True
            return ()
        try:
            with contained():
                return resolve_argument_scopes(
                    Formula.of((tuple(rest),)), self.attempt.call
                ).alternatives
        except InvalidInputError as refusal:
            self.invalid = refusal
            return ()
        except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
            self._failed(", ".join(map(str, naming)), error)
            return ()

    async def _ask(self, requirement: Requirement) -> Answer:
        try:
            with contained():
                answer = requirement.holds(self.attempt)
                said: object = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
            self.undecided |= self.listing  # the function may have read an argument
            self._failed(str(requirement), error)
            return _DENY
        return _read(requirement, said, self.attempt)

    def _failed(self, name: str, error: Exception) -> None:
        # Not the text of the exception: it may contain a token.
        _log.error("%s failed: %s", name, kind_of(error))
        self.denied_by[name] = None
