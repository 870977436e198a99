"""Check that a setting is one of the values it may have."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["one_of"]

ChoiceT = TypeVar("ChoiceT", bound=str)


def one_of(name: str, value: ChoiceT, choices: tuple[str, ...]) -> ChoiceT:
    """Return ``value``, if it is one of ``choices``.

    Args:
        name: the name of the setting, for the error message.
        value: its value.
        choices: the values it may have.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name}={value!r}: write one of {', '.join(map(repr, choices))}")
    return value
