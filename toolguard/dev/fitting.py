"""A world that fits a server: what its operations ask for can be had there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from toolguard.audit import Report, audit
from toolguard.audit.loading import LoadError, load_server
from toolguard.connections.descope.project import FETCH_SCOPE
from toolguard.dev.oauth.config import World
from toolguard.dev.oauth.policies import PolicyCondition, ScopeRule
from toolguard.parts.environment import RECORDS

__all__ = ["DEFAULT_RESOURCE", "Fit", "fitted", "read_server"]

DEFAULT_RESOURCE = "http://127.0.0.1:8000/mcp"
"""The URL of a server that names none."""

_RESOURCE = "MCP_SERVER_URL"
_FETCH_WORDS = "Use the accounts you have connected"
_PERMISSION = "permission "
# One of the built-in world's, which its schedulers have.
_SCHEDULER = PolicyCondition("permissions", "scheduler")


@dataclass(frozen=True)
class Fit:
    """A world for a server.

    Attributes:
        world: the world.
        report: the audit of the server.
        notes: what does not fit, in sentences.
    """

    world: World
    report: Report
    notes: tuple[str, ...]


def read_server(
    target: str, variables: Mapping[str, str], load: Callable[[str], Any] = load_server
) -> Report:
    """Return the audit of a server that is configured by ``variables``.

    Without ``MCP_SERVER_URL`` in them or in the process, the default of the server's own code
    counts; if it has none, :data:`DEFAULT_RESOURCE`.

    Args:
        target: the server, as ``toolguard audit`` takes it.
        variables: they replace those of the process while the server is loaded.
        load: returns the server that ``target`` names.

    Raises:
        LoadError: if there is no such server.
    """
    named = variables.get(_RESOURCE) or os.environ.get(_RESOURCE) or None
    known = variables if named is None else {**variables, _RESOURCE: named}
    try:
        with _environment(known):
            return audit(load(target))
    except LoadError:
        if named is not None:
            raise
    with _environment({**variables, _RESOURCE: DEFAULT_RESOURCE}):
        return audit(load(target))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    # A server that reads its issuer is to trust the development server, which this variable would
    # contradict; and it is looked at only, so that there is nothing to write down.
    absent = {"TOOLGUARD_ISSUER", RECORDS, _RESOURCE} - variables.keys()
    before = dict(os.environ)
    for name in absent:
        os.environ.pop(name, None)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in {*variables, *absent}:
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def fitted(world: World, report: Report, *, issuer: str) -> Fit:
    """Return ``world`` with the scopes, connections and permissions that a server asks for.

    Its people stay. Those with the permission ``scheduler`` may grant every scope; the others
    those with which clients begin, or nothing if that is every scope, so that a refusal can be
    seen.

    Args:
        world: the built-in world.
        report: the audit of the server.
        issuer: the issuer of the development server.
    """
    url = report.guard.resource if report.guard is not None else DEFAULT_RESOURCE
    scopes = _scopes(report)
    connections = _connections(report)
    # It comes with every scope, so that tools get the connections of their callers.
    along = {FETCH_SCOPE: _FETCH_WORDS} if connections else {}
    known = {**scopes, **along}
    initial = report.guard.initial_scopes if report.guard is not None else ()
    first = tuple(scope for scope in initial if scope in scopes)
    rules = []
    if known:
        every = tuple(scopes or known)
        rules.append(ScopeRule("Every scope for schedulers", (_SCHEDULER,), every, tuple(along)))
    if first and set(first) != set(scopes):
        others = (PolicyCondition("any"),)
        rules.append(ScopeRule("The first scopes for all others", others, first, tuple(along)))
    asked = (text for each in report.operations for group in each.alternatives for text in group)
    permissions = [each.removeprefix(_PERMISSION) for each in asked if each.startswith(_PERMISSION)]
    tenants = tuple(
        each.model_copy(
            update={
                "permissions": {
                    group: tuple(dict.fromkeys((*held, *permissions)))
                    for group, held in each.permissions.items()
                }
            }
        )
        for each in world.tenants
    )
    made = replace(
        world,
        resources=(world.resources[0].model_copy(update={"url": url, "client_id": "server"}),),
        scopes=known,
        default_scopes=first or tuple(scopes),
        rules=tuple(rules),
        tenants=tenants,
        connections=connections,
    )
    return Fit(made, report, tuple(_notes(report, issuer, [each.id for each in tenants])))


def _scopes(report: Report) -> dict[str, str]:
    """Return the scopes of a server, with the operations that ask for each, in words."""
    users: dict[str, list[str]] = {}
    for each in report.operations:
        for scope in each.scopes:
            users.setdefault(scope, []).append(each.name)
    for scope in report.guard.initial_scopes if report.guard is not None else ():
        users.setdefault(scope, [])
    users.pop(FETCH_SCOPE, None)
    return {
        scope: f"Use {', '.join(names)}" if names else f"Have the scope {scope}"
        for scope, names in users.items()
    }


def _connections(report: Report) -> dict[str, tuple[str, ...]]:
    asked: dict[str, tuple[str, ...]] = {}
    for operation in report.operations:
        for need in operation.connections:
            asked[need.name] = tuple(dict.fromkeys((*asked.get(need.name, ()), *need.scopes)))
    return asked


def _absent(alternatives: Iterable[Sequence[str]], tenants: Collection[str]) -> str | None:
    """Return the missing requirement of an operation no user can call; None if one can.

    The development server knows no roles.

    Args:
        alternatives: the requirements as texts, in groups, of which a caller must meet one.
        tenants: the tenants of the world.
    """
    found: list[str] = []
    for group in alternatives:
        words = {text: text.split(" ") for text in group}
        absent = [
            text
            for text, (kind, *value) in words.items()
            if kind == "role" or (kind == "tenant" and len(value) == 1 and value[0] not in tenants)
        ]
        if not absent:
            return None
        found += absent
    return found[0] if found else None


def _notes(report: Report, issuer: str, tenants: Collection[str]) -> Iterator[str]:
    if report.guard is None:
        yield "no guard protects the server: write ToolGuard.from_env().protect(server)"
    elif report.guard.issuer != issuer:
        trusted = report.guard.issuer or "the issuers of its own verifier"
        yield (
            f"the server trusts {trusted}, not this one: read the issuer from the environment "
            "with ToolGuard.from_env(), or write none into a file of rules"
        )
    if report.guard is not None and (report.guard.resource or "").startswith("https:"):
        yield (
            f"the server is to be at {report.guard.resource}: to try it on this machine, set "
            f"{_RESOURCE}={DEFAULT_RESOURCE} and start again"
        )
    for each in report.operations:
        if each.call_scopes:
            depending = ", ".join(each.call_scopes)
            yield (
                f"{each.kind} {each.name!r} asks for scopes that depend on the call "
                f"({depending}), which are not known here: write a world (toolguard dev "
                "--show-world) that has them, and start with --world"
            )
        absent = _absent(each.alternatives, tenants)
        if absent is not None:
            yield (
                f"{each.kind} {each.name!r} asks for {absent}, which no person of this world has: "
                "try it in a test, with toolguard.testing"
            )
        if any(need.tenant for need in each.connections):
            yield f"{each.kind} {each.name!r} uses a connection of the tenant, which is not here"
