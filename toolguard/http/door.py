"""How a guard refuses, and the state that all its ASGI middlewares share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from toolguard.calls.request import Guard, TaskExpiry, UnauthorizedTools
from toolguard.errors import AccessDeniedError, KeysUnavailableError, ToolGuardError
from toolguard.http.challenge import Challenge, ChallengeScopes
from toolguard.http.event_ids import EventIds
from toolguard.parsing.choice import one_of
from toolguard.parsing.kinds import text_list
from toolguard.parsing.scope_token import check_requestable

if TYPE_CHECKING:
    from toolguard.tokens.proofs.possession import Possession

__all__ = ["Denials", "Door", "HTTPGuard", "HeldBytes", "Outages", "Refusals"]

Denials = Literal["auto", "http", "tool-error"]
"""How to report a refusal that no further scope would change: with 403, or as a tool error."""

Outages = Literal["http", "tool-error"]
"""How to report that tokens cannot be verified now: with 503, or as a tool error."""

# From this revision, clients add a challenge's scopes to theirs and keep a session after 403.
_ADDING_UP = "2026-07-28"
_MAX_HELD = 64 * 1024 * 1024


@dataclass(frozen=True)
class Refusals:
    """How a guard refuses: over HTTP, in lists and in tasks, and what clients then ask for.

    Attributes:
        initial_scopes: the scopes that a client without a token is told to request; by default
            (None) the smallest grant that permits some operation, and with ``"hide-all"`` none
            if some operation needs no scope.
        unauthorized_tools: the operations that lists omit for a caller: ``"show"``: none, so that
            a client can step up. ``"hide"``: those that no consent could permit (denied by tenant,
            role, ...). ``"hide-all"``: all that would be refused; the metadata document then
            names ``initial_scopes`` only.
        challenge_scopes: the scopes in the challenge of a 403. ``"required"``: those the operation
            needs. ``"combined"``: also those the caller has. ``"auto"``: ``"required"`` for
            requests of protocol revision 2026-07-28 and later, whose clients add scopes;
            ``"combined"`` for earlier ones, whose clients replace them.
        denials: how to report a denial that no scope would change. ``"http"``: with 403.
            ``"tool-error"``: as the framework reports errors. ``"auto"``: ``"http"`` for requests
            of 2026-07-28 and later; earlier clients end the session at a 403.
        outages: how to report that tokens cannot be verified now. ``"http"``: with 503.
            ``"tool-error"``: as the framework reports errors, for clients that end their session
            at a 503 (mcp 1, fastmcp 3).
        task_expiry: when to refuse a background task (``task=True`` of fastmcp) whose token
            expires before it has ended. ``"continue"``: it continues, and connections are refused
            from then on. ``"stop"``: it is refused when it starts, and when it next calls a
            guarded function.

    Raises:
        ValueError: if a setting has another value, or a challenge cannot request a scope.
        TypeError: if ``initial_scopes`` is not a list.

    >>> Refusals(initial_scopes=["calendar.read"], outages="tool-error").initial_scopes
    ('calendar.read',)
    """

    initial_scopes: Sequence[str] | None = None
    unauthorized_tools: UnauthorizedTools = "show"
    challenge_scopes: ChallengeScopes | Literal["auto"] = "auto"
    denials: Denials = "auto"
    outages: Outages = "http"
    task_expiry: TaskExpiry = "continue"

    def __post_init__(self) -> None:
        if self.initial_scopes is not None:
            object.__setattr__(self, "initial_scopes", _read_scopes(self.initial_scopes))
        one_of("unauthorized_tools", self.unauthorized_tools, ("show", "hide", "hide-all"))
        one_of("challenge_scopes", self.challenge_scopes, ("auto", "required", "combined"))
        one_of("denials", self.denials, ("auto", "http", "tool-error"))
        one_of("outages", self.outages, ("http", "tool-error"))
        one_of("task_expiry", self.task_expiry, ("continue", "stop"))

    def scopes_for(self, revision: str | None) -> ChallengeScopes:
        """Return whether a challenge to a client of this revision combines scopes.

        Args:
            revision: the client's protocol revision; None if it is not known.
        """
        if self.challenge_scopes != "auto":
            return self.challenge_scopes
        return "required" if _adds_up(revision) else "combined"

    def status_of(self, refusal: ToolGuardError, revision: str | None) -> int | None:
        """Return the HTTP status for ``refusal``; None to leave the answer to the framework.

        Args:
            refusal: the refusal of the call.
            revision: the client's protocol revision; None if it is not known.
        """
        if isinstance(refusal, AccessDeniedError):
            over_http = self.denials == "http" or (self.denials == "auto" and _adds_up(revision))
        elif isinstance(refusal, KeysUnavailableError):
            over_http = self.outages == "http"
        else:
            over_http = True
        return refusal.status if over_http else None


def _read_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    if isinstance(scopes, str):
        raise TypeError(f"write initial_scopes={scopes.split()}")
    text_list("initial_scopes", scopes, 'initial_scopes=["calendar.read"]')
    if "offline_access" in scopes:
        # MCP, authorization: a refresh token is the client's business, not a server's scope.
        raise ValueError("leave offline_access out of initial_scopes: clients add it themselves")
    check_requestable(scopes)
    return tuple(scopes)


def _adds_up(revision: str | None) -> bool:
    return revision is not None and revision >= _ADDING_UP


class HeldBytes:
    """The memory that the bodies of all requests being read take up.

    Args:
        limit: the maximum number of bytes.
    """

    def __init__(self, limit: int = _MAX_HELD) -> None:
        self._free = limit

    def take(self, count: int) -> bool:
        """Reserve ``count`` bytes; return whether they were available."""
        if count > self._free:
            return False
        self._free -= count
        return True

    def give_back(self, count: int) -> None:
        """Release ``count`` bytes."""
        self._free += count


@dataclass(frozen=True)
class Door:
    """The state that all middlewares of one guard share.

    Attributes:
        refusals: how refusals are answered.
        event_ids: seals the ids of events.
        held: the memory that request bodies take up.
    """

    refusals: Refusals = field(default_factory=Refusals)
    event_ids: EventIds = field(default_factory=EventIds)
    held: HeldBytes = field(default_factory=HeldBytes)


class HTTPGuard(Guard, Protocol):
    """The part of a guard that the middleware uses."""

    @property
    def door(self) -> Door:
        """The state that its middlewares share."""
        ...

    @property
    def possession(self) -> Possession | None:
        """Checks the proofs of bound tokens; None if no bound tokens are accepted."""
        ...

    def challenge(self, refusal: ToolGuardError, revision: str | None = None) -> Challenge | None:
        """Return the challenge for a refusal, to a client of some revision."""
        ...
