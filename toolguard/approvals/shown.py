"""What the page of an approval shows: text of bounded length, in which nothing is hidden."""

from __future__ import annotations

import enum
import json
import string
import unicodedata
from collections.abc import Mapping
from typing import Any

from toolguard.pages.names import display_name

__all__ = ["MAX_ARGUMENTS", "MAX_TEXT", "shown_arguments", "summary_of"]

MAX_ARGUMENTS = 30
"""The maximum number of arguments that a page shows."""

MAX_TEXT = 2_000
"""The maximum number of characters of one argument that a page shows."""

_LAYOUT = frozenset("\n\t")


def summary_of(summary: str, arguments: Mapping[str, Any]) -> str:
    """Return the summary of a call, with short forms of the arguments that it names.

    Args:
        summary: the text, with the names of arguments in braces.
        arguments: the arguments.
    """
    parts: list[str] = []
    for literal, name, _, _ in string.Formatter().parse(summary):
        parts.append(literal)
        if name is not None:
            parts.append(display_name(_text(arguments.get(name))))
    return "".join(parts)


def shown_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the page shows them, as JSON.

    Args:
        arguments: the arguments.
    """
    described = [_described(name, value) for name, value in [*arguments.items()][:MAX_ARGUMENTS]]
    return {"arguments": described, "left_out": max(0, len(arguments) - MAX_ARGUMENTS)}


def _described(name: str, value: object) -> dict[str, Any]:
    text = _text(value)
    # What cannot be seen is written out: it could rearrange what stands around it.
    visible = "".join(map(_visible, text[:MAX_TEXT]))
    return {"name": name, "text": visible, "left_out": max(0, len(text) - MAX_TEXT)}


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(_plain(value), ensure_ascii=False, indent=1)


def _plain(value: object) -> object:
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    members = getattr(value, "__dict__", None)
    if members:  # a model, or a dataclass
        return _plain({**members, **(getattr(value, "__pydantic_extra__", None) or {})})
    return str(value)


def _visible(char: str) -> str:
    is_hidden = unicodedata.category(char)[0] == "C" and char not in _LAYOUT
    return f"\\u{{{ord(char):x}}}" if is_hidden else char
