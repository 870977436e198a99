"""Serve one message through a guarded server.

:func:`serve` is called around a message, :func:`run` around an operation where the framework has
found it. What runs is what was decided on; a success without a decision is decided on, or withheld,
before it is sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from toolguard.calls.message import Frame, MessageContext, here, make_current, refusal_in, restore
from toolguard.calls.recording import message_records, row_record
from toolguard.calls.request import SCOPE_KEY, RequestAuth, signed_in
from toolguard.calls.rows import Row, State
from toolguard.errors import (
    AccessDeniedError,
    GuardNotConfiguredError,
    InvalidInputError,
    InvalidTokenError,
    MalformedMessageError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.frameworks.lists import hides
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.http.expiry import seconds_left
from toolguard.http.identity import sdk_user, telling_stranger
from toolguard.http.jsonrpc import OverloadedError
from toolguard.policies.operations import (
    CALLS,
    COMPLETE,
    LISTEN,
    OperationCall,
    is_handshake,
    named_operations,
)
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

# Open subscriptions of one caller; mcp 2 allows 1,024 of all callers.
_MAX_STREAMS = 100


@dataclass(slots=True)
class Incoming:
    """One message to the framework.

    Attributes:
        request: the Starlette request that carried it; None without HTTP.
        method: the JSON-RPC method.
        params: its parameters, not validated.
        serve: passes the message on to the framework.
        is_error: returns whether a result of the framework reports an error.
        to_json: returns a result as JSON values.
        from_json: returns JSON values as a result of the framework's class.
        message_id: the JSON-RPC id.
        is_current: returns whether the message being processed is still this one; None if no other
            can be.
        is_public: returns whether a result may be cached for other callers (2026-07-28); None if
            no result may.
        goes_on: returns whether a result says that the call continues in the background; None if
            no call does.
    """

    request: Any
    method: str
    params: Mapping[str, Any]
    serve: Callable[[], Awaitable[Any]]
    is_error: Callable[[Any], bool]
    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[Any, dict[str, Any]], Any]
    message_id: str | int | None = None
    is_current: Callable[[], bool] | None = None
    is_public: Callable[[Any], bool] | None = None
    goes_on: Callable[[Any], bool] | None = None

    @property
    def meta(self) -> object:
        """The ``_meta`` of the message, as the framework's object."""
        return self.params.get("_meta")


async def serve(adapter: Adapter, guard: ServerGuard, incoming: Incoming) -> Any:
    """Serve one message under ``guard`` and return its result.

    Raises:
        ToolGuardError: the refusal that the message ended in.
        Exception: as raised by the framework, if it is not a refusal.
    """
    outer = here()
    if incoming.request is None:
        auth = await _auth_in_process(guard, outer)
    else:
        auth = _auth_of_request(guard, incoming)
    message = MessageContext(auth, outer, incoming.is_current)
    message.method, message.request_id = incoming.method, incoming.message_id
    frame = Frame(guard, message)
    refusal: ToolGuardError | None = None
    goes_on = False
    user, before = sdk_user.set(None if auth is None else auth.user), make_current(frame)
    guard.running.add(message)
    try:
        if incoming.request is None:  # no middleware has asked
            _check_intact(adapter)
        result = await _answer(adapter, frame, incoming)
        goes_on = incoming.goes_on is not None and incoming.goes_on(result)
    except BaseException as error:
        refusal = refusal_in(error) or (message.refusal if isinstance(error, Exception) else None)
        if refusal is None:
            message.failure = type(error).__name__
            raise
    else:
        return result
    finally:
        restore(before)
        sdk_user.reset(user)
        message.closed = not goes_on
        guard.running.discard(message)
        if guard.recorder.wanted():
            guard.recorder.put(message_records(guard, message, refusal))
    if auth is not None and outer is None:
        auth.refusal = refusal
    raise refusal from None


def _check_intact(adapter: Adapter) -> None:
    """Check that the hooks of the guard are still in place.

    Raises:
        GuardNotConfiguredError: if one of them has been replaced.
    """
    if not adapter.is_intact():
        raise GuardNotConfiguredError(ALTERED)


async def _auth_in_process(guard: ServerGuard, outer: Frame | None) -> RequestAuth | None:
    """Return the caller of a message that came without an HTTP request."""
    if outer is not None:
        return outer.message.auth
    caller = signed_in.get()
    return await (guard.stdio_auth() if caller is None else caller.auth_for(guard))


