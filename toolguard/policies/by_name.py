"""Rules: policies by patterns of operation names (``protect(rules=...)``).

All matching rules apply, together with the decorators of the operation: adding a rule never lifts
another, and their order has no meaning. If the most specific rule won instead, a narrow rule would
silently lift a broad one.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from toolguard.parsing.kinds import of_kind
from toolguard.parsing.spellings import spellings, uri_spellings
from toolguard.parsing.wildcards import wildcard
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["HasPolicy", "PoliciesByName"]

_TAG = "tag"
_PREFIXES = ("tool", "resource", "prompt", _TAG)
# Longer names are invented by clients; the results for them are not cached.
_MAX_REMEMBERED = 256


class HasPolicy(Protocol):
    """A guard as used in a rule: a public decorator, or an engine."""

    @property
    def policy(self) -> Policy:
        """The policy of the guard."""
        ...


class PoliciesByName:
    """Guards by the name of the operation.

    Args:
        rules: pattern -> guard. A pattern names tools (``"delete_*"``, ``"tool:delete_*"``),
            resources by URI or URI template (``"resource:file://*"``) or prompts
            (``"prompt:*"``); ``"tag:admin"`` is every operation of any kind with that tag, and
            ``"*"`` alone every operation. ``*`` stands for any characters. A name with a colon
            in it needs its kind: ``"tool:ns:delete"``.

    Raises:
        ValueError: for an empty pattern, an unknown prefix, or a guard that injects a connection.
        TypeError: for a value that is not a guard.

    >>> from toolguard import requires_auth, requires_scopes
    >>> rules = PoliciesByName({"delete_*": requires_scopes("admin"), "*": requires_auth})
    >>> str(rules.policy("tool", "delete_event"))
    'admin'
    >>> str(rules.policy("prompt", "plan"))
    'any authenticated caller'
    """

    def __init__(self, rules: Mapping[str, HasPolicy]) -> None:
        of_kind("rules", rules, Mapping, 'rules={"delete_*": requires_scopes("admin")}')
        self._rules = tuple(_Rule(pattern, guard) for pattern, guard in rules.items())
        remembering = functools.lru_cache(maxsize=1_024)
        self._remembered = remembering(self._find)
        self._remembered_guards = remembering(self._guards_of_lookalikes)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of all rules, in their order."""
        return tuple(rule.policy for rule in self._rules)

    @property
    def uses_tags(self) -> bool:
        """Whether a rule matches tags, which only fastmcp has."""
        return any(rule.is_tag for rule in self._rules)

    def policy(
        self, kind: Kind, name: str, *, respelled: bool = False, tags: Collection[str] = ()
    ) -> Policy | None:
        """Return the policy of all rules that match an operation; None if no rule does.

        Args:
            kind: the kind of the operation.
            name: the name or URI of the operation.
            respelled: whether ``name`` is another spelling of the name that was sent, to be
                matched with other spellings of the patterns too.
            tags: the operation's tags.

        Raises:
            ValueError: if the operation would be public and guarded at once.
        """
        if len(name) > _MAX_REMEMBERED:
            return self._find(kind, name, respelled, frozenset(tags))
        return self._remembered(kind, name, respelled, frozenset(tags))

    def names(self, kind: Kind, name: str) -> bool:
        """Return whether a rule without ``*`` matches an operation with this name."""
        return any("*" not in rule.pattern and rule.matches(kind, name) for rule in self._rules)

    def policy_of_all(
        self, kind: Kind, names: Sequence[str], otherwise: Policy | None
    ) -> Policy | None:
        """Return the policy that permits an operation only if every one of its names does.

        Args:
            kind: the kind of the operation.
            names: every name under which a server may look it up, at least one.
            otherwise: the policy of a name that no rule matches; None refuses every caller.

        Returns:
            The policy; None if no caller may do the operation.

        Raises:
            ValueError: if a name would be public and guarded at once.
        """
        found = [
            self.policy(kind, name, respelled=at > 0) or otherwise for at, name in enumerate(names)
        ]
        # The name as sent may be another spelling of what a rule names. That makes nothing public.
        is_long = len(names[0]) > _MAX_REMEMBERED
        guards_of = self._guards_of_lookalikes if is_long else self._remembered_guards
        found += guards_of(kind, names[0])
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        guarded = [each for each in known if not each.public]
        return functools.reduce(operator.and_, guarded) if guarded else known[0]

    def _guards_of_lookalikes(self, kind: Kind, name: str) -> tuple[Policy, ...]:
        found = [rule for rule in self._rules if rule.matches(kind, name, respelled=True)]
        return tuple([rule.policy for rule in found if not rule.policy.public])

    def _find(
        self,
        kind: Kind,
        name: str,
        respelled: bool,  # noqa: FBT001 - part of a key
        tags: frozenset[str],
    ) -> Policy | None:
        found = [
            rule for rule in self._rules if rule.matches(kind, name, respelled=respelled, tags=tags)
        ]
        if not found:
            return None
        try:
            return functools.reduce(operator.and_, (rule.policy for rule in found))
        except ValueError:
            patterns = " and ".join(repr(rule.pattern) for rule in found)
            raise ValueError(
                f"{kind} {name!r} is matched by the rules {patterns}, which all apply, and "
                "cannot be public and guarded: write narrower patterns, and leave the rest to "
                "ToolGuard(default=...)"
            ) from None

    def unmatched(self, operations: Iterable[tuple[Kind, str, Collection[str]]]) -> Iterator[str]:
        """Yield the patterns that match none of ``operations``: kind, name and tags of each."""
        known = list(operations)
        for rule in self._rules:
            if not any(rule.matches(kind, name, tags=tags) for kind, name, tags in known):
                yield rule.pattern


