"""Report the requirements of each operation of a server, and what is left open. Public.

``toolguard audit MODULE:SERVER`` prints the report; a test can check it::

    from toolguard.audit import audit

    def test_nothing_is_left_open():
        assert audit(mcp).findings == ()

An audit calls no operation, fetches nothing, and needs no request.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from toolguard.audit.findings import (
    unguarded,
    unmatched_routes,
    unmatched_rules,
    unoffered_scopes,
)
from toolguard.audit.inventory import inventory, open_routes
from toolguard.audit.report import AuditedOperation, Finding, GuardFacts, Report
from toolguard.frameworks import Adapter, adapter_for
from toolguard.frameworks.operation import Catalog
from toolguard.policies.operations import Kind

__all__ = ["AuditedOperation", "Finding", "GuardFacts", "Report", "audit"]


def audit(server: object, *, offered_scopes: Collection[str] | None = None) -> Report:
    """Return a report of the requirements of every tool, resource, prompt and custom route.

    Args:
        server: a server of the official SDK (1.x, 2.x) or fastmcp (3.x, 4.x), protected or not.
        offered_scopes: the ``scopes_supported`` of the authorization server (RFC 8414 §2), to
            compare with the scopes of the guards; None to skip that.

    Returns:
        The report. Its ``findings`` are empty if and only if ``toolguard audit --check`` passes.

    Raises:
        TypeError: if it is not a server of a supported framework.
    """
    adapter = adapter_for(server)
    catalog = adapter.survey()
    operations = (*inventory(server, catalog.operations), *open_routes(adapter))
    unmatched = [*_unmatched(adapter, catalog)]
    findings = [*(each for op in operations for each in op.problems), *unguarded(operations)]
    findings += unmatched_routes(adapter)
    if not catalog.unlisted:
        findings += unmatched
    if offered_scopes is not None:
        findings += unoffered_scopes(_asked(adapter, operations), offered_scopes)
    return Report(
        str(getattr(server, "name", "")),
        _facts(adapter),
        operations,
        tuple(findings),
        tuple(_notes(catalog, unmatched, operations, checked=offered_scopes is not None)),
    )


def _facts(adapter: Adapter) -> GuardFacts | None:
    guard = adapter.guard
    if guard is None:
        return None
    return GuardFacts(guard.resource, guard.issuer, guard.default, guard.initial_scopes)


def _unmatched(adapter: Adapter, catalog: Catalog) -> Iterator[Finding]:
    """Yield the rules without an operation, of the server and of those mounted on it."""
    known: dict[Adapter, list[tuple[Kind, str, Collection[str]]]] = {adapter: []}
    for each in catalog.operations:
        known[adapter] += [(each.kind, name, each.tags) for name in each.names]
        for server, name in each.mounts:
            known.setdefault(adapter_for(server), []).append((each.kind, name, each.tags))
    for guarded, names in known.items():
        yield from unmatched_rules(guarded.rules, names)


def _asked(adapter: Adapter, operations: Collection[AuditedOperation]) -> dict[str, list[str]]:
    """Return every scope that clients are told to request, with the places that name it."""
    asked: dict[str, list[str]] = {}
    for each in operations:
        for scope in each.scopes:
            asked.setdefault(scope, []).append(f"{each.kind} {each.name!r}")
    for policy in adapter.rules.policies:
        for scope in policy.formula.scopes if policy.formula is not None else ():
            asked.setdefault(scope, ["a rule of protect(rules=...)"])
    for scope in adapter.guard.initial_scopes if adapter.guard is not None else ():
        asked.setdefault(scope, ["Refusals(initial_scopes=...)"])
    return asked


def _notes(
    catalog: Catalog,
    unmatched: Collection[Finding],
    operations: Collection[AuditedOperation],
    *,
    checked: bool,
) -> Iterator[str]:
    yield from catalog.unlisted
    if catalog.unlisted:
        for each in unmatched:
            yield f"unless it is for what is not in the table, {each.message}"
    if any(not each.guarded and each.access == "nobody" for each in operations):
        yield 'default="deny" refuses every call without a guard, so it is not reported'
    if checked and any(each.call_scopes for each in operations):
        yield "scopes that depend on the call cannot be held against those that are offered"