def _auth_of_request(guard: ServerGuard, incoming: Incoming) -> RequestAuth:
    """Return the caller of *this* message, never that of the message that opened the session."""
    auth = incoming.request.scope.get(SCOPE_KEY)
    if not isinstance(auth, RequestAuth):
        return RequestAuth(None, None, guard, failure=GuardNotConfiguredError(PAST_THE_DOOR))
    auth.message_id = incoming.message_id
    if auth.user is not None:  # the framework's user is the one of this message
        incoming.request.scope["user"] = auth.user
    return auth


async def _answer(adapter: Adapter, door: Frame, incoming: Incoming) -> Any:
    """Return the framework's answer, if the caller is permitted."""
    frame = await _admit(adapter, door, incoming)
    method, message = incoming.method, door.message
    is_call = method in CALLS
    is_about_task = method.startswith("tasks/") and "taskId" in incoming.params
    is_foreign = is_about_task and await adapter.is_foreign_task(door, incoming.params)
    make_current(frame)
    try:
        if is_foreign:
            # The framework then answers for another caller's task as for an unknown one.
            with telling_stranger(incoming.request):
                result = await incoming.serve()
        elif method == LISTEN:
            result = await _listen(adapter, door, incoming)
        else:
            result = await incoming.serve()
    except Exception:
        if is_call and not message.rows:
            await _ask_to_sign_in(door)
        raise
    finally:
        make_current(door)
    if incoming.is_error(result):
        if message.refusal is not None:
            raise message.refusal
        if is_call and not message.rows:
            await _ask_to_sign_in(door)
        message.failure = "an error result"
        return result
    is_public = incoming.is_public is not None and incoming.is_public(result)
    if is_call and not message.is_permitted:
        await _settle(adapter, door, incoming, result)
    if is_public or method in LISTS:
        return await _publish(adapter, door, incoming, result, is_public=is_public)
    return result


async def _listen(adapter: Adapter, door: Frame, incoming: Incoming) -> Any:
    """Serve a stream of notifications until its token expires.

    Raises:
        InvalidTokenError: when it has expired; the client then listens with a new one.
        OverloadedError: if the caller has too many: the framework limits those of all callers.
    """
    guard, principal = door.guard, await door.message.principal(door.guard)
    running = [each.auth for each in adapter.required_guard.running if each.method == LISTEN]
    owner = None if principal is None else principal.owner_key
    owners = [each.principal and each.principal.owner_key for each in running if each is not None]
    if owners.count(owner) > _MAX_STREAMS:
        raise OverloadedError("This caller has too many subscriptions open: end one")
    with anyio.move_on_after(seconds_left(guard, principal)):
        return await incoming.serve()
    raise InvalidTokenError("expired", "The access token has expired")


async def _ask_to_sign_in(door: Frame) -> None:
    """Refuse a caller without a token who requests an unknown operation.

    Raises:
        ToolGuardError: if an access token is needed.
    """
    if door.guard.default != "public":
        await door.enter(Policy(), _unnamed()).authorize(None)


def _as_unknown(door: Frame, refusal: ToolGuardError) -> ToolGuardError | None:
    """Return the refusal of an unknown operation; None to raise the framework's error.

    Args:
        door: the frame of the message, outside of operations.
        refusal: the refusal of an operation whose existence is hidden from the caller.
    """
    if door.guard.default == "public" or not isinstance(refusal, MissingTokenError):
        return None
    return MissingTokenError(str(refusal))


def _unnamed() -> OperationCall:
    return OperationCall("tool", "")


async def _admit(adapter: Adapter, door: Frame, incoming: Incoming) -> Frame:
    """Decide on messages that the framework does not look up; return the frame to serve in.

    Raises:
        ToolGuardError: if the caller may not send this message.
    """
    method = incoming.method
    is_call = method in CALLS
    if not is_call and is_handshake(method):
        return door
    if method in LISTS:  # open to all callers if some operation is public
        frame = door.enter(Policy(public=adapter.admits_anonymous), _unnamed())
        await frame.authorize(None)
        return frame
    default = DEFAULT_POLICIES[door.guard.default]
    try:
        asked = named_operations(method, incoming.params)
    except MalformedMessageError:
        await door.enter(default or Policy(), _unnamed()).authorize(None)
        raise
    if not asked:
        frame = door.enter(default, _unnamed())
        await frame.authorize(None)
        return frame
    door.message.sent = asked[0]
    if is_call and not adapter.decides_by_name:
        return door  # decided where the framework finds it
    frame = door
    for call in asked:
        await anyio.lowlevel.checkpoint()  # let other tasks run
        frame = await _decide_by_name(adapter, door, call, incoming)
    return frame


