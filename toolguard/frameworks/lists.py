"""Edit list results: add requirements, and remove operations hidden from the caller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from toolguard.calls.message import Frame, caller_of, scope_names_for
from toolguard.errors import (
    AccessDeniedError,
    DecisionUnavailableError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.frameworks.operation import Catalog, Operation, Revision
from toolguard.policies.decision import decide_listed
from toolguard.policies.operations import Kind, OperationCall
from toolguard.policies.policy import DEFAULT_POLICIES, Policy
from toolguard.policies.published import LISTS, published

__all__ = ["Lists", "hides"]

# More than any server has; results beyond this number are not cached.
_MAX_KNOWN = 20_000
# Refusals after which the caller may still be permitted one day.
_MAY_BE_PERMITTED = (
    DecisionUnavailableError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    MissingTokenError,
)


class Listing(Protocol):
    """The part of an adapter that lists use."""

    def revision(self) -> Revision:
        """Return a value that changes with the registered operations."""
        ...

    def catalog(self) -> Catalog:
        """Return the operations by the names that clients use."""
        ...

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``."""
        ...

    def policy(self, operation: Operation) -> Policy | None:
        """Return the policy of an operation's decorators and rules; None if it has neither."""
        ...


class Lists:
    """The operations of one server, as they are listed.

    Args:
        adapter: the server.
    """

    def __init__(self, adapter: Listing) -> None:
        self._adapter = adapter
        self._revision: Revision | None = None
        self._known: dict[tuple[Kind, str], Operation] = {}

    async def edit(self, door: Frame, method: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return a list result with requirements, without the operations hidden from the caller.

        Args:
            door: the frame of the message, outside of operations.
            method: its JSON-RPC method; one of ``LISTS``.
            result: the framework's result, as JSON values.
        """
        member, kind, key = LISTS[method]
        listed = result.get(member)
        items = listed if isinstance(listed, list) else []
        found = [await self._found(door, kind, str(item.get(key))) for item in items]
        hidden = await self._hidden(door, found)
        names = scope_names_for(door.guard, door.message.auth)
        edited = [
            dict(item) if policy is None else published(item, kind, policy, names)
            for item, (policy, call) in zip(items, found, strict=True)
            if call.name not in hidden
        ]
        return {**result, member: edited}

    async def visible(self, door: Frame, method: str, listed: Sequence[Any]) -> list[Any]:
        """Return the components of fastmcp in a list, without those hidden from the caller.

        Args:
            door: the frame of the message that requests the list.
            method: the method of the list; one of ``LISTS``.
            listed: the components that the server would list.
        """
        _, kind, key = LISTS[method]
        attribute = "uri_template" if key == "uriTemplate" else key
        names = [str(getattr(component, attribute)) for component in listed]
        hidden = await self._hidden(door, [await self._found(door, kind, each) for each in names])
        return [each for each, name in zip(listed, names, strict=True) if name not in hidden]

    async def _found(
        self, door: Frame, kind: Kind, name: str
    ) -> tuple[Policy | None, OperationCall]:
        """Return an operation with its policy; without one, no caller may do it."""
        operation, call = await self._operation(kind, name), OperationCall(kind, name)
        try:
            policy = self._adapter.policy(operation)
        except ValueError:  # public and guarded at once: refused to every caller
            if door.guard.unauthorized_tools != "show":
                return None, call
            policy = None
        return policy or DEFAULT_POLICIES[door.guard.default], call

    async def _hidden(
        self, door: Frame, found: Sequence[tuple[Policy | None, OperationCall]]
    ) -> frozenset[str]:
        """Return the names that are hidden from the caller; decided once in a message."""
        if door.guard.unauthorized_tools == "show":
            return frozenset()
        message, known = door.message, door.message.listed
        new = [each for each in found if (id(self), each[1].kind, each[1].name) not in known]
        if new:
            caller = caller_of(door.guard, await message.principal(door.guard), message.auth)
            for (_, call), decision in zip(new, await decide_listed(new, caller), strict=True):
                refusal = decision.refusal
                is_hidden = refusal is not None and hides(door, refusal)
                known[id(self), call.kind, call.name] = is_hidden
                if is_hidden:
                    message.hidden.append(call.name)
        return frozenset(call.name for _, call in found if known[id(self), call.kind, call.name])

    async def _operation(self, kind: Kind, name: str) -> Operation:
        revision = self._adapter.revision()
        if revision != self._revision:
            operations = self._adapter.catalog().operations
            self._known = {(each.kind, each.name): each for each in operations}
            self._revision = revision
        found = self._known.get((kind, name))
        if found is None:
            found = await self._adapter.find(kind, name, None) or Operation(kind, name, None)
            if len(self._known) < _MAX_KNOWN:
                self._known[kind, name] = found
        return found


def hides(frame: Frame, refusal: ToolGuardError) -> bool:
    """Return whether this refusal hides the existence of the operation from the caller."""
    if frame.guard.unauthorized_tools == "show":
        return False
    if isinstance(refusal, AccessDeniedError):
        return True
    return frame.guard.unauthorized_tools == "hide-all" and isinstance(refusal, _MAY_BE_PERMITTED)
