"""The members that the answers of token endpoints and vaults share: a token, and seconds."""

from __future__ import annotations

import re
from typing import TypeGuard

__all__ = ["is_token", "whole_seconds"]

# RFC 6749 §A.12 allows spaces too, which no HTTP header carries as part of a credential.
_TOKEN = re.compile(r"[\x21-\x7e]+")
# A number of milliseconds since the epoch would have 13 digits.
_SECONDS = re.compile(r"[0-9]{1,11}")


def is_token(value: object) -> TypeGuard[str]:
    """Return whether ``value`` is a text that can be sent as a credential: visible ASCII."""
    return isinstance(value, str) and _TOKEN.fullmatch(value) is not None


def whole_seconds(value: object) -> float:
    """Return a whole number of seconds, given as a number or as its digits.

    Raises:
        ValueError: for anything else.

    >>> whole_seconds("3600"), whole_seconds(60)
    (3600.0, 60.0)
    """
    is_number = isinstance(value, (int, str)) and not isinstance(value, bool)
    if not is_number or not _SECONDS.fullmatch(str(value)):
        raise ValueError("not a whole number of seconds")
    return float(str(value))
