"""The last decisions of the development server, with their reasons, for its console.

A note holds no token, code or secret: what was decided, and the sentence that the client was told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from toolguard.dev.oauth.refusals import Endpoint, Refusal

__all__ = ["Note", "Notes", "fit_to_show", "noting"]

_KEPT = 50
_LONGEST = 300


@dataclass(frozen=True)
class Note:
    """One decision.

    Attributes:
        at: when, in seconds since the epoch.
        decision: what was decided.
        reason: why.
    """

    at: float
    decision: str
    reason: str


class Notes:
    """The last decisions.

    Args:
        clock: the time in seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: deque[Note] = deque(maxlen=_KEPT)

    def add(self, decision: str, reason: str) -> None:
        """Note a decision."""
        self._last.appendleft(Note(self._clock(), fit_to_show(decision), fit_to_show(reason)))

    @property
    def last(self) -> tuple[Note, ...]:
        """The last decisions, the newest first."""
        return tuple(self._last.copy())


def noting(notes: Notes, name: str, endpoint: Endpoint) -> Endpoint:
    """Return ``endpoint``, with its refusals noted under ``name``."""

    async def noted(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            notes.add(f"{name} refused: {refusal.error}", refusal.description)
            raise

    return noted


def fit_to_show(text: str) -> str:
    """Return text without control characters, and not too long."""
    shown = "".join(char if char.isprintable() else " " for char in text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
