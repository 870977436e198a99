"""The members that the answers of token endpoints and vaults share: a token, scopes, times.

The texts of the errors continue "The answer", and quote nothing of it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import TypeGuard

__all__ = ["is_token", "moment", "read_scopes", "read_token", "whole_seconds"]

_UNREADABLE = "says when the token expires in a way that cannot be read"

# RFC 6749 §A.12 allows spaces too, which no HTTP header carries as part of a credential.
_TOKEN = re.compile(r"[\x21-\x7e]+")
# A number of milliseconds since the epoch would have 13 digits.
_SECONDS = re.compile(r"[0-9]{1,11}")
# RFC 3339 §5.6; Python 3.10 reads no "Z", and fractions of three or six digits only.
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)


def is_token(value: object) -> TypeGuard[str]:
    """Return whether ``value`` is a text that can be sent as a credential: visible ASCII."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def read_token(value: object) -> str:
    """Return a token.

    Args:
        value: the member of an answer.

    Raises:
        ValueError: if it is not a text that an HTTP header could carry.
    """
    if not is_token(value):
        raise ValueError("holds no token that can be read")
    return value


def read_scopes(
    value: object, separators: str = " ", *, accepts_lists: bool = False
) -> tuple[str, ...]:
    """Return the scopes of a member, in their order.

    Args:
        value: the member of an answer.
        separators: what separates scopes in a string; RFC 6749 §3.3 knows only the space.
        accepts_lists: whether a list of strings is accepted as well.

    Raises:
        ValueError: for anything else.

    >>> read_scopes("read write"), read_scopes("read,write", ",")
    (('read', 'write'), ('read', 'write'))
    """
    if isinstance(value, str):
        value = re.split(f"[{re.escape(separators)}]", value)
    elif not accepts_lists:
        value = None
    if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
        raise ValueError("names scopes in a way that cannot be read")
    return tuple(scope for scope in value if scope)


def whole_seconds(value: object) -> float:
    """Return a whole number of seconds, given as a number or as its digits.

    Args:
        value: the member of an answer.

    Raises:
        ValueError: for anything else.

    >>> whole_seconds("3600"), whole_seconds(60)
    (3600.0, 60.0)
    """
    is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not is_number or not _SECONDS.fullmatch(str(value)):
        raise ValueError(_UNREADABLE)
    return float(str(value))


def moment(value: object) -> float:
    """Return a date and time of RFC 3339 in seconds since the epoch, without its fraction.

    Args:
        value: the member of an answer.

    Raises:
        ValueError: for anything else; a time without an offset is none of RFC 3339.

    >>> moment("2027-01-15T08:00:00Z"), moment("2027-01-15T09:00:00.5+01:00")
    (1800000000.0, 1800000000.0)
    """
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(_UNREADABLE)
    date, time, offset = found.groups()
    return datetime.fromisoformat(
        f"{date}T{time}{offset.upper().replace('Z', '+00:00')}"
    ).timestamp()
