"""Decision records as lines of JSON."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TextIO

from toolguard.calls.records import DecisionRecord

__all__ = ["JSONLines"]


class JSONLines:
    """Writes each decision record as one line of JSON.

    A file is made for its owner only (mode 0600), opened for each record and appended to with one
    write. So it may be moved away or emptied at any time, and several processes may share it.
    Nothing here limits its size.

    Args:
        to: a logger, which gets them at INFO; a text stream, which is flushed after each; or the
            path of a file.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if ``to`` is neither a path, nor a text stream, nor a logger.

    >>> import sys
    >>> record = DecisionRecord(1.5, "https://mcp.example.com/mcp", "served", operation="add")
    >>> JSONLines(sys.stdout)(record)  # doctest: +ELLIPSIS
    {"time": 1.5, "server": "https://mcp.example.com/mcp", "verdict": "served", ...}
    """

    def __init__(self, to: logging.Logger | TextIO | str | os.PathLike[str]) -> None:
        self._to: logging.Logger | TextIO | Path
        if isinstance(to, (str, os.PathLike)):
            self._to = Path(to).absolute()
            _append(self._to, "")
        elif isinstance(to, logging.Logger) or callable(getattr(to, "write", None)):
            self._to = to
        else:
            raise TypeError(
                f"JSONLines writes to a path, a text stream or a logger, not {type(to).__name__}: "
                'write JSONLines("decisions.jsonl") (is a variable unset?)'
            )

    def __call__(self, record: DecisionRecord) -> None:
        """Write one record."""
        if isinstance(self._to, logging.Logger):
            self._to.info("%s", record.to_json())
        elif isinstance(self._to, Path):
            _append(self._to, record.to_json() + "\n")
        else:
            self._to.write(record.to_json() + "\n")
            self._to.flush()

    def __repr__(self) -> str:
        to = str(self._to) if isinstance(self._to, Path) else self._to
        return f"JSONLines({to!r})"


def _append(path: Path, text: str) -> None:
    opened = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(opened, text.encode("ascii"))
    finally:
        os.close(opened)