class _Rule:
    """One pattern and its policy."""

    def __init__(self, pattern: str, guard: HasPolicy) -> None:
        prefix, name = _split(pattern)
        if not isinstance(getattr(guard, "policy", None), Policy):
            raise TypeError(f'write {{{pattern!r}: requires_scopes("...")}}: a guard, as above def')
        if guard.policy.connections:
            raise ValueError(
                f"the rule {pattern!r} fetches a connection that nothing takes: "
                "with_connection() goes above a function"
            )
        if guard.policy.approval is not None:
            raise ValueError(
                f"the rule {pattern!r} asks for an approval, and only a function has validated "
                "arguments: requires_approval() goes above a function"
            )
        self.pattern = pattern
        self.policy = guard.policy
        self.is_tag = prefix == _TAG
        self._kind = prefix
        respell = uri_spellings if prefix == "resource" else spellings
        self._names = [wildcard(each) for each in respell(name)]

    def matches(
        self, kind: Kind, name: str, *, respelled: bool = False, tags: Collection[str] = ()
    ) -> bool:
        """Return whether the rule applies to an operation with this name and these tags."""
        if self.is_tag:
            return any(self._names[0].fullmatch(tag) for tag in tags)
        names = self._names if respelled else self._names[:1]
        return self._kind in (None, kind) and any(each.fullmatch(name) for each in names)


def _split(pattern: str) -> tuple[str | None, str]:
    """Return the prefix of a pattern (None for all operations) and the rest.

    Raises:
        ValueError: if the pattern is empty, or its prefix is unknown.
    """
    of_kind("the pattern of a rule", pattern, str, '"delete_*" or "resource:file://*"')
    prefix, colon, name = pattern.partition(":")
    if not colon:
        prefix, name = "tool", pattern
    if prefix not in _PREFIXES:
        known = ", ".join(f'"{each}:"' for each in _PREFIXES)
        raise ValueError(
            f"the rule {pattern!r} has the unknown prefix {prefix + ':'!r}: write one of {known}; "
            f'a tool with a colon in its name is "tool:{pattern}"'
        )
    if not name:
        raise ValueError(f'{pattern!r} names nothing: write "delete_*" or "resource:file://*"')
    return (None if pattern == "*" else prefix), name
