"""Match URIs with the resource templates that a server lists (RFC 6570)."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection

from toolguard.parsing.spellings import uri_spellings
from toolguard.parsing.wildcards import wildcard

__all__ = ["templates_of"]

_EXPRESSION = re.compile(r"\{[^{}]*\}")
_OPERATOR = re.compile(r"\{[^\w{}]")


def templates_of(
    uri: str, templates: Collection[str], *, is_listed: bool = False
) -> tuple[str, ...]:
    """Return the templates that a server could match with ``uri``.

    A server may match its templates less strictly than the RFC. So if no template matches with one
    path segment for each variable, all templates count that match with any text for a variable.

    Args:
        uri: the URI.
        templates: the templates that the server lists.
        is_listed: whether the server lists the URI too. URIs that are not listed are matched in
            every spelling.

    >>> known = ["notes://{id}", "notes://{id}/secret"]
    >>> templates_of("notes://1/secret", known)
    ('notes://{id}/secret',)
    >>> templates_of("notes://1/other", known)
    ('notes://{id}',)
    """
    if not templates:
        return ()
    spelled = (uri,) if is_listed else _spellings(uri)
    fitting = {t for t in templates for each in spelled if _fits_segments(t, each)}
    if not fitting:
        fitting = {t for t in templates for each in spelled if _any(t).fullmatch(each)}
    return tuple(each for each in templates if each in fitting)


def _spellings(uri: str) -> tuple[str, ...]:
    try:
        return uri_spellings(uri)
    except ValueError:  # refused where the rules are applied
        return (uri,)


def _fits_segments(template: str, uri: str) -> bool:
    if _OPERATOR.search(template):  # it may stand for several segments
        return bool(_any(template).fullmatch(uri))
    wanted, given = template.split("/"), uri.split("/")
    return len(wanted) == len(given) and all(
        _any(each).fullmatch(segment) for each, segment in zip(wanted, given, strict=True)
    )


@functools.lru_cache(maxsize=1_024)
def _any(template: str) -> re.Pattern[str]:
    """Return a pattern that matches every expansion of ``template``."""
    return wildcard(_EXPRESSION.sub("*", template))
