"""What can be called on a server?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolguard.decorators import policy_of
from toolguard.invocation import Kind
from toolguard.policy import Policy

__all__ = ["Operation"]


@dataclass(frozen=True)
class Operation:
    """One tool, resource, resource template or prompt of a server.

    Attributes:
        kind: which of them; a template is a resource.
        name: the name or URI (template) that clients know it by.
        function: the registered function; None for one that is not a function here.
    """

    kind: Kind
    name: str
    function: Callable[..., Any] | None

    @property
    def declared(self) -> Policy | None:
        """What its decorators say; None if it has none."""
        return None if self.function is None else policy_of(self.function)
