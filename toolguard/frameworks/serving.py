"""One message through a guarded server: from the door to the operation, and out again.

:func:`serve` stands around a message, :func:`run` around an operation where the framework has found
it. What runs is what was decided on; a success that was decided on nowhere is decided on, or
withheld, before it leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from toolguard.calls.message import Frame, Message, here, leave, refusal_in, stand
from toolguard.calls.request import SCOPE_KEY, RequestAuth, signed_in
from toolguard.calls.rows import State
from toolguard.errors import (
    AccessDeniedError,
    GuardNotConfiguredError,
    InvalidInputError,
    MalformedMessageError,
    ToolGuardError,
)
from toolguard.frameworks.lists import hides
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.http.identity import sdk_user
from toolguard.policies.operations import CALLS, Invocation, asked_of, is_handshake
from toolguard.policies.policy import DEFAULT_POLICIES, Policy
from toolguard.policies.published import LISTS

if TYPE_CHECKING:
    from toolguard.frameworks.adapter import Adapter

__all__ = ["ALTERED", "PAST_THE_DOOR", "Incoming", "outside", "run", "serve"]

ALTERED = (
    "The server was altered after protect(), so that it would go on unguarded: replace handlers "
    "and managers before protect(), or register with the server's own methods"
)
PAST_THE_DOOR = (
    "This HTTP request came past the guard: serve the application that the protected server "
    "builds, or write guard.protect_app(app, server) around one that you have built"
)


@dataclass(slots=True)
class Incoming:
    """One message on its way to the framework.

    Attributes:
        request: the Starlette request that carried it, None where there is no HTTP.
        method: the JSON-RPC method.
        params: its parameters, not validated.
        serve: hands the message on to the framework.
        is_error: whether what the framework made of it reports an error.
        to_json: the result as JSON.
        from_json: the framework's own again, after one that it made.
        message_id: the JSON-RPC id.
        is_current: whether the message at hand is still this one.
        is_public: whether the result says that it may be kept for others (2026-07-28).
        goes_on: whether the result says that the call goes on in the background.
    """

    request: Any
    method: str
    params: Mapping[str, Any]
    serve: Callable[[], Awaitable[Any]]
    is_error: Callable[[Any], bool]
    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[Any, dict[str, Any]], Any]
    message_id: str | int | None = None
    is_current: Callable[[], bool] = lambda: True
    is_public: Callable[[Any], bool] = lambda _: False
    goes_on: Callable[[Any], bool] = lambda _: False

    @property
    def meta(self) -> object:
        """The ``_meta`` of the message, as the framework has it."""
        return self.params.get("_meta")


async def serve(adapter: Adapter, guard: ServerGuard, incoming: Incoming) -> Any:
    """Serve one message under ``guard`` and return its result.

    Raises:
        ToolGuardError: the refusal that the message ended in.
        Exception: what the framework raised, if that was no refusal.
    """
    auth = await _auth_of(guard, incoming)
    outer = here()
    message = Message(auth, outer, incoming.is_current)
    frame = Frame(guard, message)
    refusal: ToolGuardError | None
    goes_on = False
    user, before = sdk_user.set(None if auth is None else auth.user), stand(frame)
    try:
        if incoming.request is None:  # where there is no door that asks
            _check_intact(adapter)
        result = await _answer(adapter, frame, incoming)
        goes_on = incoming.goes_on(result)
    except BaseException as error:
        refusal = refusal_in(error) or (message.refusal if isinstance(error, Exception) else None)
        if refusal is None:
            raise
    else:
        return result
    finally:
        leave(before)
        sdk_user.reset(user)
        message.closed = not goes_on
    if auth is not None and outer is None:
        auth.refusal = refusal
    raise refusal from None


def _check_intact(adapter: Adapter) -> None:
    """Make sure that the server is still the one that was protected.

    Raises:
        GuardNotConfiguredError: if something has been put in place of what the guard stands in.
    """
    if not adapter.is_intact():
        raise GuardNotConfiguredError(ALTERED)


async def _auth_of(guard: ServerGuard, incoming: Incoming) -> RequestAuth | None:
    """Return the caller of *this* message, never of the session's first."""
    if incoming.request is None:
        outer = here()
        if outer is not None:
            return outer.message.auth
        caller = signed_in.get()
        return await (guard.stdio_auth() if caller is None else caller.auth_for(guard))
    auth = incoming.request.scope.get(SCOPE_KEY)
    if not isinstance(auth, RequestAuth):
        return RequestAuth(None, None, guard, failure=GuardNotConfiguredError(PAST_THE_DOOR))
    auth.message_id = incoming.message_id
    if auth.user is not None:  # what the framework knows of its user is about this message
        incoming.request.scope["user"] = auth.user
    return auth


