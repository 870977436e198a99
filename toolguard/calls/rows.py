"""The state of one guarded operation within one message, and all its transitions.

States change only here, through :meth:`Row.decided`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from toolguard.errors import ToolGuardError
from toolguard.policies.decision import Decision, Verdict
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.principal import Principal

__all__ = ["Row", "State"]


class State(Enum):
    """The states of an operation that was entered."""

    UNDECIDED = "undecided"
    NEEDS_ARGUMENTS = "needs arguments"
    PERMITTED = "permitted"
    REFUSED = "refused"

    __hash__ = object.__hash__  # as they are compared: by identity


# A refusal is final. A permit is withdrawn if the operation is entered again, for a retry or with
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
        call: the call, with the arguments as known where the operation is entered.
        owner: the wrapper that decides on the validated arguments; None if there is no wrapper.
        nested: whether it was entered inside of another operation.
        own: whether it is known to be what the message names, and not what a middleware called.
        state: the state of the decision.
        principal: the caller, once permitted; None for a caller without a token.
        refusal: the refusal that the operation ended in.
        concluded: whether the wrapper has recorded how the operation ended.
        running: whether the wrapper has called its function.
        denial: the refusal that was decided; None unless it was refused.
        label: the name under which the operation was registered; None if it was not found.
        started: when it was entered, by ``time.perf_counter``.
    """

    policy: Policy | None
    call: OperationCall
    owner: Callable[..., Any] | None = None
    nested: bool = False
    own: bool = True
    state: State = State.UNDECIDED
    principal: Principal | None = None
    refusal: ToolGuardError | None = None
    concluded: bool = False
    running: bool = False
    denial: ToolGuardError | None = None
    label: str | None = None
    started: float = field(default_factory=time.perf_counter)

    def decided(self, decision: Decision, principal: Principal | None) -> None:
        """Record a decision; a transition that is not in the table is a refusal."""
        self.state = _NEXT[self.state].get(decision.verdict, State.REFUSED)
        self.principal = principal
        self.denial = decision.refusal

    def ended(self, refusal: ToolGuardError | None) -> None:
        """Record how the operation ended: in this refusal, or without one."""
        self.refusal = refusal
        self.concluded = True
