"""Decision records as lines of JSON."""

from __future__ import annotations

import logging
from typing import TextIO

from toolguard.calls.records import DecisionRecord

__all__ = ["JSONLines"]


class JSONLines:
    """Writes each decision record as one line of JSON.

    Args:
        to: a logger, which gets them at INFO, or a text stream, which is flushed after each.

    >>> import sys
    >>> record = DecisionRecord(1.5, "https://mcp.example.com/mcp", "served", operation="add")
    >>> JSONLines(sys.stdout)(record)  # doctest: +ELLIPSIS
    {"time": 1.5, "server": "https://mcp.example.com/mcp", "verdict": "served", ...}
    """

    def __init__(self, to: logging.Logger | TextIO) -> None:
        self._to = to

    def __call__(self, record: DecisionRecord) -> None:
        """Write one record."""
        if isinstance(self._to, logging.Logger):
            self._to.info("%s", record.to_json())
        else:
            self._to.write(record.to_json() + "\n")
            self._to.flush()

    def __repr__(self) -> str:
        return f"JSONLines({self._to!r})"
