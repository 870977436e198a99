"""Scope expressions, and the scopes that a grant lacks.

A :class:`Scope` is a formula whose conditions are scope-tokens (RFC 6749 §3.3).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, overload

from toolguard.parsing.kinds import of_kind
from toolguard.parsing.scope_token import is_scope_token
from toolguard.policies.formulas import Formula

__all__ = ["Scope", "ScopeHierarchy", "ScopeLike", "all_of", "any_of"]

# Each alternative is compared with every other one.
_MAX_ALTERNATIVES = 1_000


def _scope_token(value: object) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"name the scopes one by one: write {', '.join(map(repr, value))}")
    if not isinstance(value, str):
        raise TypeError(f"a scope is a string, not {type(value).__name__}: write {str(value)!r}")
    if not is_scope_token(value):
        hint = f"; write them one by one: {value.split()}" if len(value.split()) > 1 else ""
        raise ValueError(
            f"{value!r} is not a scope: RFC 6749 §3.3 allows printable ASCII without spaces, "
            f"quotes and backslashes{hint}"
        )
    return value


class Scope(Formula):
    """A scope expression: the scopes that must be granted for an operation to be permitted.

    Combine with ``&`` (both) and ``|`` (either); strings are accepted on either side.
    Immutable, hashable, and equal exactly when the permission is the same.

    Args:
        token: one scope-token (RFC 6749 §3.3).

    Raises:
        ValueError: if ``token`` is not a scope-token.
        TypeError: if it is not a string.

    >>> rule = Scope("calendar.read") & "profile" | "admin"
    >>> rule
    <Scope: calendar.read & profile | admin>
    >>> rule.allows({"admin"})
    True
    >>> rule.missing({"profile"})
    ('calendar.read',)
    """

    __slots__ = ()

    _alternatives: tuple[tuple[str, ...], ...]

    def __init__(self, token: str) -> None:
        super().__init__(_scope_token(token))

    @property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The minimal sets of scopes of which one must be granted, in the declared order."""
        return self._alternatives

    @property
    def tokens(self) -> tuple[str, ...]:
        """Every scope in the expression, in the declared order."""
        return tuple(dict.fromkeys(token for group in self._alternatives for token in group))

    def allows(self, granted: Iterable[str]) -> bool:
        """Return whether ``granted`` satisfies the expression."""
        held = granted if isinstance(granted, frozenset) else _as_set(granted)
        return any(map(held.issuperset, self._alternatives))

    def nearest(self, granted: Iterable[str]) -> tuple[str, ...]:
        """Return the alternative that needs the fewest further scopes; ties: the first declared.

        Args:
            granted: the scopes of the caller.
        """
        held = _as_set(granted)
        return min(self._alternatives, key=lambda group: sum(token not in held for token in group))

    def missing(self, granted: Iterable[str]) -> tuple[str, ...]:
        """Return the scopes missing for the nearest alternative; empty if and only if allowed.

        Args:
            granted: the scopes of the caller.
        """
        held = _as_set(granted)
        return tuple(token for token in self.nearest(held) if token not in held)

    @overload
    def __and__(self, other: ScopeLike) -> Scope: ...
    @overload
    def __and__(self, other: Formula) -> Formula: ...
    def __and__(self, other: Formula | str) -> Formula:
        return super().__and__(Scope(other) if isinstance(other, str) else other)

    @overload
    def __rand__(self, other: str) -> Scope: ...
    @overload
    def __rand__(self, other: Formula) -> Formula: ...
    def __rand__(self, other: Formula | str) -> Formula:
        return Formula.__and__(other if isinstance(other, Formula) else Scope(other), self)

    @overload
    def __or__(self, other: ScopeLike) -> Scope: ...
    @overload
    def __or__(self, other: Formula) -> Formula: ...
    def __or__(self, other: Formula | str) -> Formula:
        return super().__or__(Scope(other) if isinstance(other, str) else other)

    @overload
    def __ror__(self, other: str) -> Scope: ...
    @overload
    def __ror__(self, other: Formula) -> Formula: ...
    def __ror__(self, other: Formula | str) -> Formula:
        return Formula.__or__(other if isinstance(other, Formula) else Scope(other), self)


ScopeLike: TypeAlias = Scope | str
"""A scope expression, or one scope as a string."""


def _as_set(granted: Iterable[str]) -> frozenset[str] | set[str]:
    if isinstance(granted, str):
        raise TypeError(f"granted scopes are a collection, not a string: write {granted.split()}")
    return granted if isinstance(granted, (frozenset, set)) else frozenset(granted)


