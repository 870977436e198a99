"""Write HTML in which all text is escaped.

Text becomes markup through :func:`element` only, which escapes it. There is no other way to make
an :class:`Html` but to write its constructor, and this file is the one that does.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

__all__ = ["Content", "Html", "document", "element"]

_VOID = frozenset({"input", "link", "meta"})


class Html(str):
    """Markup that is complete and safe to show."""

    __slots__ = ()


Content: TypeAlias = "str | Html | Iterable[str | Html | None] | None"
"""What may stand between two tags: text, markup, a list of those, or nothing."""


def element(tag: str, /, *content: Content, **attributes: str | bool | None) -> Html:
    """Return one element.

    Args:
        tag: its name.
        content: what is in it; text is escaped.
        attributes: by name, with ``_`` for ``-`` and a trailing one for Python's keywords: True
            writes the name alone, False and None leave it out, values are escaped.

    >>> element("p", "1 < 2", class_="note")
    '<p class="note">1 &lt; 2</p>'
    """
    start = f"<{tag}{''.join(_attribute(key, value) for key, value in attributes.items())}>"
    if tag in _VOID:
        return Html(start)
    return Html(f"{start}{''.join(_inner(content))}</{tag}>")


def document(*, title: str, stylesheet: str, body: Iterable[Html]) -> Html:
    """Return a whole page, in English, with one stylesheet and nothing else to load."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("link", rel="stylesheet", href=stylesheet),
    )
    return Html(f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n")


def _attribute(key: str, value: str | bool | None) -> str:  # noqa: FBT001 - True is a value here
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{escape(value)}"'


def _inner(content: Iterable[Content]) -> Iterable[str]:
    for item in content:
        if isinstance(item, Html):
            yield item
        elif isinstance(item, str):
            yield escape(item)
        elif item is not None:
            yield from _inner(item)