async def _answer(adapter: Adapter, door: Frame, incoming: Incoming) -> Any:
    """Return what the framework answers, if the caller may have it."""
    stand(await _admit(adapter, door, incoming))
    method, message = incoming.method, door.message
    is_call = method in CALLS
    try:
        result = await incoming.serve()
    except Exception:
        if is_call and not message.rows:
            await _ask_to_sign_in(door)
        raise
    finally:
        stand(door)
    if incoming.is_error(result):
        if message.refusal is not None:
            raise message.refusal
        if is_call and not message.rows:
            await _ask_to_sign_in(door)
        return result
    is_public = incoming.is_public(result)
    if is_call and not message.is_permitted:
        await _settle(adapter, door, incoming, result)
    if is_public or method in LISTS:
        return await _publish(adapter, door, incoming, result)
    return result


async def _ask_to_sign_in(door: Frame) -> None:
    """Refuse a caller without a token who asked for what is not there.

    Raises:
        ToolGuardError: that an access token is needed.
    """
    if DEFAULT_POLICIES[door.guard.default] != Policy(public=True):
        await door.enter(Policy(), _unnamed()).authorize(None)


def _unnamed() -> Invocation:
    return Invocation("tool", "")


async def _admit(adapter: Adapter, door: Frame, incoming: Incoming) -> Frame:
    """Decide on what does not wait for the framework to find it; return the frame to serve in.

    Raises:
        ToolGuardError: if the caller may not send this message.
    """
    method = incoming.method
    if is_handshake(method):
        return door
    if method in LISTS:  # open to all where something is
        frame = door.enter(Policy(public=adapter.admits_anonymous), _unnamed())
        await frame.authorize(None)
        return frame
    default = DEFAULT_POLICIES[door.guard.default]
    try:
        asked = asked_of(method, incoming.params)
    except MalformedMessageError:
        await door.enter(default or Policy(), _unnamed()).authorize(None)
        raise
    if not asked:
        frame = door.enter(default, _unnamed())
        await frame.authorize(None)
        return frame
    door.message.sent = asked[0]
    if method in CALLS and not adapter.decides_by_name:
        return door  # decided where the framework finds it
    frame = door
    for call in asked:
        await anyio.lowlevel.checkpoint()  # others get their turn
        frame = await _decide_by_name(adapter, door, call, incoming)
    return frame


async def _decide_by_name(
    adapter: Adapter, door: Frame, call: Invocation, incoming: Incoming
) -> Frame:
    """Decide on what a message names, without the framework's look-up behind it.

    Raises:
        ToolGuardError: if the caller may not do it, or no operation and no rule has that name.
        Exception: the framework's own error for what is not there, if it is hidden.
    """
    found = await adapter.find(call.kind, call.name, incoming.meta)
    if found is None and not adapter.has_rule(call.kind, call.name):
        await _ask_to_sign_in(door)
        raise adapter.unknown(call.kind, call.name)
    resolved = adapter.resolve(found or Operation(call.kind, call.name, None))
    frame = door.enter(None, call, resolved.owner)
    try:
        frame.entered.policy = adapter.policy_for(resolved, call.name)
        await frame.authorize(call if incoming.method in CALLS else None)
    except ToolGuardError as refusal:
        if hides(door, refusal):
            raise adapter.unknown(call.kind, call.name) from None
        raise
    if frame.entered.state is State.NEEDS_ARGUMENTS:
        raise AccessDeniedError(rule="only a call has the arguments that the rule reads")
    return frame


