"""The syntax of scope-tokens (RFC 6749 §3.3), and which of them a challenge can request."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["check_requestable", "is_requestable", "is_scope_token"]

# RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
# RFC 6750 §3: 'The value of the "scope" attribute is expressed as a list of space-delimited,
# case-sensitive strings', here without "=": clients look for `scope=` anywhere in a challenge.
_REQUESTABLE = re.compile(r"[\x21\x23-\x3C\x3E-\x5B\x5D-\x7E]+")


def is_scope_token(text: str) -> bool:
    """Return whether ``text`` is a scope-token (RFC 6749 §3.3)."""
    return _SCOPE_TOKEN.fullmatch(text) is not None


def is_requestable(text: str) -> bool:
    """Return whether ``text`` is a scope-token that a challenge can request."""
    return _REQUESTABLE.fullmatch(text) is not None


def check_requestable(texts: Iterable[str], what: str = "scope") -> None:
    """Check that a challenge can request every one of ``texts``.

    Args:
        texts: the scopes.
        what: the noun of the error text.

    Raises:
        ValueError: naming the first text that a challenge cannot request.

    >>> check_requestable(["a=b"])
    Traceback (most recent call last):
    ...
    ValueError: this scope cannot be asked for in a challenge: 'a=b'
    """
    for text in texts:
        if not is_requestable(text):
            raise ValueError(f"this {what} cannot be asked for in a challenge: {text!r}")
