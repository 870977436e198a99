"""How is a step of the demo told on a terminal?

ASCII only, in the manner of ``curl -v``: ``>`` is sent, ``<`` is received.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Mapping
from typing import TextIO

from toolguard.dev.client import Exchange

__all__ = ["Narrator", "UnexpectedStepError"]

_BOLD, _DIM, _GREEN, _RED, _CYAN, _PLAIN = "1", "2", "32", "31", "36", "0"
_OK_BELOW = 400


class UnexpectedStepError(Exception):
    """A step of the story did not go as it should."""


class Narrator:
    """Tells the story.

    Args:
        out: where to.
        environ: ``NO_COLOR`` (of any value but the empty one) and ``TERM=dumb`` turn colours off;
            they are on only for a terminal.
    """

    def __init__(self, out: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._out = out
        plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
        self._colours = out.isatty() and not plain
        # Only a terminal needs short lines; in a file a header stays in one piece.
        self._width = min(shutil.get_terminal_size().columns, 100) if out.isatty() else 10_000
        self._steps = 0

    def title(self, text: str) -> None:
        """Say what begins."""
        self._line(text, _BOLD)

    def step(self, text: str) -> None:
        """Begin the next step: what somebody does."""
        self._steps += 1
        self._line("")
        self._line(f"{self._steps:2}. {text}", _BOLD, hanging=4)

    def says(self, text: str) -> None:
        """Say in a sentence what it means."""
        self._line(f"    {text}", hanging=4)

    def exchange(self, exchange: Exchange, *headers: str, note: str = "") -> None:
        """Show a request and its answer, with those of the named headers that it has."""
        sent = f"    > {exchange.method} {exchange.url}"
        self._line(sent + (f"   ({note})" if note else ""), _DIM, hanging=6)
        colour = _GREEN if exchange.status < _OK_BELOW else _RED
        self._line(f"    < {exchange.status_line}", colour)
        for name in headers:
            if name.lower() in exchange.headers:
                self._line(f"    < {name}: {exchange.headers[name.lower()]}", _CYAN, hanging=6)

    def expect(self, expected: object, found: object) -> None:
        """Hold a step against what it should be.

        Raises:
            UnexpectedStepError: if they differ.
        """
        if expected != found:
            message = f"step {self._steps}: expected {expected!r}, found {found!r}"
            self._line(f"    {message}", _RED, hanging=4)
            raise UnexpectedStepError(message)

    def _line(self, text: str, colour: str = _PLAIN, *, hanging: int = 0) -> None:
        for line in textwrap.wrap(
            text,
            self._width,
            subsequent_indent=" " * hanging,
            break_long_words=False,
            break_on_hyphens=False,
            drop_whitespace=True,
        ) or [""]:
            shown = f"\x1b[{colour}m{line}\x1b[0m" if self._colours and colour != _PLAIN else line
            print(shown, file=self._out, flush=True)
