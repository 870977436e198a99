"""A call approved in a real browser: headless Chromium, at the width of a desk and of a phone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from support.lines import LINES
from support.wire import Caller
from toolguard import ToolGuard, requires_approval
from toolguard.approvals import Approvals
from toolguard.testing import LocalIssuer, Loopback
from toolguard.vault import Person

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no /usr/bin/chromium")

EVIL = "<img src=x onerror=alert(1)> " + "very-long-word" * 40


@pytest.fixture
def page() -> Iterator[Any]:
    """A page of Chromium."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_a_person_approves_a_call_with_the_keyboard(page: Any) -> None:
    issuer = LocalIssuer(audience="http://127.0.0.1:1/mcp")
    paid: list[str] = []
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))

    async def signed_in(_: Request) -> Person | None:
        return Person(issuer.issuer, "alice")

    server = LINES[-1].server("office")

    @server.tool()
    @requires_approval(summary="Pay {payee}")
    async def pay(payee: str) -> str:
        paid.append(payee)
        return "paid"

    guard = ToolGuard(verifier=issuer.verifier(), audience=issuer.audience)
    with Loopback() as served, httpx.Client() as http:
        approvals = Approvals(sign_in=signed_in, public_url=served.url)
        guard.protect(server, approvals=approvals)
        served.start(LINES[-1].http_app(server, stateless=True, json=True))

        caller = Caller(http, f"{served.url}/mcp", token=issuer.mint("alice"))

        def call() -> str:
            result = caller.call("pay", {"payee": EVIL}).result
            return str(result["content"][0]["text"])

        page.goto(json.loads(call())["approve_url"])
        page.wait_for_function("document.styleSheets.length === 1")
        for each in (1280, 360):
            page.set_viewport_size({"width": each, "height": 700})
            width, seen = page.evaluate("[document.body.scrollWidth, window.innerWidth]")
            assert width <= seen == each, f"it is wider than a window of {each}"
        assert EVIL in page.locator("pre").inner_text()
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Approve"
        page.keyboard.press("Enter")
        page.get_by_text("This call is approved").wait_for()
        page.go_back()
        page.get_by_role("heading", level=1).wait_for()

        assert call() == "paid"
        assert paid == [EVIL]
        assert complaints == []
