"""The people of the demo, who operate a browser."""

from __future__ import annotations

import webbrowser
from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from toolguard.dev.story.browser import Browser, BrowserError, Page
from toolguard.dev.story.narrator import Narrator

__all__ = ["RealPerson", "ScriptedPerson", "StoryPerson"]

_MOST_PAGES = 15
_PATIENCE = 300


class StoryPerson(Protocol):
    """One person of the story.

    Attributes:
        email: who they are.
        connects: whether they connect their calendar when a page offers it.
        visits: the headings of the pages they saw, one text for each time they were sent there.
    """

    email: str
    connects: bool
    visits: list[str]

    async def visit(self, url: str) -> None:
        """Open ``url``, where a client sends its user, and see it through."""
        ...

    async def see_to(self, url: str, done: Callable[[], Awaitable[bool]]) -> None:
        """Open ``url`` and do what it is there for, until ``done`` says so."""
        ...


class ScriptedPerson:
    """Answers the pages by the words on them, as a person would.

    Args:
        email: who they are.
        browser: their browser.
        connects: whether they connect their calendar when a page offers it.

    Attributes:
        last: the page they saw last.
    """

    def __init__(self, email: str, browser: Browser, *, connects: bool = True) -> None:
        self.email = email
        self.connects = connects
        self.visits: list[str] = []
        self.last: Page | None = None
        self._browser = browser

    async def visit(self, url: str) -> None:
        """Open ``url``, and answer pages until there is nothing more to answer.

        Raises:
            BrowserError: if that does not come to an end.
        """
        seen: list[str] = []
        page: Page | None = await self._browser.open(url)
        while page is not None:
            self.last = page
            seen.append(page.heading)
            if len(seen) > _MOST_PAGES:
                raise BrowserError(f"these pages have no end: {seen}")
            page = await self._answer(page)
        self.visits.append(" | ".join(seen))

    async def see_to(self, url: str, done: Callable[[], Awaitable[bool]]) -> None:
        """Do what :meth:`visit` does.

        Raises:
            BrowserError: if ``done`` is still false afterwards.
        """
        await self.visit(url)
        if not await done():
            raise BrowserError(f"the visit of {self.visits[-1]!r} did not complete the step")

    async def _answer(self, page: Page) -> Page | None:
        for link in ("Connect Google Calendar", "Continue to Google Calendar"):
            if link in page.links and self.connects:
                return await self._browser.follow(page, link)
        labels = {label: form for form in page.forms for label in form.buttons}
        for button in (
            "Sign in as",
            "Allow",
            "Approve",
            "Go back",
            "Continue",
            "Remove all access",
        ):
            form = next((labels[label] for label in labels if label.startswith(button)), None)
            if form is not None:
                asked = {name for name, _ in form.fields} & {"email", "account"}
                return await self._browser.press(page, button, **dict.fromkeys(asked, self.email))
        return None


class RealPerson:
    """The user of the demo, who plays a person: pages open in their own browser.

    Args:
        email: the person to play.
        narrator: says what to do.
        connects: whether to connect the calendar when a page offers it.
    """

    def __init__(self, email: str, narrator: Narrator, *, connects: bool = True) -> None:
        self.email = email
        self.connects = connects
        self.visits: list[str] = []
        self._narrator = narrator

    async def visit(self, url: str) -> None:
        """Open ``url`` in the real browser; the calling code waits for the answer."""
        calendar = "connect Google Calendar" if self.connects else "do not connect Google Calendar"
        self._ask(url, f"sign in as {self.email} (another account, if it shows one), {calendar}")

    async def see_to(self, url: str, done: Callable[[], Awaitable[bool]]) -> None:
        """Open ``url`` in the real browser, and wait until ``done``.

        Raises:
            BrowserError: if that takes longer than five minutes.
        """
        self._ask(url, f"as {self.email}")
        for _ in range(_PATIENCE):
            if await done():
                return
            await anyio.sleep(1)
        raise BrowserError("nobody completed the page within the time limit")

    def _ask(self, url: str, what: str) -> None:
        self.visits.append("the real pages")
        self._narrator.asks(f"In your browser: {what}. If no window opens: {url}")
        webbrowser.open(url)
