"""What must hold of the claims of every access token, whoever verified its signature?

Pure functions; each raises :class:`~toolguard.errors.InvalidTokenError` for a claim that does not
hold up, and shows no value of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from toolguard.errors import InvalidTokenError

__all__ = [
    "Times",
    "check_bearer",
    "check_expiry",
    "check_subject",
    "check_times",
    "read_times",
]

# The last second of the year 9999: what comes after it is not a date (a time in milliseconds).
_MAX_NUMERIC_DATE = 253_402_300_799


class Times(NamedTuple):
    """When a token is good, in seconds since the epoch.

    Attributes:
        starts: the later one of ``nbf`` and ``iat``.
        expires: ``exp``.
    """

    starts: float
    expires: float


def read_times(claims: Mapping[str, Any]) -> Times:
    """Return when the token of these claims is good (RFC 7519 §4.1.4 to §4.1.6).

    Raises:
        InvalidTokenError: if it has no expiry, or a time that is not a date.
    """
    expires, *starts = (_numeric_date(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is None:
        raise InvalidTokenError("claims", "The token has no expiry")
    return Times(max((start for start in starts if start is not None), default=-math.inf), expires)


def check_times(times: Times, now: float, leeway: float) -> None:
    """Refuse a token that is not good at ``now``, give or take ``leeway`` seconds.

    Raises:
        InvalidTokenError: with reason ``expired`` or ``not_yet_valid``.
    """
    check_expiry(times.expires, now - leeway)
    if times.starts > now + leeway:
        raise InvalidTokenError("not_yet_valid", "The token is not valid yet")


def check_expiry(expires: float, now: float) -> None:
    """Refuse a token that has expired at ``now``.

    Raises:
        InvalidTokenError: with reason ``expired``.
    """
    if expires <= now:
        raise InvalidTokenError("expired", "The token has expired")


def check_bearer(claims: Mapping[str, Any]) -> None:
    """Refuse a token that is bound to a key (RFC 9449 §7.2, RFC 8705 §3).

    Without the proof of that key it is not to be accepted, and here is none.

    Raises:
        InvalidTokenError: with reason ``bound``.
    """
    if "cnf" in claims:
        raise InvalidTokenError(
            "bound", "Sender-constrained tokens are not accepted as bearer tokens"
        )


def check_subject(claims: Mapping[str, Any]) -> None:
    """Refuse a subject that cannot be read (RFC 7519 §4.1.2): it must not become another one.

    Raises:
        InvalidTokenError: if ``sub`` is there, and is empty or no text.
    """
    if "sub" in claims and not (isinstance(claims["sub"], str) and claims["sub"]):
        raise InvalidTokenError("claims", "The token has a subject that is empty or no text")


def _numeric_date(claims: Mapping[str, Any], name: str) -> float | None:
    """Read seconds since the epoch, whole or not (RFC 7519 §2); None if the claim is absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTokenError("claims", "A time claim of the token is not a number")
    if not 0 <= value <= _MAX_NUMERIC_DATE:
        raise InvalidTokenError("claims", "A time claim of the token is out of range")
    return value
