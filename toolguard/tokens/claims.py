"""Checks of claims that apply to every access token, whichever verifier checks its signature.

Pure functions; each raises :class:`~toolguard.errors.InvalidTokenError` for an invalid claim. The
error does not contain the value of the claim.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from toolguard.errors import InvalidTokenError
from toolguard.tokens.proofs.thumbprint import is_thumbprint

__all__ = [
    "Times",
    "check_actors",
    "check_bearer",
    "check_confirmation",
    "check_subject",
    "check_times",
    "read_times",
]

# The last second of the year 9999: a larger number is not in seconds (probably milliseconds).
_MAX_NUMERIC_DATE = 253_402_300_799
_MAX_ACTORS = 10
_TIME_CLAIMS = ("exp", "nbf", "iat")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Times(NamedTuple):
    """The period in which a token is valid, in seconds since the epoch.

    Attributes:
        starts: the later of ``nbf`` and ``iat``.
        expires: ``exp``.
    """

    starts: float
    expires: float


def read_times(claims: Mapping[str, Any]) -> Times:
    """Return the period in which a token is valid (RFC 7519 §4.1.4 to §4.1.6).

    Raises:
        InvalidTokenError: if ``exp`` is missing, or a time claim is not a NumericDate or is out
            of range.
    """
    dates = dict.fromkeys(_TIME_CLAIMS, -math.inf)
    for name in dates:
        if name not in claims:
            continue
        value = claims[name]  # a NumericDate (RFC 7519 §2), whole or fractional
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidTokenError("claims", "A time claim of the token is not a number")
        if not 0 <= value <= _MAX_NUMERIC_DATE:
            raise InvalidTokenError("claims", "A time claim of the token is out of range")
        dates[name] = value
    if "exp" not in claims:
        raise InvalidTokenError("claims", "The token has no expiry")
    return Times(max(dates["nbf"], dates["iat"]), dates["exp"])


def check_times(times: Times, now: float, leeway: float) -> None:
    """Refuse a token that is not valid at ``now``, with a tolerance of ``leeway`` seconds.

    Raises:
        InvalidTokenError: with reason ``expired`` or ``not_yet_valid``.
    """
    starts, expires = times
    if expires <= now - leeway:
        raise InvalidTokenError("expired", "The token has expired")
    if starts > now + leeway:
        raise InvalidTokenError("not_yet_valid", "The token is not valid yet")


def check_bearer(claims: Mapping[str, Any]) -> None:
    """Refuse a sender-constrained token (RFC 9449 §7.2, RFC 8705 §3).

    Such a token must not be accepted without proof of possession, which a bearer token lacks.

    Raises:
        InvalidTokenError: with reason ``bound``.
    """
    if "cnf" in claims:
        raise InvalidTokenError(
            "bound", "The token is bound to a key, so it is not accepted as a bearer token"
        )


def check_confirmation(claims: Mapping[str, Any]) -> None:
    """Refuse a token that is bound to anything else than one key of its client (RFC 7800 §3.1).

    Only the possession of a key can be checked here, by its thumbprint (RFC 9449 §6.1).

    Raises:
        InvalidTokenError: with reason ``bound``.
    """
    confirmation = claims["cnf"]
    if (
        not isinstance(confirmation, Mapping)
        or confirmation.keys() != {"jkt"}
        or not is_thumbprint(confirmation["jkt"])
    ):
        raise InvalidTokenError(
            "bound", "The token is bound to its client in a way that is not supported here"
        )


def check_actors(claims: Mapping[str, Any]) -> None:
    """Refuse an ``act`` claim that does not name its actors (RFC 8693 §4.1).

    Otherwise the subject would seem to act without one.

    Raises:
        InvalidTokenError: if an actor has no ``sub``, or there are more than 10.
    """
    act, depth = claims.get("act"), 0
    while act is not None:
        named = act.get("sub") if isinstance(act, Mapping) else None
        depth += 1
        if not (isinstance(named, str) and named) or depth > _MAX_ACTORS:
            raise InvalidTokenError("claims", "The act claim of the token cannot be read")
        issuer = act.get("iss", "")
        if not isinstance(issuer, str):
            raise InvalidTokenError("claims", "The act claim of the token cannot be read")
        act = act.get("act")


def check_subject(claims: Mapping[str, Any]) -> None:
    """Refuse a ``sub`` claim that is not a non-empty string (RFC 7519 §4.1.2).

    Raises:
        InvalidTokenError: if ``sub`` is present, and is empty, not a string, or holds a control
            character, which would end a line of a log or a key of a cache.
    """
    if "sub" not in claims:
        return
    subject = claims["sub"]
    if not (isinstance(subject, str) and subject):
        raise InvalidTokenError("claims", "The token has a subject that is empty or not a string")
    if _CONTROL.search(subject):
        raise InvalidTokenError("claims", "The token has a subject with a control character")
