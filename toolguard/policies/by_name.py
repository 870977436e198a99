"""Which rules apply to an operation by its name?

All that match apply, together with what its decorators say: adding a rule never lifts another,
and their order means nothing. Where the most specific one won, a narrow rule would lift a broad
one without saying so.
"""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from toolguard.decorators.wrapper import GuardDecorator
from toolguard.parsing.spellings import spellings, uri_spellings
from toolguard.parsing.wildcards import wildcard
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["OperationRules"]

_PATTERN = re.compile(r"(?:(tool|resource|prompt):)?(.*)", re.DOTALL)
# Longer names come from clients that make them up; they are looked at, and not remembered.
_MAX_REMEMBERED = 256


class OperationRules:
    """Guards by the name of the operation.

    Args:
        rules: pattern -> guard. A pattern names tools (``"delete_*"``, ``"tool:delete_*"``),
            resources by URI or URI template (``"resource:file://*"``) or prompts
            (``"prompt:*"``); ``"*"`` alone is every operation of every kind. ``*`` stands for
            any characters.

    Raises:
        ValueError: for an empty pattern, or a guard that injects a connection.
        TypeError: for a guard that is none.

    >>> from toolguard import requires_auth, requires_scopes
    >>> rules = OperationRules({"delete_*": requires_scopes("admin"), "*": requires_auth})
    >>> str(rules.policy("tool", "delete_event"))
    'admin'
    >>> str(rules.policy("prompt", "plan"))
    'any authenticated caller'
    """

    def __init__(self, rules: Mapping[str, GuardDecorator]) -> None:
        self._rules = tuple(_Rule(pattern, guard) for pattern, guard in rules.items())
        self._remembered = functools.lru_cache(maxsize=1_024)(self._find)

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of all rules, in their order."""
        return tuple(rule.policy for rule in self._rules)

    def policy(self, kind: Kind, name: str, *, respelled: bool = False) -> Policy | None:
        """Return what applies to an operation; None if no rule does.

        Args:
            kind: of the operation.
            name: what it is called.
            respelled: whether this is another spelling of the name that was sent, to be held
                against other spellings of the patterns, too.

        Raises:
            ValueError: if it would be public and guarded at once.
        """
        if len(name) > _MAX_REMEMBERED:
            return self._find(kind, name, respelled)
        return self._remembered(kind, name, respelled)

    def names(self, kind: Kind, name: str) -> bool:
        """Return whether a rule without ``*`` is about an operation with this name."""
        return any("*" not in rule.pattern and rule.matches(kind, name) for rule in self._rules)

    def policy_of_all(
        self, kind: Kind, names: Sequence[str], otherwise: Policy | None
    ) -> Policy | None:
        """Return what lets in who may do an operation whatever it is looked up as.

        Args:
            kind: of the operation.
            names: every name under which a server may look it up, at least one.
            otherwise: what applies to a name that no rule matches; None if nobody may.

        Returns:
            The policy; None if nobody may.

        Raises:
            ValueError: if a name would be public and guarded at once.
        """
        found = [
            self.policy(kind, name, respelled=at > 0) or otherwise for at, name in enumerate(names)
        ]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        guarded = [each for each in known if not each.public]
        return functools.reduce(operator.and_, guarded) if guarded else known[0]

    def _find(self, kind: Kind, name: str, respelled: bool) -> Policy | None:  # noqa: FBT001 - a key
        found = [rule for rule in self._rules if rule.matches(kind, name, respelled=respelled)]
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

    def unmatched(self, operations: Iterable[tuple[Kind, str]]) -> Iterator[str]:
        """Yield the patterns that match none of ``operations``."""
        known = list(operations)
        for rule in self._rules:
            if not any(rule.matches(kind, name) for kind, name in known):
                yield rule.pattern


class _Rule:
    """One pattern and its policy."""

    def __init__(self, pattern: str, guard: GuardDecorator) -> None:
        match = _PATTERN.fullmatch(pattern)
        if match is None or not match[2]:
            raise ValueError(f'{pattern!r} names nothing: write "delete_*" or "resource:file://*"')
        if not isinstance(guard, GuardDecorator):
            raise TypeError(f'write {{{pattern!r}: requires_scopes("...")}}: a guard, as above def')
        if guard.policy.connections:
            raise ValueError(
                f"the rule {pattern!r} fetches a connection that nothing takes: "
                "with_connection() goes above a function"
            )
        self.pattern = pattern
        self.policy = guard.policy
        self._kind = match[1] or (None if pattern == "*" else "tool")
        respell = uri_spellings if self._kind == "resource" else spellings
        self._names = [wildcard(each) for each in respell(match[2])]

    def matches(self, kind: Kind, name: str, *, respelled: bool = False) -> bool:
        """Return whether it applies to an operation with this name."""
        names = self._names if respelled else self._names[:1]
        return self._kind in (None, kind) and any(each.fullmatch(name) for each in names)
