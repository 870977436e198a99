"""Under which names could a server look up what a message names?

Frameworks resolve dots, decode percent-encodings, fold case and compose characters before they
look a name up, and each of them does something else. A rule about ``notes://private/*`` has to
hold for ``NOTES://public/%2e%2e/private/1``, too; so a name is held against the rules in every
spelling that a server could make of it.
"""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import unquote

__all__ = ["MAX_LENGTH", "spellings", "uri_spellings"]

#: How many characters a name may have: what browsers and caches take of a URL.
MAX_LENGTH = 2_048

# A URI that is encoded once and needs every other repair has about 50.
_MAX_SPELLINGS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Respelling = Callable[[str], str]


def spellings(name: str) -> tuple[str, ...]:
    """Return the spellings of the name of a tool or prompt, as it was sent first.

    Raises:
        ValueError: if it is blank or too long, if a control character is in it or a NUL encoded
            in it, or if it is encoded over and over: there is no end to what it could mean.

    >>> spellings("Delete%5Fnote")
    ('Delete%5Fnote', 'delete%5fnote', 'Delete_note', 'delete_note')
    """
    return _closure(name, _OF_NAMES)


def uri_spellings(uri: str) -> tuple[str, ...]:
    """Return the spellings of the URI of a resource, as it was sent first.

    Raises:
        ValueError: as :func:`spellings` does.

    >>> uri_spellings("notes://work/../private")  # the host is "work", or there is no host
    ('notes://work/../private', 'notes://work/private', 'notes://private')
    """
    return _closure(uri, _OF_URIS)


def _closure(name: str, respellings: Sequence[Respelling]) -> tuple[str, ...]:
    """Return ``name``, and what becomes of it by every sequence of ``respellings``."""
    if not name.strip() or len(name) > MAX_LENGTH or _CONTROL.search(name):
        raise ValueError(
            f"a name has 1 to {MAX_LENGTH} characters, not only blanks, and no control characters"
        )
    found = [name]
    for spelling in found:  # which grows meanwhile
        fresh = dict.fromkeys(respell(spelling) for respell in respellings)
        found += [each for each in fresh if each and each not in found]
        if len(found) > _MAX_SPELLINGS:
            raise ValueError("percent-encode a name once at most")
    return tuple(found)


def _normal_url(uri: str) -> str:
    """Return a URI as frameworks that validate it pass it on: without dots, its scheme folded."""
    from pydantic import AnyUrl, ValidationError  # noqa: PLC0415 - takes long to import

    try:
        return str(AnyUrl(uri))
    except ValidationError:
        return uri  # they refuse it; others look it up as it is


def _without_dots(uri: str) -> str:
    """Return what is left for who takes everything after the scheme for a path."""
    scheme, separator, path = uri.partition("://")
    if not separator or "." not in path:
        return uri
    root = "/" if path.startswith("/") else ""
    # From the root, so that nothing is left of dots that lead out of it.
    return f"{scheme}://{root}{posixpath.normpath(f'/{path}').lstrip('/')}"


def _without_query(uri: str) -> str:
    """Return what templates of resources are matched against, whatever comes after."""
    return re.split(r"[?#]", uri, maxsplit=1)[0]


def _compatible(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def _decoded(name: str) -> str:
    decoded = unquote(name)
    if "\0" in decoded:
        raise ValueError("a name holds no NUL, which some would take for its end")
    return decoded


_OF_NAMES: tuple[Respelling, ...] = (str.strip, _compatible, str.casefold, _decoded)
_OF_URIS: tuple[Respelling, ...] = (_normal_url, *_OF_NAMES, _without_dots, _without_query)
