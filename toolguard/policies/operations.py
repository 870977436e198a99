"""The MCP methods that lead to operations, and a strict reader of the parameters that name them.

The adapters of the frameworks and the proxy use the same table and the same reader. Malformed
parameters are refused; nothing is repaired or guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from toolguard.errors import MalformedMessageError
from toolguard.parsing.lookalikes import resembles
from toolguard.parsing.spellings import MAX_LENGTH

__all__ = [
    "CALLS",
    "COMPLETE",
    "LISTEN",
    "MAX_NAMES",
    "METHODS",
    "Kind",
    "OperationCall",
    "is_handshake",
    "named_operations",
]

Kind: TypeAlias = Literal["tool", "resource", "prompt"]
"""The kinds of operation; a resource template counts as a resource."""

MAX_NAMES = 100
"""The maximum number of operations that one message may name."""

CALLS = frozenset({"tools/call", "resources/read", "prompts/get"})
"""The methods that run an operation."""

# The methods that name one operation, with the parameter that names it.
_OPERATIONS: Mapping[str, tuple[Kind, str]] = {
    "tools/call": ("tool", "name"),
    "resources/read": ("resource", "uri"),
    "resources/subscribe": ("resource", "uri"),
    "resources/unsubscribe": ("resource", "uri"),
    "prompts/get": ("prompt", "name"),
}
# Completions disclose values of an operation, so they are guarded like the operation.
COMPLETE = "completion/complete"
"""The method of completions."""

_REFERENCES: Mapping[str, tuple[Kind, str]] = {
    "ref/prompt": ("prompt", "name"),
    "ref/resource": ("resource", "uri"),
}
LISTEN = "subscriptions/listen"
"""The method that replaces resources/subscribe in MCP 2026-07-28, for several resources."""

_SUBSCRIPTIONS = "resourceSubscriptions"

METHODS = (*_OPERATIONS, COMPLETE, LISTEN)
"""The methods that name operations."""

_HANDSHAKE = frozenset({"initialize", "ping", "server/discover"})
# The notifications of the protocol that clients send; a server may have handlers for others.
_NOTIFICATIONS = frozenset(
    f"notifications/{name}"
    for name in ("initialized", "cancelled", "progress", "roots/list_changed", "tasks/status")
)
_INVALID_PARAMS = -32602
# Members of most messages, which resemble none of the members that are read.
_UNLIKE = frozenset({"arguments", "_meta", "task"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class OperationCall:
    """One call of an operation, as passed to requirements that depend on the call.

    Attributes:
        kind: ``"tool"``, ``"resource"`` or ``"prompt"``.
        name: the tool's or prompt's name, or the URI of the resource, as the client sent it.
        arguments: the arguments by name: for a decorated function the validated ones, with
            defaults; for an operation that only a rule of ``protect(rules=...)`` guards, the
            ones that the client sent. Not in the representation.
        method: the JSON-RPC method that names the operation, where that is not the one that
            runs it, such as ``completion/complete``; None for ``tools/call``, ``resources/read``
            and ``prompts/get``. Not in the representation.
    """

    kind: Kind
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)
    method: str | None = field(default=None, repr=False)

    @classmethod
    def sent(
        cls, kind: Kind, name: str, arguments: object = None, method: str | None = None
    ) -> OperationCall:
        """Return the call as a client sent it; the only argument of a resource is its URI.

        Args:
            kind: the kind of operation.
            name: its name, or the URI of a resource.
            arguments: the arguments as they were sent; what is not an object counts as
                none.
            method: the JSON-RPC method, where that is not the one that runs the operation.
        """
        given = {"uri": name} if kind == "resource" else arguments
        return cls(kind, name, given if isinstance(given, (dict, Mapping)) else {}, method)


def is_handshake(method: str) -> bool:
    """Return whether every client sends this method, whatever it may do."""
    return method in _HANDSHAKE or method in _NOTIFICATIONS


def named_operations(method: str, params: Mapping[str, Any]) -> tuple[OperationCall, ...]:
    """Return the calls that a message names, as sent; none for a message about the server.

    Args:
        method: the JSON-RPC method.
        params: its parameters, parsed from JSON.

    Raises:
        MalformedMessageError: if the method names operations and the parameters have no usable
            name, more than :data:`MAX_NAMES` of them, or a member that a lenient reader could
            take for the one that is read.

    >>> named_operations("tools/call", {"name": "add", "arguments": {}})
    (OperationCall(kind='tool', name='add'),)
    >>> named_operations("tools/list", {})
    ()
    """
    if method in _OPERATIONS:
        other = None if method in CALLS else method
        return (_called(*_OPERATIONS[method], params, params.get("arguments"), other),)
    if method == COMPLETE:
        ref = _member(params, "ref")
        return (_called(*_reference(ref), ref, params.get("arguments"), COMPLETE),)
    if method == LISTEN:
        return _subscribed(_member(params, "notifications"))
    return ()


def _called(
    kind: Kind, parameter: str, named: Mapping[str, Any], arguments: object, method: str | None
) -> OperationCall:
    _refuse_lookalikes(named, parameter, "arguments")
    return OperationCall.sent(kind, _usable(parameter, named.get(parameter)), arguments, method)


def _usable(parameter: str, name: object) -> str:
    if not isinstance(name, str):
        raise _malformed(f"{parameter} must be given, as a string")
    if not name.strip() or len(name) > MAX_LENGTH or _CONTROL.search(name):
        raise _malformed(
            f"{parameter} must have 1 to {MAX_LENGTH} characters, not only blanks, and no control "
            "characters"
        )
    return name


def _reference(ref: Mapping[str, Any]) -> tuple[Kind, str]:
    _refuse_lookalikes(ref, "type", "name", "uri")
    kind = ref.get("type")
    if not isinstance(kind, str) or kind not in _REFERENCES or {"name", "uri"} <= ref.keys():
        raise _malformed("ref must be a ref/prompt with a name, or a ref/resource with a uri")
    return _REFERENCES[kind]


def _subscribed(notifications: Mapping[str, Any]) -> tuple[OperationCall, ...]:
    # Frameworks that accept a second name of the member (mcp 2) read both.
    _refuse_lookalikes(notifications, _SUBSCRIPTIONS)
    uris = notifications.get(_SUBSCRIPTIONS)
    if uris is None:
        return ()
    if not isinstance(uris, list) or len(uris) > MAX_NAMES:
        raise _malformed(f"{_SUBSCRIPTIONS} must be a list of at most {MAX_NAMES} URIs")
    named = (_usable(_SUBSCRIPTIONS, uri) for uri in uris)
    return tuple(OperationCall.sent("resource", uri, None, LISTEN) for uri in named)


def _member(params: Mapping[str, Any], member: str) -> Mapping[str, Any]:
    _refuse_lookalikes(params, member)
    value = params.get(member)
    if not isinstance(value, Mapping):
        raise _malformed(f"{member} must be an object")
    return value


def _refuse_lookalikes(members: Mapping[str, Any], *known: str) -> None:
    if not _UNLIKE.union(known).issuperset(members) and resembles(members, known):
        raise _malformed(
            f"Spell {', '.join(known)} exactly so, and send no other name that resembles it"
        )


def _malformed(message: str) -> MalformedMessageError:
    return MalformedMessageError(message, code=_INVALID_PARAMS)
