"""Names that others chose, made fit to be shown."""

from __future__ import annotations

import unicodedata

__all__ = ["display_name"]

_MAX_NAME = 60


def display_name(name: str) -> str:
    """Return a name that a stranger chose, fit to be shown.

    Without control, format and direction characters, which could rearrange the sentence around
    it, in one line, and short.
    """
    spaced = "".join(" " if char.isspace() else char for char in name)
    shown = "".join(char for char in spaced if unicodedata.category(char)[0] != "C")
    words = " ".join(shown.split())
    return words if len(words) <= _MAX_NAME else words[: _MAX_NAME - 1].rstrip() + "…"
