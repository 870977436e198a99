"""Text of others, as it is shown on a terminal."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    r"""Return text of a server without characters that could control a terminal.

    >>> printable("a\x1b[2Jb") == r"a\x1b[2Jb"
    True
    """
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)
