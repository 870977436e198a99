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
# Unicode, Default_Ignorable_Code_Point: those that are no format characters.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_SEPARATORS = "-. "  # and what is a dash or a blank elsewhere
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


def _drop_invisible(name: str) -> str:
    """Return the name without joiners, soft hyphens, variation selectors and the like."""
    if name.isascii():
        return name
    seen = _INVISIBLE.sub("", name)
    return "".join(each for each in seen if unicodedata.category(each) != "Cf")


def _join_words(name: str) -> str:
    """Return the name with "_" in the place of what separates words elsewhere."""
    return "".join(
        "_" if each in _SEPARATORS or unicodedata.category(each) in ("Pd", "Zs") else each
        for each in name
    )


_compose: Respelling = functools.partial(unicodedata.normalize, "NFKC")
_FOR_ALL: tuple[Respelling, ...] = (str.strip, _compose, str.casefold, _decode, _drop_invisible)
_FOR_NAMES: tuple[Respelling, ...] = (*_FOR_ALL, _join_words)
_FOR_URIS: tuple[Respelling, ...] = (
    _normalize_url,
    *_FOR_ALL,
    _resolve_dots,
    _drop_userinfo,
    _drop_query,
)
