"""The operations of a server, and what each one asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolguard.decorators.wrapper import owner_of, policy_of
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["Catalog", "Operation", "Resolved", "operation_key"]


def operation_key(kind: Kind, name: str) -> str:
    """Return what rules by name and tests call an operation: ``"prompt:plan"``, of a tool its name.

    >>> operation_key("resource", "calendar://today")
    'resource:calendar://today'
    """
    return name if kind == "tool" else f"{kind}:{name}"


class Operation(NamedTuple):
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
        other_names: further names it has, such as the one before it was renamed.
        tags: of a component of fastmcp.
    """

    kind: Kind
    name: str
    function: Callable[..., Any] | None
    version: str | None = None
    mounts: tuple[tuple[Any, str], ...] = ()
    own_check: bool = False
    parameters: Mapping[str, Any] | None = None
    other_names: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()

    @property
    def key(self) -> str:
        """What rules by name and tests call it."""
        return operation_key(self.kind, self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it has, apart from what a client sends."""
        return (self.name, *self.other_names)

    @property
    def declared(self) -> Policy | None:
        """What its decorators say; None if it has none."""
        return None if self.function is None else policy_of(self.function)


class Resolved:
    """An operation with its whole policy, worked out once for each function and set of names.

    Attributes:
        operation: the operation.
        declared: what its decorators say; None if it has none.
        owner: the wrapper that decides on validated arguments; None if no decorator made one.
        policy: its whole policy by its own names; None if no caller may do it.
        fault: why it cannot be guarded as it is; then it is refused to every caller.
    """

    __slots__ = ("declared", "fault", "operation", "owner", "policy")

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self.declared = operation.declared
        self.owner = None if operation.function is None else owner_of(operation.function)
        self.policy: Policy | None = None
        self.fault: str | None = None


@dataclass(frozen=True)
class Catalog:
    """The operations of a server by the names that clients know, and what else it may have.

    Attributes:
        operations: what could be found without asking another server.
        unlisted: sentences on what could not.
    """

    operations: tuple[Operation, ...]
    unlisted: tuple[str, ...] = ()