def _scopes(rules: tuple[ScopeLike, ...], example: str) -> tuple[Scope, ...]:
    """Return ``rules`` as scopes, each once.

    Raises:
        ValueError: if there are no rules, or one is not a scope-token.
    """
    if not rules:
        raise ValueError(f"no scope given: write {example}")
    scopes = (rule if isinstance(rule, Scope) else Scope(rule) for rule in rules)
    return tuple(dict.fromkeys(scopes))


def _joined(scopes: Iterable[Scope]) -> Iterator[Scope]:
    """Yield the same scopes, with runs of scopes without alternatives merged into one.

    Combining them one by one would build every intermediate conjunction.
    """
    for is_plain, run in itertools.groupby(scopes, lambda scope: len(scope.alternatives) == 1):
        if is_plain:
            yield Scope.of((tuple(token for scope in run for token in scope.alternatives[0]),))
        else:
            yield from run


def all_of(*rules: ScopeLike) -> Scope:
    """Return the rule that needs every one of ``rules``.

    Raises:
        ValueError: if there are no rules, or one is not a scope-token.

    >>> all_of("read", "write")
    <Scope: read & write>
    """
    return functools.reduce(operator.and_, _joined(_scopes(rules, 'all_of("read", "write")')))


def any_of(*rules: ScopeLike) -> Scope:
    """Return the rule that needs at least one of ``rules``.

    Raises:
        ValueError: if there are no rules, one is not a scope-token, or there are more than 1,000
            alternatives.

    >>> any_of("admin", all_of("read", "write"))
    <Scope: admin | read & write>
    """
    scopes = _scopes(rules, 'any_of("read", "admin")')
    alternatives = [group for scope in scopes for group in scope.alternatives]
    if len(alternatives) > _MAX_ALTERNATIVES:
        raise ValueError(f"this rule has more than {_MAX_ALTERNATIVES:,} alternatives; split it")
    return Scope.of(alternatives)


class ScopeHierarchy:
    """The scopes that a granted scope includes (MCP: servers MUST account for scope hierarchies).

    Args:
        implications: scope -> the scopes it includes. Transitive: if ``a`` includes ``b`` and
            ``b`` includes ``c``, a grant of ``a`` includes ``c``.

    Raises:
        ValueError: if a scope would include itself, or is not a scope-token.

    >>> hierarchy = ScopeHierarchy({"calendar.write": ["calendar.read"]})
    >>> sorted(hierarchy.expand(["calendar.write"]))
    ['calendar.read', 'calendar.write']
    """

    __slots__ = ("_implied",)

    def __init__(self, implications: Mapping[str, Iterable[str]] | None = None) -> None:
        direct: dict[str, tuple[str, ...]] = {}
        example = 'scope_hierarchy={"calendar.write": ["calendar.read"]}'
        given = {} if implications is None else implications
        of_kind("scope_hierarchy", given, Mapping, example)
        for scope, implied in given.items():
            if isinstance(implied, str):
                raise TypeError(
                    f"write {{{scope!r}: [{implied!r}]}}: the included scopes are a list"
                )
            included = of_kind(f"scope_hierarchy[{scope!r}]", implied, Iterable, example)
            direct[_scope_token(scope)] = tuple(map(_scope_token, included))
        self._implied = {scope: _closure(scope, direct) for scope in direct}

    @classmethod
    def of(cls, given: ScopeHierarchy | Mapping[str, Iterable[str]] | None) -> ScopeHierarchy:
        """Return ``given`` as a hierarchy; a hierarchy is returned unchanged."""
        return given if isinstance(given, ScopeHierarchy) else cls(given)

    def expand(self, granted: Iterable[str]) -> frozenset[str]:
        """Return ``granted`` with all the scopes that it includes."""
        held = frozenset(_as_set(granted))
        if not self._implied:
            return held
        return held.union(*(self._implied.get(scope, frozenset()) for scope in held))

    @property
    def names(self) -> frozenset[str]:
        """Every scope that includes or is included."""
        return frozenset(self._implied).union(*self._implied.values())

    def including(self, scope: str) -> tuple[str, ...]:
        """Return the scopes that include ``scope``, in the declared order."""
        return tuple(name for name, implied in self._implied.items() if scope in implied)

    def __repr__(self) -> str:
        rows = (f"{scope} > {' '.join(sorted(all_))}" for scope, all_ in self._implied.items())
        return f"<ScopeHierarchy: {'; '.join(rows)}>"


def _closure(scope: str, direct: Mapping[str, tuple[str, ...]]) -> frozenset[str]:
    found: set[str] = set()
    todo = list(direct[scope])
    while todo:
        token = todo.pop()
        if token == scope:
            raise ValueError(f"the scope hierarchy has a cycle through {scope!r}")
        if token not in found:
            found.add(token)
            todo.extend(direct.get(token, ()))
    return frozenset(found)
