"""What does a message ask for, and may its caller have it?

The decision is made before the framework does anything: one that answers by itself, out of a
cache for instance, asks nobody. The function's own wrapper decides again.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolguard.calls.context import Call
from toolguard.calls.request import RequestAuth
from toolguard.errors import (
    AccessDeniedError,
    GuardNotConfiguredError,
    InvalidInputError,
    ToolGuardError,
)
from toolguard.frameworks.operation import Operation
from toolguard.parsing.spellings import MAX_LENGTH, uri_spellings
from toolguard.policies.by_name import OperationRules
from toolguard.policies.operations import Invocation, Kind
from toolguard.policies.policy import Policy

if TYPE_CHECKING:
    from toolguard.frameworks.adapter import Adapter

__all__ = ["admit", "admit_question", "is_for_anybody", "operations_of"]

# The methods that lead to a function of the user's, and the parameter that says to which.
_CALLS: Mapping[str, tuple[Kind, str]] = {
    "tools/call": ("tool", "name"),
    "resources/read": ("resource", "uri"),
    "prompts/get": ("prompt", "name"),
}
# Those that are about a resource, without calling its function.
_SUBSCRIPTIONS = frozenset({"resources/subscribe", "resources/unsubscribe"})
# 2026-07-28: the same for several resources at once. mcp 2.x reads the member by both names.
_LISTEN = "subscriptions/listen"
_LISTENED = ("resourceSubscriptions", "resource_subscriptions")
_COMPLETE = "completion/complete"


async def admit(adapter: Adapter, call: Call, method: str, params: Mapping[str, Any]) -> None:
    """Hold a message against the guards of what it asks for.

    Args:
        adapter: the server.
        call: the message.
        method: its JSON-RPC method.
        params: its parameters, not validated.

    Raises:
        ToolGuardError: if the operation's policy, or the default of the server for one that
            carries no guard, does not let this caller do it.
    """
    asked = tuple(operations_of(method, params))
    if not asked:
        await call.admit_undeclared(method)
    for invocation in asked:
        call.operation = invocation
        await _decide(adapter, call, method, invocation)
        if call.is_undecided and method not in _CALLS:
            raise AccessDeniedError(rule="only a call has the arguments that the rule reads")


async def admit_question(adapter: Adapter, call: Call) -> None:
    """Decide on the arguments that were sent whether the caller may be asked for more.

    What a tool depends on may have questions (``Resolve`` of mcp 2) before its own guard has
    heard of the call; once they are answered, the guard decides on what the tool is given.

    Args:
        adapter: the server.
        call: the message, which the server has answered with a question.

    Raises:
        Exception: the refusal, as the framework's own, if the caller may not make the call.
    """
    asked = call.operation
    if asked is None:
        return
    try:
        declared = (await _find(adapter, asked, call.meta)).declared
        if declared is not None:
            await call.authorize(declared, asked)
    except ToolGuardError as refusal:
        raise call.refuse(refusal) from None


async def is_for_anybody(
    adapter: Adapter, call: Call, method: str, params: Mapping[str, Any]
) -> bool:
    """Return whether somebody without a token may send a message, too."""
    stranger = Call(call.guard, RequestAuth(None, None, call.guard), meta=call.meta)
    try:
        await admit(adapter, stranger, method, params)
    except ToolGuardError:
        return False
    return True


def operations_of(method: str, params: Mapping[str, Any]) -> Iterator[Invocation]:
    """Yield the operations that a message is about; none for a message about the server."""
    if method in _CALLS:
        kind, key = _CALLS[method]
        if params.get(key):
            yield Invocation.sent(kind, str(params[key]), params.get("arguments"))
    elif method in _SUBSCRIPTIONS:
        yield Invocation.sent("resource", str(params.get("uri")))
    elif method == _LISTEN:
        asked = _member(params, "notifications")
        lists = [asked[name] for name in _LISTENED if isinstance(asked.get(name), list)]
        for uri in (uri for uris in lists for uri in uris):
            yield Invocation.sent("resource", str(uri))
    elif method == _COMPLETE:  # what completes an argument tells what the operation knows
        ref = _member(params, "ref")
        if ref.get("name"):
            yield Invocation.sent("prompt", str(ref["name"]))
        if ref.get("uri"):
            yield Invocation.sent("resource", str(ref["uri"]))


def _member(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is an object: as it was sent, or as mcp 1.x has parsed it."""
    value = params.get(name)
    return value if isinstance(value, Mapping) else getattr(value, "__dict__", {})


async def _decide(adapter: Adapter, call: Call, method: str, invocation: Invocation) -> None:
    operation = await _find(adapter, invocation, call.meta)
    declared = operation.declared
    # What its decorators say is decided on beside the rules, and not instead of them.
    otherwise = call.default_policy if declared is None else Policy(public=declared.public)
    try:
        ruled = _ruled(adapter.rules, operation, invocation.name, otherwise)
        whole = _both(ruled, declared) if ruled and declared else ruled or declared
    except ValueError as error:
        raise GuardNotConfiguredError(str(error)) from None
    if whole is None:
        await call.admit_undeclared(method)
    elif declared is None:
        # Nobody but the rules decides, on the arguments as they were sent.
        await call.authorize(whole, invocation)
    elif ruled is None or not whole.reads_call:
        await call.authorize(whole)
    else:
        await call.authorize(ruled, invocation)
        await call.authorize(declared)
    if ruled is not None and ruled.reads_call:
        _check_listed(operation, invocation)


def _check_listed(operation: Operation, invocation: Invocation) -> None:
    """Make sure that a rule has read what the function is given.

    The SDK drops the arguments that a tool does not list, unless pydantic knows them as another
    name of one that it does.
    """
    schema = operation.parameters
    if schema is None or schema.get("additionalProperties"):
        return
    if not invocation.arguments.keys() <= schema.get("properties", {}).keys():
        raise InvalidInputError("Send no arguments that the tool does not list")


@functools.lru_cache(maxsize=1_024)
def _both(ruled: Policy, declared: Policy) -> Policy:
    """Return what asks for both; worked out once, as alternatives multiply."""
    return ruled & declared


async def _find(adapter: Adapter, invocation: Invocation, meta: object) -> Operation:
    kind, name = invocation.kind, invocation.name
    found = await adapter.find(kind, name, meta) or Operation(kind, name, None)
    try:
        adapter.check_one(found)  # it may have been put in place of another one meanwhile
    except ValueError as error:
        raise GuardNotConfiguredError(str(error)) from None
    return found


def _ruled(
    rules: OperationRules, operation: Operation, sent: str, otherwise: Policy | None
) -> Policy | None:
    """Return what the rules say of an operation, by its own name and as it was asked for.

    Raises:
        AccessDeniedError: if nobody may do it under the name that was sent.
    """
    kind = operation.kind
    if len(sent) > MAX_LENGTH:  # of no operation, and costly to hold against every rule
        raise AccessDeniedError(rule=f"a name of more than {MAX_LENGTH} characters")
    listed = rules.policy(kind, operation.name)
    if kind != "resource":  # their names are looked up as they are
        return listed
    try:
        names = uri_spellings(sent)
    except ValueError:  # encoded over and over, to be read as something else
        raise AccessDeniedError(rule="a URI without a plain spelling") from None
    if listed is None and not any(rules.policy(kind, n, respelled=True) for n in names):
        return None
    found = rules.policy_of_all(kind, names, listed or otherwise)
    if found is None:
        raise AccessDeniedError(rule="default=deny")
    if listed is None or listed.public:
        return found
    return listed if found.public else listed & found
