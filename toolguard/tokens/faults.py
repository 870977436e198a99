"""Tell the operator why tokens are refused: one log line for each kind of fault and minute.

A line has what was expected and what was found, and never a token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

__all__ = ["Faults", "warn_of_shared"]

_log = logging.getLogger("toolguard.tokens")

_EACH = 60.0
_MAX_SHOWN = 200
_MAX_NAMES = 5
_SHARED = {
    "account": "Keycloak gives it to every client of the realm: add an audience mapper, and name "
    "this server",
    "authenticated": "Supabase gives it to every application of the project",
}


class Faults:
    """The faults of the tokens of one issuer, as they are logged.

    Args:
        issuer: the issuer, for the log line.
        clock: returns the time, in seconds.
    """

    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._clock = clock
        self._told: dict[str, float] = {}

    def tell(self, claim: str, expected: str | Sequence[str], found: object) -> None:
        """Log that tokens are refused, unless this kind was logged within the last minute.

        Args:
            claim: the claim or header parameter that differs.
            expected: its value, or the values of which it should have one.
            found: its value in the token.
        """
        now = self._clock()
        if now < self._told.get(claim, now) + _EACH and claim in self._told:
            return
        self._told[claim] = now
        names = [expected] if isinstance(expected, str) else list(expected)
        _log.warning(
            "tokens are refused (%s): %s is %s, expected %s%s",
            self._issuer,
            claim,
            _shown(found),
            " or ".join(names[:_MAX_NAMES]),
            _hint(names, found),
        )


def warn_of_shared(audiences: Sequence[str]) -> None:
    """Warn of audiences that do not tell this server from others."""
    for audience in audiences:
        if audience in _SHARED:
            _log.warning(
                "audience %r lets the tokens of other applications in: %s",
                audience,
                _SHARED[audience],
            )


def _shown(found: object) -> str:
    if isinstance(found, str):
        return ascii(found[:_MAX_SHOWN])
    if isinstance(found, list):
        return f"[{', '.join(map(_shown, found[:_MAX_NAMES]))}]"
    return "missing" if found is None else f"a {type(found).__name__}"


def _hint(expected: Sequence[str], found: object) -> str:
    named = found if isinstance(found, list) else [found]
    texts = [each for each in named if isinstance(each, str)]
    for text in texts:
        if any(each.rstrip("/") == text.rstrip("/") for each in expected):
            return ": they differ by a slash"
    if texts and texts[0] in _SHARED:
        return f": {_SHARED[texts[0]]}"
    if any(text.startswith("https://api.workos.com/user_management/") for text in texts):
        return ": sessions of user management name no audience; use a Connect or MCP application"
    return ""
