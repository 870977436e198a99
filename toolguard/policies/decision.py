"""May this caller make this call?

Opaque requirements are asked first. Only if some alternative is left after that, the scopes of
what is left are compared and named; so a refusal discloses no scope that would not help.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from toolguard.errors import AccessDeniedError, InvalidInputError
from toolguard.policies.argument_scopes import CallScope, of_call
from toolguard.policies.formulas import Alternative, Rule
from toolguard.policies.operations import Invocation
from toolguard.policies.policy import Grant
from toolguard.policies.requirements import Requirement
from toolguard.principal import Principal

__all__ = ["decide"]

_log = logging.getLogger("toolguard")


async def decide(rule: Rule, grant: Grant, invocation: Invocation | None) -> bool:
    """Return whether the decision was made, in favour of the caller.

    Args:
        rule: what the operation asks for.
        grant: the caller, and what counts as granted to them.
        invocation: the call; None while its arguments are not known. Then False says that the
            caller may be let in or not, depending on the arguments.

    Raises:
        AccessDeniedError: if no alternative is left by the opaque requirements; it names none.
        InvalidInputError: if an argument cannot be part of a scope.
        InsufficientScopeError: naming every scope of the nearest alternative that is left.
        InsufficientAuthenticationError: if that one asks for a fresh sign-in.
    """
    hearing = _Hearing(grant.principal, invocation)
    left: list[Alternative] = []
    for alternative in rule.alternatives:
        for rest in await hearing.left_of(alternative):
            if grant.meets(rest):
                return True
            left.append(rest)
    if hearing.undecided:
        return False
    if hearing.invalid is not None:
        raise hearing.invalid
    if not left:
        raise AccessDeniedError(rule=" | ".join(hearing.denied_by))
    raise grant.refusal(left)


@dataclass
class _Hearing:
    """What has been asked so far for one decision; nothing is asked twice.

    Attributes:
        principal: the caller.
        invocation: the call; None while its arguments are not known.
        denied_by: the requirements that the caller does not meet.
        invalid: why an alternative cannot be applied to the arguments.
        undecided: whether an alternative needs to know the arguments.
    """

    principal: Principal
    invocation: Invocation | None
    denied_by: dict[str, None] = field(default_factory=dict)
    invalid: InvalidInputError | None = None
    undecided: bool = False
    _answers: dict[Requirement, bool] = field(default_factory=dict)

    async def left_of(self, alternative: Alternative) -> Iterable[Alternative]:
        """Return what the caller can do something about, as alternatives; none if denied."""
        opaque = [each for each in alternative if isinstance(each, Requirement)]
        # What needs no arguments and no function of the user's comes first.
        for requirement in sorted(opaque, key=lambda each: each.reads_call):
            if requirement.reads_call and self.invocation is None:
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
        if self.invocation is None:
            self.undecided = True
            return ()
        try:
            return of_call(Rule.of((rest,)), self.invocation).alternatives
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
        invocation = self.invocation or Invocation("tool", "")
        try:
            answer = requirement.holds(self.principal, invocation)
            said: object = await answer if inspect.isawaitable(answer) else answer
        except Exception as error:  # noqa: BLE001 - fail closed: a function of the user's
            self._failed(str(requirement), error)
            return False
        if not isinstance(said, bool):
            _log.error("%s answered %s, not True or False", requirement, type(said).__name__)
        return said is True

    def _failed(self, name: str, error: Exception) -> None:
        # Not its text: it may hold a token.
        _log.error("%s failed: %s", name, type(error).__name__)
        self.denied_by[name] = None
