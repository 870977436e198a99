"""The state of one guarded operation within one message, and every way in which it changes.

Whatever touches a state does so here, through :meth:`Row.decided`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from toolguard.errors import ToolGuardError
from toolguard.policies.decision import Decision, Verdict
from toolguard.policies.operations import Invocation
from toolguard.policies.policy import Policy
from toolguard.principal import Principal

__all__ = ["Row", "State"]


class State(Enum):
    """What has been decided about an operation that was entered."""

    UNDECIDED = "undecided"
    NEEDS_ARGUMENTS = "needs arguments"
    PERMITTED = "permitted"
    REFUSED = "refused"


# A refusal is final. A permit is taken back if the operation is entered again, for a retry or with
# other arguments, and that is refused.
_NEXT: Mapping[State, Mapping[Verdict, State]] = {
    State.UNDECIDED: {
        Verdict.PERMIT: State.PERMITTED,
        Verdict.NEEDS_ARGUMENTS: State.NEEDS_ARGUMENTS,
        Verdict.REFUSE: State.REFUSED,
    },
    State.NEEDS_ARGUMENTS: {
        Verdict.PERMIT: State.PERMITTED,
        Verdict.REFUSE: State.REFUSED,
    },
    State.PERMITTED: {
        Verdict.PERMIT: State.PERMITTED,
        Verdict.REFUSE: State.REFUSED,
    },
    State.REFUSED: {Verdict.REFUSE: State.REFUSED},
}


@dataclass(slots=True, eq=False, repr=False)
class Row:
    """One guarded operation that a message has entered.

    Attributes:
        policy: the whole policy of the operation; None if no caller may do it.
        call: what is called, with the arguments that the operation is given there.
        owner: the wrapper that decides on the validated arguments; None where no function has one.
        nested: whether it was entered inside of another one.
        state: what has been decided.
        principal: the caller, once permitted; None for a caller without a token.
        refusal: the refusal that the operation ended in.
        concluded: whether the wrapper has said how the operation ended.
        running: whether the wrapper has called its function.
    """

    policy: Policy | None
    call: Invocation
    owner: Callable[..., Any] | None = None
    nested: bool = False
    state: State = State.UNDECIDED
    principal: Principal | None = None
    refusal: ToolGuardError | None = None
    concluded: bool = False
    running: bool = False

    def decided(self, decision: Decision, principal: Principal | None) -> None:
        """Note a decision; what no state leads to is a refusal."""
        self.state = _NEXT[self.state].get(decision.verdict, State.REFUSED)
        self.principal = principal

    def ended(self, refusal: ToolGuardError | None) -> None:
        """Note how the operation ended: in this refusal, or without one."""
        self.refusal = refusal
        self.concluded = True
