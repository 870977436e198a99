"""What is asked about an MCP message: the default mapping of COAZ-MCP.

This implements the default mappings of "COAZ-MCP: COAZ Binding for the Model Context Protocol",
OpenID AuthZEN, draft 1 of 13 February 2026. Beyond the draft, ``subject.properties.issuer`` tells
users of several issuers apart, ``context.actor`` is the current actor (RFC 8693), and
``subscriptions/listen`` of MCP 2026-07-28 is asked about as ``resources/subscribe``, which it
replaces.

What differs from the draft, and why:

- Mappings that a tool declares in CEL (``x-authzen-mapping``) are not read: they need an evaluator
  of CEL at run time. A function of the developer's stands for them (``authzen(mapping=...)``), and
  its list of questions for the envelope ``evaluations``. No client is told of it in ``tools/list``.
- A denial of a tool is a result with ``isError``, as the draft allows. Elsewhere its code is
  ``-32003``: ``-32001`` is what the official TypeScript client means by a request that timed out.
- A question that cannot be asked is a denial and not ``-32602``, and a decision point that does not
  answer is "try again" and not ``-32603``: what clients are told does not depend on where a check
  decides. The decision record tells the three apart.
- The reason of a denial is recorded and not shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from toolguard.policies.operations import COMPLETE, Kind, OperationCall
from toolguard.principal import Principal

__all__ = ["Evaluation", "MappingError", "build_evaluations", "default_mapping", "without"]

Evaluation = dict[str, Any]
"""A request for one decision: subject, action, resource and context."""

_CALLS: Mapping[Kind, str] = {
    "tool": "tools/call",
    "resource": "resources/read",
    "prompt": "prompts/get",
}
_LISTEN, _SUBSCRIBE = "subscriptions/listen", "resources/subscribe"


class MappingError(ValueError):
    """No request can be made of a message, so it is refused."""


class _Target(NamedTuple):
    """The resource of a method.

    Attributes:
        kind: its type.
        member: the parameter with its id; None for the server itself.
        context: the parameters that go into the context, by their names there.
    """

    kind: str
    member: str | None = None
    context: Mapping[str, str] = {}


_SERVER = _Target("mcp_server")
_TASK = _Target("task", "taskId")
_RESOURCE = _Target("resource", "uri")
_TARGETS: Mapping[str, _Target] = {
    "initialize": _Target("mcp_server", None, {"protocol_version": "protocolVersion"}),
    "tools/list": _SERVER,
    "tools/call": _Target("tool", "name"),
    "resources/list": _SERVER,
    "resources/read": _RESOURCE,
    "resources/subscribe": _RESOURCE,
    "resources/unsubscribe": _RESOURCE,
    "prompts/list": _SERVER,
    "prompts/get": _Target("prompt", "name"),
    "logging/setLevel": _Target("mcp_server", None, {"level": "level"}),
    "tasks/get": _TASK,
    "tasks/result": _TASK,
    "tasks/cancel": _TASK,
    "tasks/list": _SERVER,
}
_REFERENCES = {"ref/prompt": _Target("prompt", "name"), "ref/resource": _RESOURCE}


def default_mapping(
    method: str, params: Mapping[str, Any], principal: Principal, server: str | None = None
) -> Evaluation | None:
    """Return what is asked about a message; None if nothing is asked and it passes.

    Args:
        method: the JSON-RPC method.
        params: its parameters.
        principal: the verified caller.
        server: the resource identifier of this server, for messages about the server.

    Raises:
        MappingError: if the method is unknown, or what is asked about is not there.

    >>> alice = Principal("alice", "https://auth.example.com", client_id="desktop")
    >>> asked = default_mapping("tools/call", {"name": "pay"}, alice)
    >>> asked["action"], asked["resource"]
    ({'name': 'tools/call'}, {'type': 'tool', 'id': 'pay'})
    """
    if method == "ping" or method.startswith("notifications/"):
        return None
    if method == COMPLETE:
        params = params.get("ref", {})
        target = _REFERENCES.get(str(params.get("type")))
    else:
        target = _TARGETS.get(method)
    if target is None:
        raise MappingError("no mapping for this method")
    found = server if target.member is None else params.get(target.member)
    if not isinstance(found, str) or not found:
        raise MappingError("the message does not name the operation")
    further = {name: params.get(member) for name, member in target.context.items()}
    return {
        **_caller(principal, further),
        "action": {"name": method},
        "resource": {"type": target.kind, "id": found},
    }


def build_evaluations(
    principal: Principal,
    call: OperationCall,
    mapping: Callable[[Principal, OperationCall], object] | None = None,
) -> Sequence[Evaluation]:
    """Return what is asked about a call of an operation: at least one question.

    Args:
        principal: the verified caller.
        call: the call, with no more arguments than ``mapping`` may read.
        mapping: returns the action, the resource or further context, instead of the default; or
            a list of these.

    Raises:
        MappingError: if no request can be made of it.
    """
    asked = _default_evaluation(principal, call)
    if mapping is None:
        return [asked]
    own = mapping(principal, call)
    several = own if isinstance(own, (list, tuple)) else [own]
    if not several:
        raise MappingError("a mapping must return at least one question")
    return [_replaced(asked, each, principal) for each in several]


def _default_evaluation(principal: Principal, call: OperationCall) -> Evaluation:
    method = call.method or _CALLS[call.kind]
    params: dict[str, Any] = {"uri" if call.kind == "resource" else "name": call.name}
    if method == COMPLETE:
        params = {"ref": {"type": f"ref/{call.kind}", **params}}
    asked = default_mapping(_SUBSCRIBE if method == _LISTEN else method, params, principal)
    assert asked is not None  # noqa: S101 - what names an operation does not pass
    return asked


def _replaced(asked: Evaluation, own: object, principal: Principal) -> Evaluation:
    if not isinstance(own, Mapping) or not own.keys() <= {"action", "resource", "context"}:
        raise MappingError("a mapping must return an object with action, resource and context only")
    context = own.get("context", {})
    if not isinstance(context, Mapping) or not context.keys().isdisjoint(asked["context"]):
        raise MappingError("the context of a mapping must be an object without agent and actor")
    return {**asked, **own, "context": {**context, **_caller(principal)["context"]}}


def without(arguments: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return ``arguments`` without members of these names, at any depth of objects and lists."""

    def kept(value: Any) -> Any:
        if isinstance(value, Mapping):
            return without(value, names)
        return [kept(each) for each in value] if isinstance(value, (list, tuple)) else value

    return {name: kept(value) for name, value in arguments.items() if name not in names}


def _caller(principal: Principal, further: Mapping[str, Any] | None = None) -> Evaluation:
    subject = principal.claims.get("sub", principal.user_id)
    if not isinstance(subject, str) or not subject:
        raise MappingError("the token has no sub")
    actor = principal.actor
    context = {
        "agent": principal.client_id,
        "actor": None if actor is None else actor.subject,
        **(further or {}),
    }
    return {
        "subject": {
            "type": "identity",
            "id": subject,
            "properties": {"issuer": principal.issuer},
        },
        "context": {name: value for name, value in context.items() if value is not None},
    }
