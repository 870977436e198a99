"""Compile patterns with ``*`` to regular expressions that do not backtrack exponentially."""

from __future__ import annotations

import re

__all__ = ["ANYTHING", "wildcard"]

#: The default for one character of ``*``: any character.
ANYTHING = "."


def wildcard(pattern: str, wild: str = ANYTHING) -> re.Pattern[str]:
    """Return a regular expression for ``pattern``, to be used with ``fullmatch``.

    Texts come from clients, so matching time is bounded: consecutive ``.*`` would be tried in all
    combinations. A piece between two ``*`` is instead matched at its first occurrence only: if
    the rest fits anywhere, it fits after that one.

    Args:
        pattern: the text to match; ``*`` stands for any number of ``wild`` characters.
        wild: a regular expression for one character.

    >>> bool(wildcard("delete_*").fullmatch("delete_note"))
    True
    """
    first, *pieces = pattern.split("*")
    made = re.escape(first)
    for at, piece in enumerate(each for each in pieces[:-1] if each):
        # A regular expression engine does not backtrack into a lookahead that has matched.
        made += f"(?=(?P<to{at}>{wild}*?{re.escape(piece)}))(?P=to{at})"
    if pieces:
        made += f"{wild}*{re.escape(pieces[-1])}"
    return re.compile(made, re.DOTALL)
