"""Rewrite the ids in a stream of server-sent events, and detect its first data.

The stream is read line by line (WHATWG HTML, "Server-sent events"), independently of how it is
divided into chunks.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["EventStream"]

_END = re.compile(rb"[\r\n]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The fields that are not data; the name of a comment is empty.
_SILENT = (b"", b"id", b"event", b"retry")
_FIELDS = (*_SILENT, b"data")
# A longer id is not sent to clients; a longer event name counts as data.
_MAX_LINE = 4_096


class EventStream:
    """One outgoing stream of events.

    Args:
        seal: returns the sealed form of an event id.

    Attributes:
        has_data: whether the stream has contained data; an event without data does not count.
    """

    def __init__(self, seal: Callable[[bytes], bytes]) -> None:
        self.has_data = False
        self._seal = seal
        self._line = b""
        self._passes = False  # whether the rest of the line is passed on unchanged
        self._mark = _BYTE_ORDER_MARK  # may precede the first line

    def feed(self, chunk: bytes, *, last: bool = False) -> bytes:
        """Return the bytes to send for ``chunk``; a line that may be an id waits for its end."""
        out = []
        at = 0
        while end := _END.search(chunk, at):
            out.append(self._finish(chunk[at : end.start()]) + end[0])
            at = end.end()
        out.append(self._finish(chunk[at:]) if last else self._go_on(chunk[at:]))
        return b"".join(out)

    def _finish(self, piece: bytes) -> bytes:
        """Return the rest of a line that ends with ``piece``."""
        if self._passes:
            self._passes = False
            return piece
        line, self._line = self._line + piece, b""
        name, value = self._field(line)
        self._mark = b""
        if name not in _SILENT and not (name == b"data" and not value.strip()):
            self.has_data = True
        if name != b"id" or not value:
            return line
        # An over-long one becomes a comment, which no client reads.
        return b":" + line if len(line) > _MAX_LINE else b"id: " + self._seal(value)

    def _go_on(self, piece: bytes) -> bytes:
        """Return the bytes to send of a line that begins or continues with ``piece``."""
        if self._passes:
            return piece
        self._line += piece
        name, value = self._field(self._line)
        if len(self._line) <= _MAX_LINE and (
            name in _SILENT
            or (name == b"data" and not value.strip())
            or (b":" not in self._line and any(f.startswith(name) for f in _FIELDS))
            or self._mark.startswith(self._line)
        ):
            return b""
        line, self._line, self._mark = self._line, b"", b""
        self._passes = True
        self.has_data = self.has_data or name not in _SILENT
        return b":" + line if name == b"id" else line

    def _field(self, line: bytes) -> tuple[bytes, bytes]:
        name, _, value = line.removeprefix(self._mark).partition(b":")
        return name, value.removeprefix(b" ")
