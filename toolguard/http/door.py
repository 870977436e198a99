"""How does a guard answer over HTTP, and what do all the doors of one guard share?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from toolguard.calls.request import Guard
from toolguard.errors import AccessDeniedError, KeysUnavailableError, ToolGuardError
from toolguard.http.challenge import Challenge, ChallengeScopes
from toolguard.http.event_ids import EventIds

__all__ = ["Denials", "Door", "HTTPGuard", "HeldBytes", "Outages", "Wire"]

Denials = Literal["auto", "http", "tool-error"]
"""How a caller hears that no further scope would help: with 403, or from the operation."""

Outages = Literal["http", "tool-error"]
"""How a caller hears that tokens cannot be verified now: with 503, or from the operation."""

# From here on, clients add the scopes of a challenge to theirs, and live after a 403.
_ADDING_UP = "2026-07-28"
_MAX_HELD = 64 * 1024 * 1024


@dataclass(frozen=True)
class Wire:
    """How refusals are answered.

    Attributes:
        challenge_scopes: ``"required"``: a challenge names what the operation needs.
            ``"combined"``: what the caller holds as well. ``"auto"``: the first for revisions
            whose clients add up, the second for earlier ones, whose clients replace.
        denials: ``"http"``: 403. ``"tool-error"``: as the framework reports errors. ``"auto"``:
            the first for requests of 2026-07-28 and later; earlier clients end their session.
        outages: ``"http"``: 503. ``"tool-error"``: as the framework reports errors.
    """

    challenge_scopes: ChallengeScopes | Literal["auto"] = "auto"
    denials: Denials = "auto"
    outages: Outages = "http"

    def scopes_for(self, revision: str | None) -> ChallengeScopes:
        """Return which scopes a challenge names to a client of this revision."""
        if self.challenge_scopes != "auto":
            return self.challenge_scopes
        return "required" if _adds_up(revision) else "combined"

    def status_of(self, refusal: ToolGuardError, revision: str | None) -> int | None:
        """Return the status that answers ``refusal``; None if the framework's answer does."""
        if isinstance(refusal, AccessDeniedError):
            over_http = self.denials == "http" or (self.denials == "auto" and _adds_up(revision))
        elif isinstance(refusal, KeysUnavailableError):
            over_http = self.outages == "http"
        else:
            over_http = True
        return refusal.status if over_http else None


def _adds_up(revision: str | None) -> bool:
    return revision is not None and revision >= _ADDING_UP


class HeldBytes:
    """How much of the bodies that are being read is held at once.

    Args:
        limit: how many bytes.
    """

    def __init__(self, limit: int = _MAX_HELD) -> None:
        self._free = limit

    def take(self, count: int) -> bool:
        """Take room for so many bytes; return whether there is."""
        if count > self._free:
            return False
        self._free -= count
        return True

    def give_back(self, count: int) -> None:
        """Give the room back."""
        self._free += count


@dataclass(frozen=True)
class Door:
    """What all the doors of one guard share.

    Attributes:
        wire: how refusals are answered.
        event_ids: what seals the ids of events.
        held: how much of bodies is held.
    """

    wire: Wire = field(default_factory=Wire)
    event_ids: EventIds = field(default_factory=EventIds)
    held: HeldBytes = field(default_factory=HeldBytes)


class HTTPGuard(Guard, Protocol):
    """What the middleware needs of a guard."""

    @property
    def door(self) -> Door:
        """What all of its doors share."""
        ...

    def challenge(self, refusal: ToolGuardError, revision: str | None = None) -> Challenge | None:
        """Return the challenge for a refusal, to a client of some revision."""
        ...
