"""The very plain browser of the demo."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

from toolguard.dev.story.browser import Browser, BrowserError, Page

T = TypeVar("T")

PAGE = """<!doctype html><title>t</title><p>Notice</p><main><h1>Two <b>forms</b></h1>
<p>First &amp; <a href="/next?a=1">go on</a></p>
<form method="post" action="/one"><input name="q" value="x">
<input type="checkbox" name="c" value="1" checked><input type="checkbox" name="c" value="2">
<button name="d" value="yes">Yes</button><button>No</button></form>
<form action="two"><button>Other</button></form></main>"""


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/page":
        return httpx.Response(200, html=PAGE, headers={"set-cookie": "s=1"})
    if request.url.path == "/away":
        return httpx.Response(303, headers={"location": "/page"})
    said = f"{request.method} {request.url.raw_path.decode()} {request.content.decode()}"
    cookie = request.headers.get("cookie", "")
    return httpx.Response(200, html=f"<h1>{said}</h1><p>{cookie}</p>".replace("&", "&amp;"))


def run(visit: Callable[[Browser], Awaitable[T]]) -> T:
    async def once() -> T:
        browser = Browser(transport=httpx.MockTransport(answer))
        try:
            return await visit(browser)
        finally:
            await browser.aclose()

    return asyncio.run(once())


async def opened(browser: Browser) -> Page:
    return await browser.open("http://a.test/away")


def test_a_page_is_read_by_its_words() -> None:
    page = run(opened)

    assert (page.url, page.status, page.heading) == ("http://a.test/page", 200, "Two forms")
    assert page.paragraphs == ["First & go on"]
    assert page.links == {"go on": "http://a.test/next?a=1"}
    assert [form.action for form in page.forms] == ["http://a.test/one", "http://a.test/two"]
    assert page.forms[0].fields == [("q", "x"), ("c", "1")]
    assert page.forms[0].buttons == {"Yes": ("d", "yes"), "No": None}


def test_a_link_is_followed_with_the_cookies() -> None:
    async def visit(browser: Browser) -> Page:
        return await browser.follow(await opened(browser), "go on")

    page = run(visit)

    assert (page.heading, page.paragraphs) == ("GET /next?a=1", ["s=1"])


@pytest.mark.parametrize(
    ("button", "sent"),
    [("Yes", "POST /one q=new+words&c=1&d=yes"), ("N", "POST /one q=new+words&c=1")],
)
def test_a_button_sends_its_form(button: str, sent: str) -> None:
    async def visit(browser: Browser) -> Page:
        return await browser.press(await opened(browser), button, q="new words")

    assert run(visit).heading == sent


def test_what_is_not_on_the_page_cannot_be_used() -> None:
    async def visit(browser: Browser) -> None:
        page = await opened(browser)
        with pytest.raises(BrowserError, match="no link 'away'"):
            await browser.follow(page, "away")
        with pytest.raises(BrowserError, match="no button 'Maybe'"):
            await browser.press(page, "Maybe")
        with pytest.raises(BrowserError, match="no field"):
            await browser.press(page, "Other", q="x")

    run(visit)
