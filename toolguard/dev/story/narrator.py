"""Print the steps of the demo on a terminal.

The output is ASCII, in the style of ``curl -v``: ``>`` is sent, ``<`` is received, ``*`` is a note.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import TextIO
from urllib.parse import urlsplit

from toolguard.dev.story.mcp_client import HTTPExchange, Outcome

__all__ = ["Narrator", "UnexpectedStepError"]

_BOLD, _DIM, _GREEN, _RED, _YELLOW, _CYAN, _PLAIN = "1", "2", "32", "31", "33", "36", "0"
_OK_BELOW = 400
_GRANTS = ("authorization_code", "refresh_token")


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
        """Begin the next step, with what a person does."""
        self._steps += 1
        self._line("")
        self._line(f"{self._steps:2}. {text}", _BOLD, hanging=4)

    def says(self, text: str) -> None:
        """Say in a sentence what it means."""
        self._line(f"    {text}", hanging=4)

    def asks(self, text: str) -> None:
        """Ask the user of the demo to do something."""
        self._line(f"    {text}", _BOLD, hanging=4)

    def outcome(self, outcome: Outcome, visits: Sequence[str] = (), *, brief: bool = False) -> None:
        """Show what passed on the wire, and which pages a person saw in between.

        Args:
            outcome: what came of a question.
            visits: the pages, for each time the person was sent to the browser.
            brief: leave out how the client found the server and was registered.
        """
        unseen = list(visits)
        for exchange in _worth_telling(outcome.exchanges, brief=brief):
            if exchange.about == "authorization_code" and unseen:
                self.visit(unseen.pop(0))
            self.exchange(exchange)
        for visit in unseen:
            self.visit(visit)

    def visit(self, pages: str) -> None:
        """Show which pages a person saw."""
        self._line(f"    * in the browser: {pages}", _YELLOW, hanging=6)

    def exchange(self, exchange: HTTPExchange) -> None:
        """Show a request and its answer, with the challenge if it has one."""
        about = f"   ({exchange.about})" if exchange.about else ""
        self._line(f"    > {exchange.method} {exchange.url}{about}", _DIM, hanging=6)
        colour = _GREEN if exchange.status < _OK_BELOW else _RED
        self._line(f"    < {exchange.status_line}", colour)
        challenge = exchange.headers.get("www-authenticate")
        if challenge is not None:
            self._line(f"    < WWW-Authenticate: {challenge}", _CYAN, hanging=6)

    def expect(self, expected: object, found: object) -> None:
        """Hold a step against what it should be.

        Raises:
            UnexpectedStepError: if they differ.
        """
        if expected != found:
            raise UnexpectedStepError(f"expected {expected!r}, found {found!r}")

    def closes(self) -> None:
        """Say that it went as it should, and what to do next."""
        self._line("")
        self._line(f"All {self._steps} steps went as they should.", _BOLD)
        self._line("With a client of your own: toolguard dev --calendar")

    def failed(self, message: str) -> None:
        """Say that the story cannot go on."""
        self._line(f"    step {self._steps}: {message}", _RED, hanging=4)

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


def _worth_telling(exchanges: Sequence[HTTPExchange], *, brief: bool) -> list[HTTPExchange]:
    """Leave out the greetings of the protocol, and what a client does for itself."""
    calls = any(each.about.startswith("tools/call") for each in exchanges)
    told = [each for each in exchanges if _is_told(each, brief=brief)]
    # To check a result, a client reads the tool's schema; that is not part of the story.
    return [each for each in told if not (calls and each.about == "tools/list")]


def _is_told(exchange: HTTPExchange, *, brief: bool) -> bool:
    if exchange.about.startswith("tools/") or exchange.about in _GRANTS:
        return True
    is_greeting = urlsplit(exchange.url).path == "/mcp" and exchange.status < _OK_BELOW
    return not brief and not is_greeting
