"""Refuse a call of a tool before the framework works on it.

Nothing is permitted here: a message that is not refused goes on with the bytes that were read, and
is decided on where the framework finds the operation. What is refused here would be refused there,
by the same policy and with the same answer; so everything unusual is left to the framework.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, NoReturn

from starlette.types import Message, Receive, Scope

from toolguard.calls.message import caller_of
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import AccessDeniedError, MalformedMessageError
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.serving import Incoming, run, serve
from toolguard.http.jsonrpc import MCPMessage, read_message
from toolguard.policies.decision import decide_now

if TYPE_CHECKING:
    from toolguard.frameworks.adapter import Adapter

__all__ = ["refuse_early"]

# Parsing a longer body would cost more than refusing early saves.
_MAX_BODY = 16_384
_MAX_EVENTS = 16
# From this revision, these headers repeat the body; the framework refuses a call without them.
_MIRRORING = "2026-07-28"
_MIRRORED = {b"mcp-method", b"mcp-name"}


async def refuse_early(
    adapter: Adapter, guard: ServerGuard, scope: Scope, receive: Receive
) -> Receive:
    """Refuse a request that calls a tool, if it is certain that its caller lacks a scope.

    Args:
        adapter: the server.
        guard: its guard.
        scope: the ASGI scope of the request.
        receive: the ASGI ``receive``.

    Returns:
        The ``receive`` for the framework, which returns first what has been read here.

    Raises:
        ToolGuardError: the refusal, which is recorded.
    """
    auth: RequestAuth = scope[SCOPE_KEY]
    if auth.principal is None or auth.guard is not guard or scope["method"] != "POST":
        return receive
    if adapter.scopes_named <= guard.scope_hierarchy.expand(auth.principal.scopes):
        return receive
    events = await _first_events(receive)
    body = b"".join(event.get("body", b"") for event in events)
    is_whole = events[-1]["type"] == "http.request" and not events[-1].get("more_body", False)
    name = _called_in(body, scope["headers"], auth.revision) if is_whole else None
    operation = None if name is None else adapter.find_early(name)
    is_known = operation is not None and operation.name == name
    if operation is not None and is_known and _is_refused(adapter, guard, auth, operation):
        with suppress(MalformedMessageError):  # the framework answers with its own error
            message = read_message(body, scope["headers"])
            await _refuse(adapter, guard, scope, message, operation)
    return _again(events, receive)


async def _first_events(receive: Receive) -> list[Message]:
    """Return the events of a short body, or those up to where a body is too long."""
    events: list[Message] = []
    left, more = _MAX_BODY, True
    while more and left >= 0 and len(events) < _MAX_EVENTS:
        event = await receive()
        events.append(event)
        left -= len(event.get("body", b""))
        more = event["type"] == "http.request" and event.get("more_body", False)
    return events


def _called_in(
    body: bytes, headers: Iterable[tuple[bytes, bytes]], revision: str | None
) -> str | None:
    """Return the name of the tool that a body calls; None if it seems to call none."""
    if len(body) > _MAX_BODY:
        return None
    is_mirroring = revision is not None and revision >= _MIRRORING
    if is_mirroring and not {name for name, _ in headers} >= _MIRRORED:
        return None
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("method") != "tools/call":
        return None
    params = message.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    return name if isinstance(name, str) and message.get("id") is not None else None


def _is_refused(
    adapter: Adapter, guard: ServerGuard, auth: RequestAuth, operation: Operation
) -> bool:
    """Return whether this caller may never do this operation, and learns it by an HTTP status."""
    resolved = adapter.resolve(operation)
    if resolved.fault is not None or guard.unauthorized_tools != "show":
        return False
    decision = decide_now(resolved.policy, caller_of(guard, auth.principal, auth))
    if decision is None or decision.refusal is None:
        return False
    return guard.door.refusals.status_of(decision.refusal, auth.revision) is not None


async def _refuse(
    adapter: Adapter,
    guard: ServerGuard,
    scope: Scope,
    message: MCPMessage,
    operation: Operation,
) -> NoReturn:
    """Decide on the operation as where the framework finds it, and raise its refusal.

    Raises:
        ToolGuardError: the refusal.
    """
    (call,) = message.asked
    deciding = functools.partial(run, adapter, operation, call.arguments, _never, _never)
    incoming = Incoming(
        SimpleNamespace(scope=scope),
        "tools/call",
        message.params,
        deciding,
        is_error=bool,
        to_json=dict,
        from_json=lambda result, _: result,
        message_id=message.id,
    )
    await serve(adapter, guard, incoming)
    await _never()


async def _never() -> NoReturn:
    raise AccessDeniedError(rule="refused before the framework was asked")


def _again(events: Sequence[Message], receive: Receive) -> Receive:
    """Return a ``receive`` that returns ``events`` again, and then those of ``receive``."""
    pending = list(reversed(events))

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