async def _decide_by_name(
    adapter: Adapter, door: Frame, call: OperationCall, incoming: Incoming
) -> Frame:
    """Decide on the operation that a message names, without a look-up of the framework.

    Raises:
        ToolGuardError: if the caller is refused, or no operation and no rule has that name.
        Exception: the framework's own error for an unknown operation, if it is hidden.
    """
    find = adapter.find_completed if incoming.method == COMPLETE else adapter.find
    found = await find(call.kind, call.name, incoming.meta)
    if found is None and not adapter.has_rule(call.kind, call.name):
        await _ask_to_sign_in(door)
        raise adapter.unknown(call.kind, call.name)
    resolved = adapter.resolve(found or Operation(call.kind, call.name, None))
    frame = door.enter(None, call, resolved.owner)
    frame.entered.label = None if found is None else found.name
    try:
        policy = frame.entered.policy = adapter.policy_for(resolved, call.name)
        reads_arguments = policy is not None and policy.reads_arguments
        is_known = incoming.method in CALLS or not reads_arguments
        await frame.authorize(call if is_known else None)
    except ToolGuardError as refusal:
        if not hides(door, refusal):
            raise
        raise _as_unknown(door, refusal) or adapter.unknown(call.kind, call.name) from None
    if frame.entered.state is State.NEEDS_ARGUMENTS:
        raise AccessDeniedError(rule="the rule reads arguments, which only a call has")
    return frame


async def run(
    adapter: Adapter,
    operation: Operation,
    arguments: Mapping[str, Any],
    proceed: Callable[[], Awaitable[Any]],
    unknown: Callable[[], Awaitable[Any]],
    validated: Callable[[], Mapping[str, Any]] | None = None,
) -> Any:
    """Run an operation that the framework has found, if the caller is permitted.

    Args:
        adapter: the server.
        operation: the operation that the framework is about to run.
        arguments: its arguments, not validated.
        proceed: runs it.
        unknown: does what the framework does for an unknown operation.
        validated: returns the validated arguments, if the function is only queued, so that no
            wrapper decides on them now.

    Raises:
        Exception: the refusal, in the form that this framework passes on; or as raised by the
            operation.
    """
    guard, resolved = adapter.required_guard, adapter.resolve(operation)
    door = here() or await outside(guard)
    if door.guard is not guard:  # one server calls another in this process
        door = Frame(guard, door.message, door.row)
    sent = door.message.sent if door.row is None else None
    call = OperationCall(operation.kind, sent.name if sent else operation.name, arguments)
    frame = door.enter(resolved.policy, call, resolved.owner)
    row, before = frame.entered, make_current(frame)
    row.label = operation.name
    row.own = call.name in (operation.name, *operation.other_names, arguments.get("uri"))
    failure: str | None = "CancelledError"  # unless it ends otherwise
    try:
        if resolved.fault or operation.kind == "resource" or call.name != operation.name:
            row.policy = adapter.policy_for(resolved, sent.name if sent else None)
        reads_arguments = row.policy is not None and row.policy.reads_arguments
        if reads_arguments and resolved.owner is None:
            _check_listed(operation, call)
        # The wrapper decides, on the arguments that the framework has validated.
        await frame.authorize(None if reads_arguments and resolved.owner else call)
        if validated is not None and row.state is State.NEEDS_ARGUMENTS:
            await frame.authorize(replace(call, arguments=validated()), approving="check")
        result = await proceed()
        failure = None
        return result  # noqa: TRY300 - an `else` would be one branch too many
    except Exception as error:
        if not row.concluded:
            row.ended(refusal_in(error, adapter.error_types))
        if row.refusal is None:
            failure = type(error).__name__
            raise
        refusal = row.refusal
    finally:
        restore(before)
        _record_apart(frame, row, failure)
    if row.state is not State.PERMITTED and not row.nested and hides(door, refusal):
        stranger = _as_unknown(door, refusal)
        row.ended(stranger)
        if stranger is None:
            return await unknown()
        refusal = stranger
    raise adapter.refusal_error(refusal, nested=row.nested)


