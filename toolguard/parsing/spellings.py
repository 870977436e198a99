"""All spellings under which a server could look up a name or URI from a message.

Frameworks resolve dot segments, decode percent-encodings, fold case, compose characters, drop
invisible ones and take "-" for "_" before they look up a name, each in its own way. A rule for
``notes://private/*`` has to apply to ``NOTES://public/%2e%2e/private/1`` too; so the rules are
matched against every spelling that a server could derive from a name.
"""

from __future__ import annotations

import functools
import posixpath
import re
import unicodedata
from collections.abc import Callable, Sequence
from urllib.parse import unquote

__all__ = ["MAX_LENGTH", "spellings", "uri_spellings"]

#: The maximum length of a name in characters: what browsers and caches accept of a URL.
MAX_LENGTH = 2_048

# A URI that is encoded once and that every other step changes has about 50.
_MAX_SPELLINGS = 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Written out, because a look at each character takes too many steps. Unicode: category Cf and
# Default_Ignorable_Code_Point; then Pd and Zs.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_SEPARATOR = re.compile(
    "[-. \u00a0\u058a\u05be\u1400\u1680\u1806\u2000-\u200a\u2010-\u2015\u202f\u205f\u2e17\u2e1a"
    "\u2e3a\u2e3b\u2e40\u2e5d\u3000\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d\U00010d6e"
    "\U00010ead]"
)
_USERINFO = re.compile(r"^([^:/?#]+://)[^/?#]*@")

Respelling = Callable[[str], str]


def spellings(name: str) -> tuple[str, ...]:
    """Return the spellings of the name of a tool or prompt; the first is the name as sent.

    Raises:
        ValueError: if the name is blank or too long, contains a control character or an encoded
            NUL, or is percent-encoded repeatedly, which gives too many spellings.

    >>> spellings("Delete%5Fnote")
    ('Delete%5Fnote', 'delete%5fnote', 'Delete_note', 'delete_note')
    """
    return _closure(name, _FOR_NAMES)


def uri_spellings(uri: str) -> tuple[str, ...]:
    """Return the spellings of the URI of a resource; the first is the URI as sent.

    Raises:
        ValueError: as :func:`spellings` does.

    >>> uri_spellings("notes://work/../private")  # the host is "work", or there is no host
    ('notes://work/../private', 'notes://work/private', 'notes://private')
    """
    return _closure(uri, _FOR_URIS)


def _closure(name: str, respellings: Sequence[Respelling]) -> tuple[str, ...]:
    """Return ``name`` and the results of every sequence of ``respellings`` on it."""
    if not name.strip() or len(name) > MAX_LENGTH or _CONTROL.search(name):
        raise ValueError(
            f"a name must have 1 to {MAX_LENGTH} characters, not only blanks, and no control "
            "characters"
        )
    found = [name]
    for spelling in found:  # the list grows during the loop
        fresh = dict.fromkeys(respell(spelling) for respell in respellings)
        found += [each for each in fresh if each and each not in found]
        if len(found) > _MAX_SPELLINGS:
            raise ValueError("percent-encode a name once at most")
    return tuple(found)


def _normalize_url(uri: str) -> str:
    """Return a URI as pydantic normalizes it: no dot segments, scheme in lower case."""
    from pydantic import AnyUrl, ValidationError  # noqa: PLC0415 - takes long to import

    try:
        return str(AnyUrl(uri))
    except ValidationError:
        return uri  # validating frameworks refuse it; others look it up unchanged


def _resolve_dots(uri: str) -> str:
    """Resolve dot segments as a reader does that takes all after the scheme as the path."""
    scheme, separator, path = uri.partition("://")
    if not separator or ("." not in path and "//" not in path):
        return uri
    root = "/" if path.startswith("/") else ""
    # Normalized from the root, which drops dot segments that lead out of it, and empty segments.
    return f"{scheme}://{root}{posixpath.normpath(f'/{path}').lstrip('/')}"


def _drop_userinfo(uri: str) -> str:
    """Return the URI without a user, as readers see it that look at the host (RFC 3986 §3.2)."""
    return _USERINFO.sub(r"\1", uri, count=1)


def _drop_query(uri: str) -> str:
    """Return the URI without query and fragment, as resource templates are matched."""
    return re.split(r"[?#]", uri, maxsplit=1)[0]


def _decode(name: str) -> str:
    decoded = unquote(name)
    if "\0" in decoded:
        raise ValueError("a name must not contain NUL, at which some readers stop")
    return decoded


_compose: Respelling = functools.partial(unicodedata.normalize, "NFKC")
_drop_invisible: Respelling = functools.partial(_INVISIBLE.sub, "")
_join_words: Respelling = functools.partial(_SEPARATOR.sub, "_")
_FOR_ALL: tuple[Respelling, ...] = (str.strip, _compose, str.casefold, _decode, _drop_invisible)
_FOR_NAMES: tuple[Respelling, ...] = (*_FOR_ALL, _join_words)
_FOR_URIS: tuple[Respelling, ...] = (
    _normalize_url,
    *_FOR_ALL,
    _resolve_dots,
    _drop_userinfo,
    _drop_query,
)
