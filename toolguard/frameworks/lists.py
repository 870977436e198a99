"""Edit list results: add requirements, and remove operations hidden from the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from toolguard.calls.message import Frame, caller_of, scope_names_for
from toolguard.errors import (
    AccessDeniedError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.frameworks.operation import Catalog, Operation, Revision
from toolguard.policies.decision import decide
from toolguard.policies.operations import Kind, OperationCall
from toolguard.policies.policy import DEFAULT_POLICIES, Policy
from toolguard.policies.published import LISTS, published

__all__ = ["Lists", "hides"]

# More than any server has; results beyond this number are not cached.
_MAX_KNOWN = 20_000


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
        items = [
            edited
            for item in (listed if isinstance(listed, list) else ())
            if (edited := await self._item(door, item, kind, str(item.get(key)))) is not None
        ]
        return {**result, member: items}

    async def visible(self, door: Frame, method: str, listed: Sequence[Any]) -> list[Any]:
        """Return the components of fastmcp in a list, without those hidden from the caller.

        Args:
            door: the frame of the message that requests the list.
            method: the method of the list; one of ``LISTS``.
            listed: the components that the server would list.
        """
        _, kind, key = LISTS[method]
        attribute = "uri_template" if key == "uriTemplate" else key
        return [
            component
            for component in listed
            if await self._item(door, {}, kind, str(getattr(component, attribute))) is not None
        ]

    async def _item(
        self, door: Frame, item: Mapping[str, Any], kind: Kind, name: str
    ) -> dict[str, Any] | None:
        operation = await self._operation(kind, name)
        try:
            policy = self._adapter.policy(operation)
        except ValueError:  # public and guarded at once: refused to every caller
            policy = None
            if door.guard.unauthorized_tools != "show":
                door.message.hidden.append(name)
                return None
        known = policy or DEFAULT_POLICIES[door.guard.default]
        if await self._is_hidden(door, known, OperationCall(kind, name)):
            door.message.hidden.append(name)
            return None
        if known is None:
            return dict(item)
        return published(item, kind, known, scope_names_for(door.guard, door.message.auth))

    async def _is_hidden(self, door: Frame, policy: Policy | None, call: OperationCall) -> bool:
        if door.guard.unauthorized_tools == "show":
            return False
        message = door.message
        caller = caller_of(door.guard, await message.principal(door.guard), message.auth)
        decision = await decide(policy, caller, call, listing=True)
        return decision.refusal is not None and hides(door, decision.refusal)

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
    could_ask = (InsufficientScopeError, InsufficientAuthenticationError, MissingTokenError)
    return frame.guard.unauthorized_tools == "hide-all" and isinstance(refusal, could_ask)
