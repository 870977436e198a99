"""Which operation is called, and with what?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["Invocation", "Kind"]

Kind: TypeAlias = Literal["tool", "resource", "prompt"]
"""What an operation is; a resource template is a resource."""


@dataclass(frozen=True)
class Invocation:
    """One call, as the rules see it that depend on more than the caller.

    Attributes:
        kind: ``"tool"``, ``"resource"`` or ``"prompt"``.
        name: the tool's or prompt's name, or the URI of the resource, as the client sent it.
        arguments: the arguments by name. Of a decorated function those that the framework has
            validated, with defaults; of an operation that only a rule of ``protect(rules=...)``
            guards those that the client sent. Not in the representation.
    """

    kind: Kind
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def sent(cls, kind: Kind, name: str, arguments: object = None) -> Invocation:
        """Return the call as a client sent it; a resource's one argument is its URI."""
        given = {"uri": name} if kind == "resource" else arguments
        return cls(kind, name, given if isinstance(given, Mapping) else {})
