"""The ``iss`` values of one issuer: a finite set, or templates whose free part is bound."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

__all__ = ["IssuerNames", "read_names"]

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
# One path segment that no reader of URLs takes for more (RFC 3986 §2.3, without the dot).
_SEGMENT = "[A-Za-z0-9_~-]{1,128}"
_MAX_NAMES = 100_000


@dataclass(frozen=True)
class IssuerNames:
    """The ``iss`` values that one issuer puts into its tokens; compared character by character.

    Attributes:
        exact: each name, and the claims that a token with this name must have.
        patterns: the templates with a part that may be any path segment.
    """

    exact: Mapping[str, Mapping[str, str]]
    patterns: tuple[re.Pattern[str], ...] = ()
    _claims: Mapping[str, str] = field(default_factory=dict)

    def accept(self, claims: Mapping[str, Any]) -> bool:
        """Return whether these are the claims of a token of this issuer."""
        name = claims.get("iss")
        bound = self._bound(name) if isinstance(name, str) else None
        return bound is not None and all(claims.get(key) == bound[key] for key in bound)

    def has(self, name: str) -> bool:
        """Return whether ``name`` is an ``iss`` value of this issuer."""
        return self._bound(name) is not None

    def overlap(self, other: IssuerNames) -> str | None:
        """Return a name, or a template, that belongs to both; None if there is none."""
        shared = next((name for name in self.exact if other.has(name)), None)
        shared = shared or next((name for name in other.exact if self.has(name)), None)
        if shared is not None:
            return shared
        theirs = {pattern.pattern for pattern in other.patterns}
        return next((each.pattern for each in self.patterns if each.pattern in theirs), None)

    def _bound(self, name: str) -> Mapping[str, str] | None:
        found = self.exact.get(name)
        if found is not None:
            return found
        for pattern in self.patterns:
            match = pattern.fullmatch(name)
            if match is not None:
                return {self._claims[key]: match[key] for key in match.groupdict()}
        return None


def read_names(
    names: Collection[str],
    members: Mapping[str, Collection[str] | None],
    member_claims: Mapping[str, str],
) -> IssuerNames:
    """Return the names of an issuer.

    Args:
        names: exact names, and templates such as ``https://login.example.com/{tenantid}/v2.0``.
        members: what each placeholder may stand for; None for any one path segment.
        member_claims: the claim that must repeat the value of a placeholder.

    Raises:
        ValueError: if a name is empty, or a placeholder is not declared.

    >>> found = read_names(["https://id.test/{tenant}"], {"tenant": ["a", "b"]}, {"tenant": "tid"})
    >>> found.accept({"iss": "https://id.test/a", "tid": "a"})
    True
    >>> found.accept({"iss": "https://id.test/a", "tid": "b"})
    False
    """
    exact: dict[str, dict[str, str]] = {}
    patterns = []
    for name in names:
        placeholders = _PLACEHOLDER.findall(name)
        _check_name(name, placeholders, members)
        if any(members[each] is None for each in placeholders):
            patterns.append(_pattern(name, members, member_claims))
            continue
        for chosen in product(*(members[each] or () for each in placeholders)):
            values = dict(zip(placeholders, chosen, strict=True))
            if len(exact) >= _MAX_NAMES:
                raise ValueError(f"an issuer has at most {_MAX_NAMES} names")
            exact[_filled(name, values)] = {
                member_claims[key]: value for key, value in values.items() if key in member_claims
            }
    return IssuerNames(exact, tuple(patterns), member_claims)


def _check_name(
    name: str, placeholders: Collection[str], members: Mapping[str, Collection[str] | None]
) -> None:
    if not name:
        raise ValueError("a name of an issuer is empty: write the iss of its tokens")
    unknown = [each for each in placeholders if each not in members]
    if unknown or re.search(r"[{}]", _PLACEHOLDER.sub("", name)):
        raise ValueError(
            f"{name!r} has a placeholder without members: write "
            f'members={{"{(unknown or ["tenant"])[0]}": [...]}}, the values that are allowed'
        )


def _filled(name: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: values[match[1]], name)


def _pattern(
    name: str,
    members: Mapping[str, Collection[str] | None],
    member_claims: Mapping[str, str],
) -> re.Pattern[str]:
    """Return the pattern of a template; a placeholder is a group if a claim must repeat it."""
    parts = []
    for position, part in enumerate(_PLACEHOLDER.split(name)):
        if position % 2 == 0:
            parts.append(re.escape(part))
            continue
        allowed = members[part]
        choice = _SEGMENT if allowed is None else "|".join(map(re.escape, allowed))
        group = f"?P<{part}>" if part in member_claims else "?:"
        parts.append(f"({group}{choice})")
    return re.compile("".join(parts), re.ASCII)
