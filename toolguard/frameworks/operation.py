"""What can be called on a server?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toolguard.decorators.wrapper import policy_of
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["Catalog", "Operation", "operation_key"]


def operation_key(kind: Kind, name: str) -> str:
    """Return what rules by name and tests call an operation: ``"prompt:plan"``, of a tool its name.

    >>> operation_key("resource", "calendar://today")
    'resource:calendar://today'
    """
    return name if kind == "tool" else f"{kind}:{name}"


@dataclass(frozen=True)
class Operation:
    """One tool, resource, resource template or prompt of a server.

    Attributes:
        kind: which of them; a template is a resource.
        name: the name or URI (template) that clients know it by.
        function: the registered function; None for one that is not a function here.
        version: of a component of fastmcp that has one.
        mounts: the servers it is mounted from, outermost first, with its names there.
        own_check: whether the framework checks its callers by itself (fastmcp's ``auth=``).
        parameters: the JSON schema of a tool's arguments, where the framework takes others, too,
            without saying so.
    """

    kind: Kind
    name: str
    function: Callable[..., Any] | None
    version: str | None = None
    mounts: tuple[tuple[Any, str], ...] = ()
    own_check: bool = False
    parameters: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """What rules by name and tests call it."""
        return operation_key(self.kind, self.name)

    @property
    def declared(self) -> Policy | None:
        """What its decorators say; None if it has none."""
        return None if self.function is None else policy_of(self.function)


@dataclass(frozen=True)
class Catalog:
    """The operations of a server by the names that clients know, and what else it may have.

    Attributes:
        operations: what could be found without asking another server.
        unlisted: sentences on what could not.
    """

    operations: tuple[Operation, ...]
    unlisted: tuple[str, ...] = ()
