"""Check that a setting has the type that its use needs."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from typing import Any

__all__ = ["of_kind", "secret_text", "text_list"]


def of_kind(name: str, value: Any, kind: type | tuple[type, ...], write: str) -> Any:
    """Return ``value`` if it is an instance of ``kind``.

    Args:
        name: the name of the setting, for the error message.
        value: its value.
        kind: the type, or types, that it may have.
        write: what to write instead, for the error message.

    Raises:
        TypeError: if it is of another type.

    >>> of_kind("resource", 7, str, 'resource="https://mcp.example.com/mcp"')
    Traceback (most recent call last):
    ...
    TypeError: resource is 7 (int): write resource="https://mcp.example.com/mcp"
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name} is {_shown(value)}: write {write}")
    return value


def text_list(name: str, value: object, write: str) -> tuple[str, ...]:
    """Return ``value`` as a tuple if it is a collection of strings, and not one string.

    Args:
        name: the name of the setting, for the error message.
        value: its value.
        write: what to write instead, for the error message.

    Raises:
        TypeError: if it is anything else.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {_shown(value)}: write {write}")
    return tuple(of_kind(f"a value of {name}", each, str, write) for each in value)


def secret_text(name: str, value: object, *, may_be_empty: bool = False) -> None:
    """Check that ``value`` can be a secret, which no message shows.

    Args:
        name: the name of the setting, for the error message.
        value: its value.
        may_be_empty: whether there may be no secret, as for a public client.

    Raises:
        TypeError: if it is no string, such as the None of a variable that is not set.
        ValueError: if it is empty.

    >>> secret_text("client_secret", None)
    Traceback (most recent call last):
    ...
    TypeError: client_secret is text, not NoneType: is a variable unset?
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is text, not {type(value).__name__}: is a variable unset?")
    if not value and not may_be_empty:
        raise ValueError(f"{name} is empty: is a variable unset?")


def _shown(value: object) -> str:
    """Return a value with its type, without what may be a password in a URL."""
    kind = type(value).__name__
    if isinstance(value, type) or callable(value):
        return f"the {kind} {getattr(value, '__qualname__', kind)}"
    text = reprlib.repr(value)
    return f"of type {kind}" if "@" in text else f"{text} ({kind})"
