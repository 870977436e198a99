"""Does a text match a pattern with ``*`` in it, in time that no text can stretch?"""

from __future__ import annotations

import re

__all__ = ["ANYTHING", "wildcard"]

#: What ``*`` stands for where nothing is said: any characters at all.
ANYTHING = "."


def wildcard(pattern: str, wild: str = ANYTHING) -> re.Pattern[str]:
    """Return what matches ``pattern`` whole.

    Patterns are the developer's, and texts come from clients: one ``.*`` after the other would
    be tried in all combinations. A piece between two ``*`` is instead taken where it occurs
    first: if what follows fits anywhere, it fits behind that one.

    Args:
        pattern: the text to match; ``*`` stands for any number of ``wild`` characters.
        wild: a regular expression for one character.

    >>> bool(wildcard("delete_*").fullmatch("delete_note"))
    True
    """
    first, *pieces = pattern.split("*")
    made = re.escape(first)
    for at, piece in enumerate(each for each in pieces[:-1] if each):
        # A lookahead that has matched is not tried again.
        made += f"(?=(?P<to{at}>{wild}*?{re.escape(piece)}))(?P=to{at})"
    if pieces:
        made += f"{wild}*{re.escape(pieces[-1])}"
    return re.compile(made, re.DOTALL)
