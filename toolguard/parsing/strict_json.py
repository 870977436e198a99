"""Parse JSON under the rules of I-JSON (RFC 7493), which leave one reading."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["lenient_object", "strict_object"]

_MAX_DEPTH = 32
# The default limit of `int`: parsing more digits takes quadratic time where it is not refused.
_MAX_DIGITS = 4_300


def strict_object(data: bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``data`` if it follows I-JSON (RFC 7493 §2), else None.

    UTF-8 without a byte order mark and without lone surrogates, no member named twice at any
    depth, no NaN and no infinity, at most 32 levels.
    """
    # Returns instead of raising: a JSONDecodeError holds the whole document, and would stay
    # reachable as the context of any exception raised while it is handled.
    try:
        # Decoded first: json.loads would guess UTF-16 and UTF-32. RFC 8259 §2: the white space.
        text = data.decode("utf-8").strip(" \t\n\r")
        decoder = _DECODER if len(text) > _MAX_DIGITS else _DECODER_OF_SHORT
        value, end = decoder.raw_decode(text)
        # A lone surrogate can only come from an escape, and fails to be written as UTF-8.
        if b"\\u" in data:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        return None
    brackets = data.count(b"[") + data.count(b"{")
    if (
        not isinstance(value, dict)
        or end < len(text)
        or (brackets > _MAX_DEPTH and _is_too_deep(value))
    ):
        return None
    return value


def lenient_object(data: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in ``data`` as most readers see it, else None.

    For what is shown, or checked member by member; what decides is read by :func:`strict_object`.
    """
    try:
        value = json.loads(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return False
        level = [
            child
            for container in containers
            for child in (container.values() if isinstance(container, dict) else container)
        ]
    return True


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError
    return int(text)


# `parse_constant` gets NaN, Infinity and -Infinity; `float` parses all three.
_DECODER_OF_SHORT = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_float=_finite, parse_constant=_finite
)
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_members,
    parse_int=_whole,
    parse_float=_finite,
    parse_constant=_finite,
)
