"""Names that a lenient JSON reader could take for another name.

Go's encoding/json ignores case and takes U+017F for "s"; Jackson, .NET and pydantic's aliases
ignore separators; others stop at a NUL.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Iterable

__all__ = ["letters", "resembles"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Members have short names; longer ones are not folded, to bound the work.
_MAX_LENGTH = 256


def resembles(names: Iterable[str], known: Collection[str]) -> bool:
    """Return whether a name that is not in ``known`` could be taken for one that is.

    A name that is too long to compare, or that contains a control character, counts as such.

    >>> resembles(["name", "arguments"], ["name"]), resembles(["Name"], ["name"])
    (False, True)
    """
    others = [name for name in names if name not in known]
    folded = {letters(name) for name in known} if others else ()
    return any(
        len(name) > _MAX_LENGTH or _CONTROL.search(name) or letters(name) in folded
        for name in others
    )


@functools.lru_cache(maxsize=1_024)
def letters(name: str) -> str:
    """Return the letters and digits of a name, without case, accents and separators.

    >>> letters("Tenant-ID")
    'tenantid'
    """
    folded = unicodedata.normalize("NFKD", name.upper()).casefold()
    return "".join(each for each in folded if each.isascii() and each.isalnum())
