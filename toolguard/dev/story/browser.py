"""A scripted browser, which operates pages in the demo.

It opens pages, follows links, fills in forms and presses their buttons, which it finds by their
text. It keeps cookies and runs no scripts; the pages have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

__all__ = ["Browser", "BrowserError", "HTMLForm", "Page"]


class BrowserError(Exception):
    """A page is not what it should be."""


@dataclass
class HTMLForm:
    """A form on a page.

    Attributes:
        action: where it goes.
        fields: names and values as a browser would send them, but for the pressed button.
        buttons: what each button says, and the name and value that pressing it adds.
    """

    action: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    buttons: dict[str, tuple[str, str] | None] = field(default_factory=dict)


@dataclass
class Page:
    """A page that was opened.

    Attributes:
        url: where it is.
        status: the HTTP status it came with.
        heading: its ``h1``.
        paragraphs: what it says below that.
        forms: its forms.
        links: what each link says, and where it leads.
    """

    url: str
    status: int
    heading: str = ""
    paragraphs: list[str] = field(default_factory=list)
    forms: list[HTMLForm] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)


class Browser:
    """One person's browser; close it with :meth:`aclose`.

    Args:
        transport: carries the requests instead of sockets.
    """

    def __init__(self, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._http = httpx.AsyncClient(
            transport=transport, follow_redirects=True, timeout=30, trust_env=False
        )

    async def open(self, url: str) -> Page:
        """Return the page that ``url`` leads to."""
        return _read(await self._http.get(url))

    async def follow(self, page: Page, link: str) -> Page:
        """Return the page behind the link that says ``link``.

        Raises:
            BrowserError: if there is no such link.
        """
        if link not in page.links:
            raise BrowserError(f"no link {link!r} on {page.heading!r}, but {sorted(page.links)}")
        return await self.open(page.links[link])

    async def press(self, page: Page, button: str, **filled: str) -> Page:
        """Return the page that comes after pressing ``button``.

        Args:
            page: where it is.
            button: what it says, or how that begins.
            filled: what was written into fields of its form, by name.

        Raises:
            BrowserError: if there is no such button, or no such field.
        """
        form, pressed = _find_button(page, button)
        names = {name for name, _ in form.fields}
        if not set(filled) <= names:
            raise BrowserError(f"no field {sorted(set(filled) - names)} on {page.heading!r}")
        pairs = [(name, filled.get(name, value)) for name, value in form.fields]
        data = httpx.QueryParams([*pairs, *([pressed] if pressed else [])])
        response = await self._http.post(
            form.action,
            content=str(data),
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        return _read(response)

    async def aclose(self) -> None:
        """Close it, and forget its cookies."""
        await self._http.aclose()


def _find_button(page: Page, button: str) -> tuple[HTMLForm, tuple[str, str] | None]:
    for form in page.forms:
        for label, pressed in form.buttons.items():
            if label.startswith(button):
                return form, pressed
    labels = [label for form in page.forms for label in form.buttons]
    raise BrowserError(f"no button {button!r} on {page.heading!r}, but {labels}")


def _read(response: httpx.Response) -> Page:
    page = Page(str(response.url), response.status_code)
    if "text/html" in response.headers.get("content-type", ""):
        parser = _PageParser(page)
        parser.feed(response.text)
        parser.close()
    return page


class _PageParser(HTMLParser):
    """Fills in a page."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        self._page = page
        self._form: HTMLForm | None = None
        self._open: list[tuple[str, dict[str, str], int]] = []
        self._said: list[str] = []

    def handle_starttag(self, tag: str, attrs: Iterable[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            action = urljoin(self._page.url, attributes.get("action", ""))
            self._form = HTMLForm(action)
            self._page.forms.append(self._form)
        elif tag == "input" and self._form is not None:
            unchecked = attributes.get("type") == "checkbox" and "checked" not in attributes
            if "name" in attributes and not unchecked:
                self._form.fields.append((attributes["name"], attributes.get("value", "")))
        if tag in ("a", "button", "h1", "p"):
            self._open.append((tag, attributes, len(self._said)))

    def handle_data(self, data: str) -> None:
        self._said.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        if not self._open or self._open[-1][0] != tag:
            return
        _, attributes, begun = self._open.pop()
        words = " ".join("".join(self._said[begun:]).split())
        if tag == "h1":
            self._page.heading = words
            self._page.paragraphs.clear()  # above it there are notices
        elif tag == "p":
            self._page.paragraphs.append(words)
        elif tag == "a":
            self._page.links[words] = urljoin(self._page.url, attributes.get("href", ""))
        elif self._form is not None:
            name = attributes.get("name")
            self._form.buttons[words] = (name, attributes.get("value", "")) if name else None