async def run(
    adapter: Adapter,
    operation: Operation,
    arguments: Mapping[str, Any],
    proceed: Callable[[], Awaitable[Any]],
    unknown: Callable[[], Awaitable[Any]],
) -> Any:
    """Run an operation that the framework has found, if the caller may.

    Args:
        adapter: the server.
        operation: what the framework is about to run.
        arguments: what it gives to it, not validated.
        proceed: runs it.
        unknown: what the framework does for an operation that is not there.

    Raises:
        Exception: the refusal, as this framework lets one through; or what the operation raised.
    """
    guard, resolved, door = adapter.required_guard, adapter.resolve(operation), here()
    if door is None:
        door = await outside(guard)
    elif door.guard is not guard:  # one server calls another in the process
        door = Frame(guard, door.message, door.row)
    sent = door.message.sent if door.row is None else None
    call = Invocation(operation.kind, sent.name if sent else operation.name, arguments)
    frame = door.enter(resolved.policy, call, resolved.owner)
    row, before = frame.entered, stand(frame)
    try:
        if resolved.fault or operation.kind == "resource" or call.name != operation.name:
            row.policy = adapter.policy_for(resolved, sent.name if sent else None)
        reads_call = row.policy is not None and row.policy.reads_call
        if reads_call and resolved.owner is None:
            _check_listed(operation, call)
        # The wrapper decides on the arguments that the framework has validated.
        await frame.authorize(None if reads_call and resolved.owner else call)
        return await proceed()
    except Exception as error:
        if not row.concluded:
            row.ended(refusal_in(error, adapter.error_types))
        if row.refusal is None:
            raise
        refusal = row.refusal
    finally:
        leave(before)
    if row.state is not State.PERMITTED and not row.nested and hides(door, refusal):
        row.ended(None)
        return await unknown()
    raise adapter.refusal_error(refusal, nested=row.nested)


async def outside(guard: ServerGuard) -> Frame:
    """Return the frame of code of the user's that calls a server outside of a message.

    The caller is the one who is signed in here; without one the call is refused.
    """
    caller = signed_in.get()
    return Frame(guard, Message(None if caller is None else await caller.auth_for(guard)))


def _check_listed(operation: Operation, call: Invocation) -> None:
    """Make sure that a rule reads what the function is given.

    The SDK drops the arguments that a tool does not list, unless pydantic knows them as another
    name of one that it does.

    Raises:
        InvalidInputError: if an argument is sent that the tool does not list.
    """
    schema = operation.parameters
    if schema is None or schema.get("additionalProperties"):
        return
    if not call.arguments.keys() <= schema.get("properties", {}).keys():
        raise InvalidInputError("Send no arguments that the tool does not list")


async def _settle(adapter: Adapter, door: Frame, incoming: Incoming, result: Any) -> None:
    """Make sure that a success leaves only if its own operation was permitted.

    Raises:
        ToolGuardError: if it was not.
    """
    message = door.message
    if message.needs_arguments:
        if incoming.to_json(result).get("resultType") != "input_required":
            raise AccessDeniedError(rule="an answer without a decision on its arguments")
        # What a tool depends on may have questions (``Resolve`` of mcp 2) before its own wrapper
        # has heard of the call; once they are answered, it decides on what the tool is given.
        last = message.rows[-1]
        await door.enter(last.policy, last.call).authorize(last.call)
        return
    if message.rows:  # refused, and something answered all the same
        raise message.refusal or AccessDeniedError(rule="an answer after a refusal")
    sent = message.sent
    if sent is not None:  # something answered by itself, such as a cache
        row = (await _decide_by_name(adapter, door, sent, incoming)).entered
        if row.owner is not None and row.policy is not None and row.policy.reads_call:
            raise AccessDeniedError(rule="an answer without a decision on its arguments")


async def _publish(adapter: Adapter, door: Frame, incoming: Incoming, result: Any) -> Any:
    """Return what the server answers as it may go out."""
    is_list = incoming.method in LISTS
    is_too_public = incoming.is_public(result) and not _is_for_all(door, is_list=is_list)
    if not is_list and not is_too_public:
        return result
    as_json = incoming.to_json(result)
    if is_list:
        as_json = await adapter.edit_list(door, incoming.method, as_json)
    if is_too_public:
        as_json["cacheScope"] = "private"
    return incoming.from_json(result, as_json)


def _is_for_all(door: Frame, *, is_list: bool) -> bool:
    """Return whether every caller gets the same answer, and would be given it."""
    if is_list:
        return door.guard.unauthorized_tools == "show"
    policies = [row.policy for row in door.message.rows]
    return all(policy is not None and policy.public for policy in policies)
