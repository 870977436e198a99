"""The approval that an operation needs, and the call that it is needed for."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from toolguard.principal import Principal

if TYPE_CHECKING:
    from toolguard.policies.formulas import Formula

__all__ = ["ApprovalNeed", "Approving", "CallToApprove"]

Approving: TypeAlias = Literal["later", "skip", "check", "use"]
"""How far a decision goes where an approval is needed.

It is left to the wrapper of the function; nothing runs yet that needs it; there has to be one;
there has to be one, which is used up.
"""


@dataclass(frozen=True)
class ApprovalNeed:
    """The approval of a person that each call of an operation needs.

    Attributes:
        summary: what the call does, for the person; ``{name}`` stands for an argument.
        by: what an approver other than the caller must meet; None: the caller approves.
        within: seconds for which a question waits, and for which the answer then counts.
    """

    summary: str
    by: Formula | None = None
    within: float = 300.0

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that the summary names.

        Raises:
            ValueError: if it is not a text with names in braces.
        """
        names: list[str] = []
        for _, name, layout, conversion in string.Formatter().parse(self.summary):
            if name is None:
                continue
            if not name.isidentifier() or layout or conversion:
                raise ValueError(f"summary={self.summary!r}: write an argument as {{name}}")
            names.append(name)
        return tuple(names)

    @property
    def approver(self) -> str:
        """The person who approves, in words."""
        return "the caller" if self.by is None else str(self.by)

    def __str__(self) -> str:
        return f"approval by {self.approver}"


@dataclass(frozen=True)
class CallToApprove:
    """One call of an operation that needs an approval.

    Attributes:
        need: the approval that it needs.
        principal: the caller.
        tool: the name by which the client calls the tool.
        function: the function that would run.
        arguments: the validated arguments, and what the framework adds to them; not in the
            representation.
    """

    need: ApprovalNeed
    principal: Principal
    tool: str
    function: str
    arguments: Mapping[str, Any] = field(repr=False)
