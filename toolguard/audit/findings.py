"""The findings of an audit, with what to write instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from toolguard.audit.report import AuditedOperation, Finding
from toolguard.frameworks import Adapter
from toolguard.frameworks.custom_routes import unmatched_paths
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.operations import Kind

__all__ = ["unguarded", "unmatched_routes", "unmatched_rules", "unoffered_scopes"]

_ARGUMENT = re.compile(r"\{[^{}]*\}")


def unguarded(operations: Iterable[AuditedOperation]) -> Iterator[Finding]:
    """Yield the operations that callers may use although no guard was declared for them.

    Operations that ``default="deny"`` refuses to every caller are not among them.
    """
    for operation in operations:
        if operation.is_unguarded and not operation.problems:
            kind, name = operation.kind, operation.name
            fault = f"{kind} {name!r} has no guard ({operation.rule}): "
            if kind == "route":
                fault += (
                    f"write protect(server, open_routes=[{name.partition(' ')[2]!r}]) if it is "
                    "open on purpose, else put its code behind guard.asgi(app)"
                )
            else:
                fault += (
                    "write @requires_scopes(...), @requires_auth or @public above its def, or "
                    f"name it in protect(server, rules={{{_pattern(kind, name)!r}: ...}})"
                )
            yield Finding("unguarded", kind, name, fault)


def _pattern(kind: Kind, name: str) -> str:
    return name if kind == "tool" and ":" not in name else f"{kind}:{name}"


def unmatched_rules(
    rules: PoliciesByName, known: Sequence[tuple[Kind, str, Collection[str]]]
) -> Iterator[Finding]:
    """Yield the rules that match none of the operations in ``known``.

    A rule for the URI of a resource matches a template that makes such a URI.
    """
    templates = [_ARGUMENT.sub("*", name) for kind, name, _ in known if kind == "resource"]
    for pattern in rules.unmatched(known):
        uri = pattern.removeprefix("resource:")
        if uri != pattern and any(_overlap(uri, each) for each in templates if "*" in each):
            continue
        names = [_pattern(kind, name) for kind, name, _ in known]
        hint = _similar(pattern.removeprefix("tool:"), names)
        yield Finding(
            "unmatched-rule",
            "rule",
            pattern,
            f"the rule {pattern!r} matches no operation{hint}: correct its name, or leave it out",
        )


def unmatched_routes(adapter: Adapter) -> Iterator[Finding]:
    """Yield the declared open paths at which the server has no custom route."""
    for path, fault in unmatched_paths(adapter.server, adapter.open_routes):
        yield Finding("unmatched-rule", "route", path, fault)


def unoffered_scopes(
    asked: Mapping[str, Collection[str]], offered: Collection[str]
) -> Iterator[Finding]:
    """Yield the required scopes that the authorization server does not offer.

    Args:
        asked: scope -> the operations that require it, in words.
        offered: the ``scopes_supported`` of the authorization server (RFC 8414 §2).
    """
    for scope, who in asked.items():
        if scope not in offered:
            first, *others = who
            names = f"{first} (and {len(others)} more)" if others else first
            yield Finding(
                "unoffered-scope",
                "scope",
                scope,
                f"the authorization server does not offer scope {scope!r}"
                f"{_similar(scope, offered)}, which {names} asks for: correct it, or "
                "have it offered",
            )


def _similar(name: str, names: Collection[str]) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _overlap(one: str, other: str) -> bool:
    """Return whether some text matches both patterns, in which ``*`` stands for any characters."""
    todo, seen = [(0, 0)], {(0, 0)}
    while todo:
        i, j = todo.pop()
        if (i, j) == (len(one), len(other)):
            return True
        for state in _steps(one, other, i, j):
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return False


def _steps(one: str, other: str, i: int, j: int) -> Iterator[tuple[int, int]]:
    left, right = one[i : i + 1], other[j : j + 1]
    if "*" not in (left, right):
        if left and left == right:
            yield i + 1, j + 1
        return
    if left:
        yield i + 1, j
    if right:
        yield i, j + 1
