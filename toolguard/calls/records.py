"""The record of one decision: which caller asked for which operation, and how it ended.

A record holds no token, no argument and no text that a function of the user's wrote into an error.
What a client chose itself, such as the name of an unknown tool, is cut to a bounded length.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from toolguard.policies.operations import Kind

__all__ = [
    "APPROVAL_VERDICTS",
    "GRANT_VERDICTS",
    "ApprovalVerdict",
    "DecisionRecord",
    "DecisionVerdict",
    "GrantVerdict",
    "MessageTransport",
]

MessageTransport: TypeAlias = Literal["http", "stdio", "memory"]
"""How a message came: over HTTP, over stdio, or from a client in this process."""

GrantVerdict: TypeAlias = Literal["connected", "refreshed", "disconnected"]
"""What happened in a vault: an account was connected, its token refreshed, or it was removed."""

ApprovalVerdict: TypeAlias = Literal["approved", "not_approved"]
"""What a person answered who was asked to approve a call."""

APPROVAL_VERDICTS: tuple[ApprovalVerdict, ...] = ("approved", "not_approved")
"""The verdicts of people's answers."""

DecisionVerdict: TypeAlias = (
    Literal["served", "failed", "filtered", "refused", "not_connected", "outage"]
    | GrantVerdict
    | ApprovalVerdict
)
"""How an operation ended: it ran; it ran into an error of its own; it was a list from which
operations were left out; it was refused; an account has to be connected; a service is down. Or
what happened in a vault, or a person answered on a page."""

GRANT_VERDICTS: tuple[GrantVerdict, ...] = ("connected", "refreshed", "disconnected")
"""The verdicts of a vault's records."""


@dataclass(frozen=True)
class DecisionRecord:
    """One decision.

    Attributes:
        time: when it was recorded, in seconds since the epoch.
        server: the URL of the server (RFC 9728 ``resource``).
        verdict: how the operation ended.
        reason: the code of the refusal, such as ``"insufficient_scope"`` or
            ``"invalid_token:expired"``, ``"temporarily_unavailable:encrypted"``; for a failure
            the class of the error; else None.
        transport: how the message came; None for what happened in a vault.
        request_id: the JSON-RPC id of the message, if it has one that could be read.
        method: the JSON-RPC method, or the HTTP method of a request that is no MCP message; None
            if the request was refused before its body was read.
        kind: the kind of operation; None for a message that names none, such as a list.
        operation: the name of the tool or prompt, or the URI of the resource; that of a template
            as it was registered, and only the scheme of a URI that was not.
        issuer: the issuer of the caller's token; None for a caller without a valid token.
        subject: the user, or their pseudonym with ``subjects="hashed"``; None without a user.
        client: the OAuth client.
        tenant: the tenant the token was issued for.
        actor: who acts for the user (RFC 8693 ``act``), or their pseudonym.
        hashed: whether subject and actor are pseudonyms.
        rule: the rule of the operation, as ``toolguard audit`` shows it.
        denied_by: the requirements that the caller does not meet, if no scope could change that.
        required_scopes: the scopes that the refused operation needs.
        missing_scopes: those of them that the token lacks.
        token_scopes: the scopes of the token, if scopes are missing.
        connections: the names of the connections that the operation uses.
        hidden: the operations that were left out of a list.
        nested: whether the operation was called by a function of the server, not by the client.
        task: the id of the background task that ran it.
        duration: seconds from the arrival of the message, or the call, until this record.
        verification: the seconds of the request in which its token was verified; None if none
            was, and for operations that the server called itself.
    """

    time: float
    server: str
    verdict: DecisionVerdict
    reason: str | None = None
    transport: MessageTransport | None = "http"
    request_id: str | int | None = None
    method: str | None = None
    kind: Kind | None = None
    operation: str | None = None
    issuer: str | None = None
    subject: str | None = None
    client: str | None = None
    tenant: str | None = None
    actor: str | None = None
    hashed: bool = False
    rule: str | None = None
    denied_by: str | None = None
    required_scopes: tuple[str, ...] = ()
    missing_scopes: tuple[str, ...] = ()
    token_scopes: tuple[str, ...] = ()
    connections: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    nested: bool = False
    task: str | None = None
    duration: float = 0.0
    verification: float | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether the caller is not known: without a token, or without a valid one."""
        return self.issuer is None

    def to_dict(self) -> dict[str, Any]:
        """Return the members that have a value, for JSON."""
        return {k: v for k, v in vars(self).items() if v is not None and v is not False and v != ()}

    def to_json(self) -> str:
        """Return :meth:`to_dict` as one line of JSON in ASCII."""
        return json.dumps(self.to_dict())

    def __str__(self) -> str:
        return " ".join(_sentence(self))


def _sentence(record: DecisionRecord) -> Iterable[str]:
    if record.verdict in APPROVAL_VERDICTS:
        yield f"{record.verdict.replace('_', ' ')}: {record.operation}, by {_caller(record)}"
    elif record.verdict in GRANT_VERDICTS:
        yield f"{record.verdict} {' '.join(record.connections)} for {_caller(record)}"
    else:
        yield from _decision(record)


def _decision(record: DecisionRecord) -> Iterable[str]:
    yield record.verdict.replace("_", " ")
    yield f"{record.kind} {record.operation}" if record.kind else record.method or "a request"
    yield f"for {_caller(record)}{':' if record.reason else ''}"
    if record.reason:
        yield f"{record.reason};"
        expected = " ".join(record.required_scopes) or record.denied_by or record.rule
        if expected:
            yield f"expected {expected},"
            found = " ".join(record.token_scopes) or ("no scope" if record.missing_scopes else "")
            if found:
                yield f"found {found},"
        if record.missing_scopes:
            yield f"missing {' '.join(record.missing_scopes)},"
    elif record.rule:
        yield f"by {record.rule},"
    if record.connections:
        yield f"connections {' '.join(record.connections)},"
    if record.hidden:
        yield f"without {' '.join(record.hidden)},"
    if record.nested:
        yield "called by the server,"
    yield f"over {record.transport}, request {record.request_id!a}, {record.duration * 1e3:.1f} ms"


def _caller(record: DecisionRecord) -> str:
    if record.is_anonymous:
        return "an unknown caller"
    facts = {"of": record.issuer, "via": record.client, "in": record.tenant, "by": record.actor}
    words = [f"{word} {value}" for word, value in facts.items() if value]
    return " ".join([record.subject or "no user", *words])
