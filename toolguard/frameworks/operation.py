"""The operations of a server, and their policies."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from toolguard.decorators.wrapper import owner_of, policy_of
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["NOT_REMADE", "Catalog", "Operation", "Remade", "Resolved", "Revision", "operation_key"]


def operation_key(kind: Kind, name: str) -> str:
    """Return the key of an operation in rules and tests: ``"prompt:plan"``; a tool's is its name.

    >>> operation_key("resource", "calendar://today")
    'resource:calendar://today'
    """
    return name if kind == "tool" else f"{kind}:{name}"


class Remade(NamedTuple):
    """What tools that are made from another one change for it.

    Attributes:
        in_front: the functions that clients reach it through.
        reused: the arguments that mean one thing under one of its names and another under another,
            because a tool that is made from it has renamed them or calls it from a function.
        renames: whether such a tool has other arguments than it has itself.
    """

    in_front: tuple[Callable[..., Any], ...] = ()
    reused: frozenset[str] = frozenset()
    renames: bool = False


NOT_REMADE = Remade()
"""Of a tool that no other is made from."""


class Operation(NamedTuple):
    """One tool, resource, resource template or prompt of a server.

    Attributes:
        kind: the kind; a template is a resource.
        name: the name or URI (template) that clients use.
        function: the registered function; None if the operation is not a function here.
        version: the version of a component of fastmcp, if it has one.
        mounts: the servers it is mounted from, outermost first, with its names there.
        own_check: whether the framework checks its callers itself (fastmcp's ``auth=``).
        parameters: the JSON schema of a tool's arguments, if the framework silently accepts
            others too.
        other_names: further names, such as the one before it was renamed.
        tags: the tags of a component of fastmcp.
        remade: what tools that are made from it change.
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
    remade: Remade = NOT_REMADE

    @property
    def key(self) -> str:
        """Its key in rules and tests."""
        return operation_key(self.kind, self.name)

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names, apart from the one that a client sent."""
        return (self.name, *self.other_names)

    @property
    def declared(self) -> Policy | None:
        """The policy of its decorators; None if it has none."""
        return None if self.function is None else policy_of(self.function)


class Resolved:
    """An operation with its whole policy, computed once for each function and set of names.

    Attributes:
        operation: the operation.
        declared: the policy of its decorators; None if it has none.
        owner: the wrapper that decides on validated arguments; None if it has no decorator.
        policy: its whole policy by its own names; None if no caller may do it.
        fault: why it cannot be guarded as registered; every caller is then refused.
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
    """The operations of a server by the names that clients use.

    Attributes:
        operations: the operations that can be found without a request to another server.
        unlisted: sentences about those that cannot.
    """

    operations: tuple[Operation, ...]
    unlisted: tuple[str, ...] = ()


class Revision:
    """The objects that a server consists of at one time, to tell whether any was exchanged.

    It keeps the objects: the ``id()`` of one that is gone may be that of its successor.

    Args:
        parts: the objects, which are compared by identity and order.

    >>> tools = [object(), object()]
    >>> Revision(tools) == Revision(tools), Revision(tools) == Revision(reversed(tools))
    (True, False)
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterable[object]) -> None:
        self._parts = tuple(parts)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Revision):
            return NotImplemented
        return len(self._parts) == len(other._parts) and all(
            map(operator.is_, self._parts, other._parts)
        )

    __hash__ = None  # type: ignore[assignment]
