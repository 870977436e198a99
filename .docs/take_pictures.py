"""Take the pictures of the pages: ``python .docs/take_pictures.py [FOLDER]``, by default pictures/.

It runs the server of the tutorial and the guarded calendar with development servers of their own,
and looks at the pages with Chromium, as people do who follow the guides. It needs the extras `dev`
and `test`, fastmcp, a program called ``chromium``, and the ports 8000, 8800 and 8801.
"""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import shutil
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from playwright.sync_api import Page, sync_playwright

from toolguard.cli import main as toolguard
from toolguard.dev.command import DevSettings, run_dev
from toolguard.dev.oauth.config import builtin_world
from toolguard.testing.loopback import Loopback

DOCS = Path(__file__).parent
URL, ISSUER = "http://127.0.0.1:8000/mcp", "http://127.0.0.1:8800/P2dev"
ALICE = builtin_world().users[0].email
EVENTS = (
    "list_calendar_events",
    '{"time_min": "2030-01-07T00:00:00Z", "time_max": "2030-01-08T00:00:00Z"}',
)
WIDTH, QUALITY = 720, 60


def tutorial() -> Any:
    """Return the module of the server that the tutorial shows."""
    (code,) = re.findall(
        r"^<!-- file: server\.py -->\n```python\n(.*?)^```$",
        (DOCS / "tutorial.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    module = types.ModuleType("server")
    exec(compile(code, "server.py", "exec"), vars(module))  # noqa: S102 - a page of these guides
    return module


def running(settings: DevSettings, visit: Callable[[Mapping[str, str]], None]) -> None:
    """Visit the development servers with the variables that they print."""
    said = io.StringIO()

    def wait() -> None:
        visit(dict(re.findall(r"export (\w+)=(\S+)", said.getvalue())))

    if run_dev(settings, said, wait, load=lambda _: tutorial().mcp):
        raise SystemExit(said.getvalue())


def called(tool: str, arguments: str, person: str) -> str:
    """Call a tool of the server as a person; return what `toolguard call` tells of it."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        toolguard(["call", URL, tool, arguments, "--as", person])
    return told.getvalue()


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Open Chromium, in the light mode, twice as sharp as a plain screen."""
    with sync_playwright() as playwright:
        # A container has no user namespaces for the sandbox; the pages are our own.
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        try:
            yield chromium.new_page(
                viewport={"width": WIDTH, "height": 800},
                device_scale_factor=2,
                color_scheme="light",
            )
        finally:
            chromium.close()


def picture(page: Page, file: Path, *, until: str | None = None) -> None:
    """Write what a page shows, to its end or to the heading ``until``."""
    page.wait_for_load_state("load")
    end = page.locator("main").bounding_box()
    if until is not None:
        end = page.get_by_role("heading", name=until).bounding_box()
    if end is None:
        raise SystemExit(f"{file.name}: the page has no such part")
    height = end["y"] if until is not None else end["y"] + end["height"] + 16
    clip = {"x": 0, "y": 0, "width": WIDTH, "height": height, "scale": 1}
    # Playwright itself writes no WebP.
    taken = page.context.new_cdp_session(page).send(
        "Page.captureScreenshot",
        {"format": "webp", "quality": QUALITY, "clip": clip, "captureBeyondViewport": True},
    )
    file.write_bytes(base64.b64decode(taken["data"]))


def press(page: Page, words: str) -> None:
    """Press the button, or follow the link, with these words."""
    page.get_by_role("button", name=words).or_(page.get_by_role("link", name=words)).first.click()


def sign_in(page: Page) -> None:
    """Sign Alice in."""
    page.get_by_label("Your e-mail address").fill(ALICE)
    press(page, "Continue")
    press(page, "Sign in as")


def of_the_console(folder: Path) -> None:
    """Show the console after two people called a tool, and what a person is asked by a client."""

    def visit(variables: Mapping[str, str]) -> None:
        os.environ.update(variables)
        with Loopback(port=8000) as listener, browser() as page:
            listener.start(tutorial().mcp.http_app())
            for person in ("alice", "bob"):
                called("add_note", '{"text": "tea"}', person)
            page.goto(ISSUER)
            picture(page, folder / "console.webp", until="Last sign-ins")
            page.goto(authorization("FastMCP Client", "notes.read notes.write"))
            sign_in(page)
            picture(page, folder / "consent.webp")

    running(DevSettings(server="server:mcp"), visit)


def authorization(client: str, scope: str) -> str:
    """Register a client; return where it sends its user."""
    asked = {
        "client_name": client,
        "redirect_uris": ["http://127.0.0.1:3000/callback"],
        "token_endpoint_auth_method": "none",
    }
    registered = httpx.post(f"{ISSUER}/register", json=asked, trust_env=False).json()
    parameters = {
        "response_type": "code",
        "client_id": registered["client_id"],
        "redirect_uri": "http://127.0.0.1:3000/callback",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",  # RFC 7636, appendix B
        "code_challenge_method": "S256",
        "scope": scope,
        "resource": URL,
    }
    return f"{ISSUER}/authorize?{urlencode(parameters)}"


def of_the_vault(folder: Path) -> None:
    """Show what a person sees who connects an account, and what is connected then."""

    def visit(variables: Mapping[str, str]) -> None:  # noqa: ARG001 - the calendar runs already
        with browser() as page:
            (link,) = re.findall(r"open (http://\S+) and call", called(*EVENTS, "alice"))
            page.goto(link)
            sign_in(page)
            picture(page, folder / "connect.webp")
            press(page, "Continue to Google Calendar")
            press(page, "Allow")
            page.get_by_role("heading", level=1).wait_for()
            page.goto(f"{ISSUER.removesuffix('/P2dev')}/connections")
            picture(page, folder / "connections.webp")

    running(DevSettings(calendar=True), visit)


def main(arguments: Iterable[str] = sys.argv[1:]) -> None:
    """Take all pictures."""
    folder = Path(next(iter(arguments), DOCS / "pictures"))
    of_the_console(folder)
    of_the_vault(folder)


if __name__ == "__main__":
    main()