def _record_apart(frame: Frame, row: Row, failure: str | None) -> None:
    """Record an operation that no message records when it has ended."""
    is_apart = row.nested or frame.message.method is None
    if is_apart and frame.guard.recorder.wanted():
        frame.guard.recorder.put([row_record(frame.guard, frame.message, row, failure)])


async def outside(guard: ServerGuard) -> Frame:
    """Return the frame for code of the user's that calls a server outside of a message.

    The caller is the signed-in one (set by a test); without one the call is refused.
    """
    caller = signed_in.get()
    return Frame(guard, MessageContext(None if caller is None else await caller.auth_for(guard)))


def _check_listed(operation: Operation, call: OperationCall) -> None:
    """Check that a rule reads the same arguments as the function.

    The SDK drops arguments that a tool does not declare, unless they are pydantic aliases of
    declared ones.

    Raises:
        InvalidInputError: if the client sent an argument that the tool does not declare.
    """
    schema = operation.parameters
    if schema is None or schema.get("additionalProperties"):
        return
    if not call.arguments.keys() <= schema.get("properties", {}).keys():
        raise InvalidInputError("Send only arguments that the tool lists")


async def _settle(adapter: Adapter, door: Frame, incoming: Incoming, result: Any) -> None:
    """Check that a success is sent only if the message's own operation was permitted.

    Raises:
        ToolGuardError: if it was not permitted.
    """
    message = door.message
    if message.needs_arguments:
        if incoming.to_json(result).get("resultType") != "input_required":
            raise AccessDeniedError(rule="an answer without a decision on its arguments")
        # The dependencies of a tool may ask questions (``Resolve`` of mcp 2) before its own wrapper
        # gets the call; once they are answered, it decides on the arguments of the tool.
        last = message.rows[-1]
        await door.enter(last.policy, last.call, last.owner).authorize(last.call, approving="skip")
        return
    rows, own, sent = message.rows, message.own_row, message.sent
    if rows and {row.state for row in filter(None, (own, rows[-1]))} != {State.PERMITTED}:
        # refused, but answered nevertheless
        refused = next((row.refusal for row in reversed(rows) if row.refusal is not None), None)
        if refused is None and sent is not None and door.guard.unauthorized_tools != "show":
            raise adapter.unknown(sent.kind, sent.name)  # it was hidden
        raise refused or AccessDeniedError(rule="an answer after a refusal")
    if own is not None:
        return
    if rows and sent is not None and await _is_of(rows, adapter, sent, incoming):
        return
    if sent is not None:  # answered without a look-up, such as by a cache
        row = (await _decide_by_name(adapter, door, sent, incoming)).entered
        if row.owner is not None and row.policy is not None and row.policy.reads_arguments:
            raise AccessDeniedError(rule="an answer without a decision on its arguments")


async def _is_of(
    rows: Sequence[Row], adapter: Adapter, sent: OperationCall, incoming: Incoming
) -> bool:
    """Return whether one of ``rows`` is what a message names, or nothing else has that name.

    A middleware may call other operations, before a cache answers, or instead of an alias.
    """
    found = await adapter.find(sent.kind, sent.name, incoming.meta)
    if found is None:
        return not adapter.has_rule(sent.kind, sent.name)
    return any(row.call.kind == sent.kind and row.label in found.names for row in rows)


async def _publish(
    adapter: Adapter, door: Frame, incoming: Incoming, result: Any, *, is_public: bool
) -> Any:
    """Return the server's answer as it may be sent to the caller."""
    is_list = incoming.method in LISTS
    is_too_public = is_public and not _is_for_all(door, is_list=is_list)
    if not is_list and not is_too_public:
        return result
    as_json = incoming.to_json(result)
    if is_list:
        as_json = await adapter.edit_list(door, incoming.method, as_json)
    if is_too_public:
        as_json["cacheScope"] = "private"
    return incoming.from_json(result, as_json)


def _is_for_all(door: Frame, *, is_list: bool) -> bool:
    """Return whether every caller is permitted to get, and gets, the same answer."""
    if is_list:
        return door.guard.unauthorized_tools == "show"
    policies = [row.policy for row in door.message.rows]
    return all(policy is not None and policy.public for policy in policies)
