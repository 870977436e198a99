"""The report of an audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from toolguard.policies.operations import Kind
from toolguard.policies.policy import ConnectionNeed

__all__ = ["Access", "AuditedOperation", "Code", "Finding", "GuardFacts", "Report"]

Access: TypeAlias = Literal["everybody", "authenticated", "restricted", "nobody"]
"""The callers permitted: all, also without a token; all with a valid token; some; none."""

Code: TypeAlias = Literal[
    "unguarded", "no-guard", "misdeclared", "contradiction", "unmatched-rule", "unoffered-scope"
]
"""The codes of findings:

- ``unguarded``: no policy was declared for the operation, and callers may use it;
- ``no-guard``: it is decorated, but no guard protects the server, so every caller is refused;
- ``misdeclared``: a server with it would not start: registered below its guard, a parameter that
  only a guard may fill and a client could send, a connection without a provider;
- ``contradiction``: the rules and decorators that apply would make it public and guarded at once;
- ``unmatched-rule``: a rule of ``protect(rules=...)``, or a path of ``open_routes``, matches
  nothing;
- ``unoffered-scope``: the authorization server does not offer the scope.
"""


@dataclass(frozen=True)
class Finding:
    """One fault.

    Attributes:
        code: the code of the fault.
        kind: the kind of its subject: ``tool``, ``resource``, ``prompt``, ``route``, ``rule`` or
            ``scope``.
        name: the name of its subject.
        message: a sentence that says what to write instead.
    """

    code: Code
    kind: Kind | Literal["route", "rule", "scope"]
    name: str
    message: str


@dataclass(frozen=True)
class AuditedOperation:
    """One tool, resource, resource template, prompt or custom route.

    Attributes:
        kind: the kind; a template is a resource.
        name: the name that clients use, also for operations of mounted servers; for a route its
            methods and its path.
        version: the version of a fastmcp component, if it has one.
        access: the callers permitted.
        rule: its requirements, in words.
        guarded: whether they were declared: by a decorator, a rule by name, the framework's own
            check, or ``open_routes``.
        alternatives: the requirements as texts: groups, of which the caller must meet one whole.
        scopes: every scope it may require.
        call_scopes: scopes that depend on the call, as declared.
        connections: the connections fetched for the caller.
        injected: the parameters that clients neither see nor set.
        approver: the person who has to approve each call: ``the caller``, or the requirement for
            another one; None if it needs no approval.
        problems: its own faults, independent of the rest of the server.
    """

    kind: Kind | Literal["route"]
    name: str
    version: str | None
    access: Access
    rule: str
    guarded: bool
    alternatives: tuple[tuple[str, ...], ...] = ()
    scopes: tuple[str, ...] = ()
    call_scopes: tuple[str, ...] = ()
    connections: tuple[ConnectionNeed, ...] = ()
    injected: tuple[str, ...] = ()
    approver: str | None = None
    problems: tuple[Finding, ...] = ()

    @property
    def is_unguarded(self) -> bool:
        """Whether callers may use it although no policy was declared."""
        return not self.guarded and self.access != "nobody"


@dataclass(frozen=True)
class GuardFacts:
    """The guard that protects a server.

    Attributes:
        resource: the server's URL.
        issuer: the issuer of accepted tokens; None if only its verifier knows.
        default: the policy of an operation without a rule: ``authenticated``, ``deny``,
            ``public``.
        initial_scopes: the scopes that clients are told to request first.
    """

    resource: str
    issuer: str | None
    default: str
    initial_scopes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The report of an audit.

    Attributes:
        server: the name of the server.
        guard: the guard of the server; None if it is not protected.
        operations: the operations of the server.
        findings: the faults; empty if a build may pass.
        notes: what the audit could not check, and what it accepted on purpose.
    """

    server: str
    guard: GuardFacts | None
    operations: tuple[AuditedOperation, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values.

        The keys are the names of the attributes, and ``format``, which is 1 as long as their
        meaning does not change. The findings include the problems of the operations.
        """
        return {
            "format": 1,
            "server": self.server,
            "guard": None if self.guard is None else _values(self.guard),
            "operations": [
                {
                    **{name: value for name, value in _values(each).items() if name != "problems"},
                    "connections": [_values(need) for need in each.connections],
                }
                for each in self.operations
            ],
            "findings": [_values(each) for each in self.findings],
            "notes": list(self.notes),
        }


def _values(facts: object) -> dict[str, Any]:
    return {name: _listed(value) for name, value in vars(facts).items()}


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
