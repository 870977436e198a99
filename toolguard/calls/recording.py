"""Make the record of a decision from what is known about a message.

A record holds no token, no argument, and no text of an error. What a client chose itself, such as
the name of an unknown tool, is cut to a bounded length.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from toolguard.calls.message import MessageContext
from toolguard.calls.records import ApprovalVerdict, DecisionRecord, DecisionVerdict, GrantVerdict
from toolguard.calls.request import Guard
from toolguard.calls.rows import Row, State
from toolguard.errors import (
    ApprovalUnavailableError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionUnavailableError,
    DecisionUnavailableError,
    InsufficientScopeError,
    InvalidProofError,
    InvalidTokenError,
    KeysUnavailableError,
    ToolGuardError,
)
from toolguard.policies.policy import Policy
from toolguard.policies.published import LISTS
from toolguard.principal import Principal

__all__ = ["answer_record", "grant_record", "message_records", "request_record", "row_record"]

_OUTAGES = (
    KeysUnavailableError,
    ApprovalUnavailableError,
    ConnectionUnavailableError,
    ConnectionRateLimitedError,
    ConnectionResponseError,
    DecisionUnavailableError,
)
_MAX_TEXT = 255  # OpenID Connect Core §2: no sub is longer
_MAX_NAMES = 50
_MAX_BITS = 64


def message_records(
    guard: Guard, message: MessageContext, refusal: ToolGuardError | None
) -> Iterable[DecisionRecord]:
    """Return the records of a message that has been served, one for each operation it entered.

    Args:
        guard: the guard of the server.
        message: the message.
        refusal: the refusal that it ended in; None if it did not.
    """
    rows = [row for row in message.rows if row.state in (State.PERMITTED, State.REFUSED)]
    if not rows and refusal is not None:
        row = message.rows[-1] if message.rows else None
        yield _record(guard, message, row, refusal)
    for row in rows:
        own = row.denial or row.refusal or (refusal if row is rows[-1] else None)
        yield _record(guard, message, row, own)


def row_record(
    guard: Guard, message: MessageContext, row: Row, failure: str | None
) -> DecisionRecord:
    """Return the record of an operation that code of the server's called.

    Args:
        guard: the guard of the server.
        message: the message in which it was called.
        row: the operation.
        failure: the class of the error that it ended in, if that is no refusal.
    """
    return _record(guard, message, row, row.denial or row.refusal, failure)


def request_record(
    guard: Guard,
    refusal: ToolGuardError | None,
    principal: Principal | None = None,
    *,
    method: str | None = None,
    started: float | None = None,
    failure: str | None = None,
) -> DecisionRecord:
    """Return the record of an HTTP request that was decided on without a message.

    Args:
        guard: the guard.
        refusal: the refusal; None if the request was passed on.
        principal: the verified caller, if there is one.
        method: the HTTP method, for a request that is no MCP message.
        started: when it came, by ``time.perf_counter``.
        failure: the class of the error that the application ended in.
    """
    return DecisionRecord(
        guard.clock(),
        guard.resource,
        _verdict(refusal, failure, hidden=False),
        method=None if method is None else _bounded(method),
        duration=0.0 if started is None else time.perf_counter() - started,
        **_caller_facts(guard, principal),
        **({"reason": failure} if refusal is None else _refusal_facts(refusal, None)),
    )


def grant_record(
    guard: Guard,
    verdict: GrantVerdict,
    connection: str,
    issuer: str,
    *,
    user: str | None,
    tenant: str | None = None,
) -> DecisionRecord:
    """Return the record of what happened to a grant in a vault.

    Args:
        guard: the guard that has the vault.
        verdict: what happened.
        connection: the name of the connection.
        issuer: the issuer of the user.
        user: the user; None for what happened to a tenant's grant without one.
        tenant: the tenant whose grant it is; None for a grant of the user's own.
    """
    return DecisionRecord(
        guard.clock(),
        guard.resource,
        verdict,
        transport=None,
        issuer=issuer,
        subject=user and guard.recorder.name_of(issuer, user),
        tenant=tenant,
        hashed=guard.recorder.hashes,
        connections=(connection,),
    )


def answer_record(
    guard: Guard, verdict: ApprovalVerdict, tool: str, issuer: str, person: str
) -> DecisionRecord:
    """Return the record of what a person answered who was asked to approve a call.

    Args:
        guard: the guard of the server.
        verdict: the answer.
        tool: the name of the tool.
        issuer: the issuer of the person.
        person: the person.
    """
    return DecisionRecord(
        guard.clock(),
        guard.resource,
        verdict,
        transport=None,
        kind="tool",
        operation=_bounded(tool),
        issuer=issuer,
        subject=guard.recorder.name_of(issuer, person),
        hashed=guard.recorder.hashes,
    )


def _record(
    guard: Guard,
    message: MessageContext,
    row: Row | None,
    refusal: ToolGuardError | None,
    failure: str | None = None,
) -> DecisionRecord:
    auth = message.auth
    principal = None if row is None else row.principal
    if principal is None and auth is not None and auth.guard is guard:
        principal = auth.principal
    policy = None if row is None else row.policy
    nested = message.outer is not None or (row is not None and row.nested)
    if row is None or not row.nested:
        failure = failure or message.failure
    started = message.started if row is None or not row.nested else row.started
    hidden = tuple(map(_bounded, message.hidden[:_MAX_NAMES]))
    sent_id = message.request_id
    is_number = isinstance(sent_id, int) and sent_id.bit_length() <= _MAX_BITS
    facts = _refusal_facts(refusal, policy)
    if refusal is None and failure is not None:
        facts["reason"] = failure
    return DecisionRecord(
        guard.clock(),
        guard.resource,
        _verdict(refusal, failure, hidden=bool(hidden)),
        transport="memory" if auth is None else auth.transport,
        request_id=sent_id
        if sent_id is None or is_number
        else _bounded(f"{sent_id:x}" if isinstance(sent_id, int) else sent_id),
        method=None if message.method is None else _bounded(message.method),
        rule=_rule(row, refusal),
        connections=() if policy is None else tuple(need.name for need in policy.connections),
        hidden=hidden,
        nested=nested,
        task=message.task,
        duration=time.perf_counter() - started,
        verification=None if nested or auth is None else auth.verification,
        **_operation(message, row),
        **_caller_facts(guard, principal),
        **facts,
    )


def _verdict(
    refusal: ToolGuardError | None, failure: str | None, *, hidden: bool
) -> DecisionVerdict:
    if isinstance(refusal, ConnectionRequiredError):
        return "not_connected"
    if isinstance(refusal, _OUTAGES):
        return "outage"
    if refusal is not None:
        return "refused"
    if failure is not None:
        return "failed"
    return "filtered" if hidden else "served"


def _rule(row: Row | None, refusal: ToolGuardError | None) -> str | None:
    if row is None:
        return None
    if row.policy is None:
        return "deny" if refusal is not None else None
    if row.policy.public:
        return "public"
    return "any authenticated caller" if row.policy.formula is None else str(row.policy.formula)


def _operation(message: MessageContext, row: Row | None) -> dict[str, Any]:
    call = message.sent if row is None else row.call
    if call is None or not call.name or message.method in LISTS:
        return {}
    label = None if row is None else row.label
    if label is None:
        # The rest of a URI that was not registered so may be the value of an argument.
        label = f"{call.name.partition(':')[0]}:" if call.kind == "resource" else call.name
    return {"kind": call.kind, "operation": _bounded(label)}


def _caller_facts(guard: Guard, principal: Principal | None) -> dict[str, Any]:
    if principal is None:
        return {}
    actor = principal.claims.get("act")
    acting = actor.get("sub") if isinstance(actor, Mapping) else None
    names = guard.recorder.name_of
    facts = {
        "issuer": principal.issuer,
        "subject": principal.user_id and names(principal.issuer, principal.user_id),
        "client": principal.client_id,
        "tenant": principal.tenant_id,
        "actor": names(principal.issuer, acting) if isinstance(acting, str) else None,
    }
    # Users may choose their names, and clients their ids, at many an issuer.
    readable = {name: value and _bounded(value) for name, value in facts.items()}
    return {**readable, "hashed": guard.recorder.hashes}


def _refusal_facts(refusal: ToolGuardError | None, policy: Policy | None) -> dict[str, Any]:
    if refusal is None:
        return {}
    reason = refusal.error
    detail = getattr(refusal, "reason", None)
    if (
        isinstance(refusal, (InvalidProofError, InvalidTokenError, KeysUnavailableError))
        and detail is not None
    ):
        reason = f"{reason}:{detail}"
    facts: dict[str, Any] = {"reason": reason}
    rule = getattr(refusal, "rule", None)
    if isinstance(rule, str):
        facts["denied_by"] = _bounded(rule)
    if isinstance(refusal, InsufficientScopeError):
        facts["required_scopes"] = _declared(refusal.required_scopes, policy)
        facts["missing_scopes"] = _declared(refusal.missing_scopes, policy)
        facts["token_scopes"] = tuple(map(_bounded, refusal.token_scopes[:_MAX_NAMES]))
    return facts


def _declared(scopes: tuple[str, ...], policy: Policy | None) -> tuple[str, ...]:
    """Return the scopes as the policy declares them: those of arguments by their templates."""
    naming = [] if policy is None else [each for each in policy.requirements if each.names_scopes]
    if policy is None or policy.formula is None or not naming:
        return scopes
    known = policy.formula.scopes
    literal = [scope for scope in scopes if scope in known]
    templates = map(str, naming) if len(literal) < len(scopes) else ()
    return (*literal, *templates)


def _bounded(text: str) -> str:
    """Return text that a client chose, printable and of a bounded length."""
    short = text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
    return short if short.isprintable() else ascii(short)[1:-1]
