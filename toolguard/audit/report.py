"""What does an audit find out about a server?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from toolguard.policies.operations import Kind
from toolguard.policies.policy import ConnectionNeed

__all__ = ["Access", "AuditedOperation", "Code", "Finding", "GuardFacts", "Report"]

Access: TypeAlias = Literal["everybody", "authenticated", "restricted", "nobody"]
"""Who gets in: who has no token, too; any good token; some callers; no caller at all."""

Code: TypeAlias = Literal[
    "unguarded", "no-guard", "misdeclared", "contradiction", "unmatched-rule", "unoffered-scope"
]
"""What is wrong:

- ``unguarded``: nothing says what the operation asks for, and somebody may use it;
- ``no-guard``: it is decorated, and no guard protects the server, so it refuses everybody;
- ``misdeclared``: no server holding it would start: registered below its guard, a parameter that
  only a guard may fill and a client could send, a connection without a provider;
- ``contradiction``: the rules and decorators that apply would make it public and guarded at once;
- ``unmatched-rule``: a rule of ``protect(rules=...)``, or a path of ``open_routes``, matches
  nothing;
- ``unoffered-scope``: the authorization server does not offer the scope.
"""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: which kind of thing.
        kind: what it is about: ``tool``, ``resource``, ``prompt``, ``route``, ``rule`` or
            ``scope``.
        name: the name of that.
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
        kind: which of them; a template is a resource.
        name: what clients know it by, also that of a mounted server; of a route its methods and
            its path.
        version: of a fastmcp component that has one.
        access: who gets in.
        rule: what it asks for, in words.
        guarded: whether anything says so: a decorator, a rule by name, the framework's own check,
            ``open_routes``.
        alternatives: what the caller has to meet, as texts: all of any one of these groups.
        scopes: every scope it may ask for.
        call_scopes: scopes that depend on the call, as they are written.
        connections: what is fetched for the caller.
        injected: the parameters that clients neither see nor set.
        problems: what is wrong with it, whatever the rest of the server is like.
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
    problems: tuple[Finding, ...] = ()

    @property
    def is_unguarded(self) -> bool:
        """Whether somebody may use it although nothing says so."""
        return not self.guarded and self.access != "nobody"


@dataclass(frozen=True)
class GuardFacts:
    """The guard that protects a server.

    Attributes:
        resource: the server's URL.
        issuer: whose tokens it accepts; None if only its verifier knows.
        default: what an operation without a rule asks for: ``authenticated``, ``deny``,
            ``public``.
        initial_scopes: what clients are told to begin with.
    """

    resource: str
    issuer: str | None
    default: str
    initial_scopes: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What an audit found out.

    Attributes:
        server: its name.
        guard: what protects it; None if nothing does.
        operations: what can be called on it.
        findings: what is wrong; empty if a build may go on.
        notes: what the audit could not look into, and what it let pass on purpose.
    """

    server: str
    guard: GuardFacts | None
    operations: tuple[AuditedOperation, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values.

        The keys are the names of the attributes, and ``format``, 1 as long as they keep their
        meaning. The problems of the operations are among the findings.
        """
        return {
            "format": 1,
            "server": self.server,
            "guard": None if self.guard is None else _values(self.guard),
            "operations": [_operation(each) for each in self.operations],
            "findings": [_values(each) for each in self.findings],
            "notes": list(self.notes),
        }


def _operation(operation: AuditedOperation) -> dict[str, Any]:
    found = _values(operation)
    del found["problems"]
    return {**found, "connections": [_values(each) for each in operation.connections]}


def _values(facts: object) -> dict[str, Any]:
    return {name: _listed(value) for name, value in vars(facts).items()}


def _listed(value: Any) -> Any:
    return [_listed(each) for each in value] if isinstance(value, tuple) else value
