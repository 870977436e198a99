"""Which operations does a caller see in a list, and with which requirements?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolguard.calls.context import Call
from toolguard.errors import AccessDeniedError, ToolGuardError
from toolguard.frameworks.operation import Operation
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy
from toolguard.policies.published import LISTS, published

if TYPE_CHECKING:
    from toolguard.frameworks.adapter import Adapter

__all__ = ["Lists"]

# More than any server has; what is beyond is looked up each time.
_MAX_KNOWN = 20_000


class Lists:
    """The operations of one server, as they are listed.

    Args:
        adapter: the server.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._revision: tuple[object, ...] | None = None
        self._known: dict[tuple[Kind, str], Operation] = {}

    async def edit(self, call: Call, method: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a list with requirements, and without what the caller may not see.

        Args:
            call: the message.
            method: its JSON-RPC method; one of ``LISTS``.
            result: what the framework answers, in JSON.
        """
        member, kind, key = LISTS[method]
        listed = result.get(member)
        items = [
            edited
            for item in (listed if isinstance(listed, list) else ())
            if (edited := await self._item(call, item, kind, str(item.get(key)))) is not None
        ]
        return {**result, member: items}

    async def visible(self, call: Call, method: str, listed: Sequence[Any]) -> list[Any]:
        """Return the components of fastmcp in a list, without what the caller may not see.

        Args:
            call: the message that asks for them.
            method: the method of the list; one of ``LISTS``.
            listed: what the server would tell.
        """
        _, kind, key = LISTS[method]
        attribute = "uri_template" if key == "uriTemplate" else key
        return [
            component
            for component in listed
            if await self._item(call, {}, kind, str(getattr(component, attribute))) is not None
        ]

    async def _item(
        self, call: Call, item: Mapping[str, Any], kind: Kind, name: str
    ) -> dict[str, Any] | None:
        try:
            policy = self._adapter.policy(await self._operation(kind, name))
        except ValueError:  # public and guarded at once: refused to everybody
            policy = None
            if call.guard.unauthorized_tools != "show":
                return None
        if await self._is_hidden(call, policy):
            return None
        known = policy or call.default_policy
        return dict(item) if known is None else published(item, kind, known)

    async def _is_hidden(self, call: Call, policy: Policy | None) -> bool:
        shown = call.guard.unauthorized_tools
        if shown == "show":
            return False
        try:
            await call.forecast(policy)
        except AccessDeniedError:
            return True
        except ToolGuardError:
            return shown == "hide-all"
        return False

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
