"""Which of the templates that a server lists could a URI be of (RFC 6570)?"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from toolguard.parsing.spellings import uri_spellings
from toolguard.parsing.wildcards import wildcard

__all__ = ["templates_of"]

_EXPRESSION = re.compile(r"\{[^{}]*\}")
_OPERATOR = re.compile(r"\{[^\w{}]")


def templates_of(uri: str, templates: Iterable[str]) -> tuple[str, ...]:
    """Return the templates that a server could take ``uri`` for one of.

    A server may read its templates less strictly than the RFC does. So where no template fits one
    segment of the path for each variable, all those count in which a variable may stand for
    anything.

    >>> known = ["notes://{id}", "notes://{id}/secret"]
    >>> templates_of("notes://1/secret", known)
    ('notes://{id}/secret',)
    >>> templates_of("notes://1/other", known)
    ('notes://{id}',)
    """
    try:
        spelled = uri_spellings(uri)
    except ValueError:  # refused where the rules are held against it
        spelled = (uri,)
    fitting = {t for t in templates for each in spelled if _fits_segments(t, each)}
    if not fitting:
        fitting = {t for t in templates for each in spelled if _any(t).fullmatch(each)}
    return tuple(each for each in templates if each in fitting)


def _fits_segments(template: str, uri: str) -> bool:
    if _OPERATOR.search(template):  # which may stand for several segments
        return bool(_any(template).fullmatch(uri))
    wanted, given = template.split("/"), uri.split("/")
    return len(wanted) == len(given) and all(
        _any(each).fullmatch(segment) for each, segment in zip(wanted, given, strict=True)
    )


@functools.lru_cache(maxsize=1_024)
def _any(template: str) -> re.Pattern[str]:
    """Return what matches every text that ``template`` could stand for."""
    return wildcard(_EXPRESSION.sub("*", template))
