"""The pages in a real browser: headless Chromium, at the width of a desk and of a phone."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

import anyio
import pytest

from toolguard.dev.calendar import calendar_server
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.services import APP, Services, run_services
from toolguard.dev.store import Store
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.testing.loopback import Loopback

T = TypeVar("T")

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no /usr/bin/chromium")

WIDTHS = (1280, 375)
at_a_desk = pytest.mark.parametrize("setting", [(WIDTHS[0], "light")], indirect=True, ids=["desk"])
on_a_phone = pytest.mark.parametrize("setting", [(WIDTHS[1], "dark")], indirect=True, ids=["phone"])

EVENT = {"title": "Review", "start": "2030-01-07T10:00:00Z", "end": "2030-01-07T11:00:00Z"}


class Setting:
    """Servers, a client whose user is in front of Chromium, and a page of it."""

    def __init__(self, on: Services, url: str, callback: Callback, page: Any) -> None:
        self.on = on
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        self._url = url
        self._callback = callback
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def visit(self, url: str) -> None:
        self._asked.put(url)

    def create_an_event(self) -> tuple[threading.Thread, list[Outcome]]:
        """Begin to let a client create an event; what comes of it is in the list at the end."""
        outcomes: list[Outcome] = []

        async def create() -> None:
            auth = SignedInClient(self._url, self, self._callback).auth
            client = MCPClient(self._url, auth=auth)
            outcomes.append(await client.call("create_calendar_event", **EVENT))

        thread = threading.Thread(target=anyio.run, args=(create,))
        thread.start()
        return thread, outcomes

    def in_a_loop(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the vault in an event loop of its own: one of Playwright's runs in this thread."""

        async def once() -> T:
            try:
                return await ask()
            finally:
                await self.on.connected.vault.aclose()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(anyio.run, once).result()

    def open_what_the_client_asks_for(self) -> None:
        self.page.goto(self._asked.get(timeout=30))

    def press(self, words: str) -> None:
        self.page.get_by_role("button", name=words).or_(
            self.page.get_by_role("link", name=words)
        ).first.click()

    def at(self, heading: str) -> None:
        """Wait for the page with this heading, and look at it."""
        self.page.get_by_role("heading", level=1, name=heading, exact=True).wait_for()
        # The heading is there before the page has been read to its end.
        self.page.wait_for_load_state("load")
        self.page.wait_for_function("document.styleSheets.length === 1")
        before = self.page.viewport_size
        for each in WIDTHS:
            self.page.set_viewport_size({"width": each, "height": 800})
            width, seen = self.page.evaluate("[document.body.scrollWidth, window.innerWidth]")
            assert width <= seen == each, f"it is wider than a window of {each}"
        self.page.set_viewport_size(before)

    def sign_in(self, email: str) -> None:
        """Sign in with the keyboard alone."""
        self.at("Sign in")
        self.page.get_by_label("Your e-mail address").fill(email)
        self.page.keyboard.press("Enter")
        self.at("Sign in to Tenant A")
        self.page.keyboard.press("Tab")
        self.page.keyboard.press("Enter")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as browsers:
        # A container has no user namespaces for the sandbox; the pages are our own.
        running = browsers.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def setting(request: pytest.FixtureRequest, chromium: Any) -> Iterator[Setting]:
    width, scheme = request.param
    with ExitStack() as running:
        listener, callback = (running.enter_context(each) for each in (Loopback(), Callback()))
        url = f"{listener.url}/mcp"
        store = running.enter_context(Store())
        on = running.enter_context(run_services(builtin_world().with_resources(url), store))
        listener.start(on.guarded(calendar_server(on.google_url), url))
        viewport = {"width": width, "height": 800}
        page = chromium.new_page(viewport=viewport, color_scheme=scheme)
        running.callback(page.close)
        assert isinstance(callback, Callback)
        yield Setting(on, url, callback, page)


@on_a_phone
def test_alice_signs_in_connects_consents_and_is_served(setting: Setting) -> None:
    thread, outcomes = setting.create_an_event()

    setting.open_what_the_client_asks_for()
    setting.sign_in("alice@tenant-a.example")
    setting.at("Allow Calendar Assistant?")
    setting.press("Connect Google Calendar")
    setting.at("Connect Google Calendar")
    setting.press("Continue to Google Calendar")
    setting.at("The development vault wants access to your Google account")
    setting.press("Allow")
    setting.at("Allow Calendar Assistant?")
    setting.press("Allow")
    setting.at("You can close this window")
    setting.open_what_the_client_asks_for()  # the step-up
    setting.at("Allow Calendar Assistant?")
    setting.press("Allow")
    setting.at("You can close this window")
    thread.join()

    assert outcomes[0].ok
    assert [each["summary"] for each in setting.on.google.events("alice@tenant-a.example")] == [
        "Review"
    ]
    assert setting.complaints == []


@at_a_desk
def test_the_console_gives_a_token_to_the_keyboard(setting: Setting) -> None:
    setting.page.goto(setting.on.server.origin)
    setting.at("Development server")
    setting.page.get_by_text("Bob Baker, bob@tenant-a.example").focus()
    setting.page.keyboard.press("Enter")
    setting.page.get_by_role("checkbox", name="mcp:calendar.readonly").first.wait_for()
    button = setting.page.get_by_role("button", name="Get a token of Bob Baker")
    for _ in range(5):  # past the choices
        setting.page.keyboard.press("Tab")
        if button.evaluate("each => each === document.activeElement"):
            break
    setting.page.keyboard.press("Enter")
    setting.at("A token of bob@tenant-a.example")
    assert setting.page.locator("pre").inner_text().startswith("eyJ")
    setting.press("Back to the development server")
    setting.at("Development server")
    assert "bob@tenant-a.example signs in to toolguard-console" in setting.page.content()
    assert setting.complaints == []


@at_a_desk
def test_bob_is_refused_by_the_policy_and_by_a_link_of_doras(setting: Setting) -> None:
    thread, outcomes = setting.create_an_event()

    setting.open_what_the_client_asks_for()
    setting.sign_in("bob@tenant-a.example")
    setting.at("Allow Calendar Assistant?")
    setting.press("Allow")
    setting.at("You can close this window")
    setting.open_what_the_client_asks_for()
    setting.page.get_by_text("It also asks for what the policy does not give you").wait_for()
    setting.press("Allow")
    setting.at("You can close this window")
    thread.join()

    assert (outcomes[0].ok, outcomes[0].exchange.status) == (False, 403)
    assert setting.complaints == []

    setting.page.goto(setting.in_a_loop(lambda: setting.on.connected.link("dora", APP)))
    setting.at("This cannot go on")
    assert "This link is for another person" in setting.page.content()
    assert not setting.in_a_loop(lambda: setting.on.connected.has("dora", APP))
