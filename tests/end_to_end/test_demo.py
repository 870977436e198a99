"""The demo: the whole story, for real; and that it notices when a step differs."""

from __future__ import annotations

import importlib.util
import io
import re
import threading
import webbrowser
from collections.abc import Iterator
from functools import partial
from importlib.resources import files

import anyio
import anyio.from_thread
import pytest

from toolguard.cli import main
from toolguard.dev.oauth.config import World, parse_world
from toolguard.dev.story import run as story
from toolguard.dev.story.browser import Browser, Page
from toolguard.dev.story.narrator import Narrator
from toolguard.dev.story.people import ScriptedPerson

READ, WRITE = "mcp:calendar.readonly", "mcp:calendar.write"
IS_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
# Line 1 of mcp knows the protocols with a handshake only.
PROTOCOLS = ["auto", "legacy"] if IS_LINE_2 else ["legacy"]


@pytest.fixture(scope="module")
def runs() -> dict[str, tuple[str, str]]:
    """What was written to the standard output and the standard error, by protocol."""
    return {}


@pytest.fixture
def commanded(
    runs: dict[str, tuple[str, str]], capfd: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """Run the command, once; return what it writes."""
    if PROTOCOLS[0] not in runs:
        assert main(["demo"]) == 0
        shown = capfd.readouterr()
        runs[PROTOCOLS[0]] = (shown.out, shown.err)
    return runs[PROTOCOLS[0]]


@pytest.fixture(params=PROTOCOLS)
def told(
    request: pytest.FixtureRequest,
    runs: dict[str, tuple[str, str]],
    commanded: tuple[str, str],
) -> str:
    if request.param not in runs:
        out = io.StringIO()
        anyio.run(partial(story.tell, Narrator(out, {}), protocol=request.param))
        runs[request.param] = (out.getvalue(), "")
    return runs[request.param][0]


def step(told: str, begins: str) -> str:
    """Return the step that begins with these words."""
    found = re.search(rf"^ ?\d+\. {re.escape(begins)}.*?(?=\n\n)", told, re.MULTILINE | re.DOTALL)
    assert found is not None, f"no step {begins!r}"
    return found[0]


def statuses(text: str) -> list[str]:
    return re.findall(r"^    < HTTP/1.1 (.+)$", text, re.MULTILINE)


def test_a_stranger_is_not_registered(told: str) -> None:
    text = step(told, "A stranger's application")

    assert statuses(text)[-1] == "400 Bad Request"
    assert "refused: 'https://evil.example/steal' is not approved" in text


def test_the_first_call_goes_from_a_401_to_a_token(told: str) -> None:
    text = step(told, "Alice of tenant A")

    assert statuses(text) == [
        "401 Unauthorized",
        "200 OK",  # the protected resource's metadata
        "200 OK",  # the authorization server's
        "201 Created",
        "200 OK",  # the token
        "200 OK",  # tools/list
    ]
    assert (
        "* in the browser: Sign in | Sign in to Tenant A | Allow Calendar Assistant? | Connect "
        "Google Calendar | The development vault wants access to your Google account | Allow "
        "Calendar Assistant? | You can close this window"
    ) in text
    assert "create_calendar_event(title, start, end)" in text


def test_a_refused_call_steps_up_and_is_served(told: str) -> None:
    text = step(told, "It creates an event")

    assert statuses(text) == ["403 Forbidden", "200 OK", "200 OK"]
    assert re.search(
        r'^    < WWW-Authenticate: Bearer error="insufficient_scope", '
        r'scope="(?:[^"]* )?mcp:calendar.write", '
        r'resource_metadata="http://127\.0\.0\.1:\d+/\.well-known/oauth-protected-resource/mcp", '
        r'error_description="Token missing required scopes: mcp:calendar.write"$',
        text,
        re.MULTILINE,
    )
    assert text.endswith("In her Google calendar: 2030-01-07T10:00:00Z  Design review")


def test_one_call_is_approved_by_its_user(told: str) -> None:
    form = "InputRequiredResult" if "(server/discover)" in told else "error -32042"
    asked = step(told, "Her assistant deletes it")
    link = r"http://127\.0\.0\.1:\d+/connections/approvals/\S+"

    assert re.search(rf"asked to open {link} \({form}\)$", asked, re.MULTILINE)
    assert asked.endswith("| Approve this call? | A call to approve")
    assert step(told, "It names another event").endswith("was served, once.")


def test_where_the_policy_says_no_the_client_stops(told: str) -> None:
    for begins in ("His assistant creates an event", "Carol of tenant B"):
        refused = statuses(step(told, begins)).count("403 Forbidden")
        assert refused in (1, 2)


def test_the_second_tenant_has_a_provider_of_its_own(told: str) -> None:
    assert "Sign in | Sign in to Tenant B | Allow" in step(told, "Carol of tenant B")


def test_a_connect_link_is_for_its_user_only(told: str) -> None:
    form = "InputRequiredResult" if "(server/discover)" in told else "error -32042"

    assert re.search(
        rf"asked to open http://127\.0\.0\.1:\d+/connections/link/\S+ \({form}\)$",
        step(told, "Dora, a"),
        re.MULTILINE,
    )
    assert "403 Forbidden. This link is for another person." in step(told, "Somebody sends")
    assert step(told, "Dora opens it").endswith("Connected, and served.")


def test_what_was_revoked_at_google_is_noticed(told: str) -> None:
    form = "InputRequiredResult" if "(server/discover)" in told else "error -32042"

    assert step(told, "Dora takes the access back").endswith(
        "Google answered 401 and no fresh token was to be had: Dora is asked to connect again "
        f"({form})."
    )


def test_an_expired_token_is_refused_and_refreshed_by_the_client(told: str) -> None:
    text = step(told, "Ten minutes pass")

    assert 'error="invalid_token"' in text
    assert statuses(text)[0] == "401 Unauthorized"
    assert statuses(text)[-2:] == ["200 OK", "200 OK"]
    assert "/token   (refresh_token)" in text


def test_a_token_for_another_server_is_refused(told: str) -> None:
    text = step(told, "Alice signs in at another server")

    assert statuses(text)[-1] == "401 Unauthorized"
    assert 'error_description="The token is for another audience"' in text


def test_it_ends_well(told: str) -> None:
    assert "\nAll 15 steps went as they should.\n" in told


def test_no_token_is_told(told: str) -> None:
    assert "ya29." not in told
    assert "eyJ" not in told
    assert "1//" not in told.replace("http://", "")


def test_it_is_told_in_ascii(told: str) -> None:
    assert told.isascii()


def altered(old: str, new: str) -> World:
    text = files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8")
    assert old in text
    return parse_world(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "failed"),
    [
        ('"http://127.0.0.1:*/*"', '"http://127.0.0.1:1/*"', "step 2:"),
        ('grant = ["mcp:calendar.readonly"]', f'grant = ["{READ}", "{WRITE}"]', "step 8:"),
    ],
)
def test_a_world_that_differs_is_noticed(
    old: str,
    new: str,
    failed: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(story, "builtin_world", lambda: altered(old, new))

    assert main(["demo"]) == 1

    last = capsys.readouterr().out.splitlines()[-1].strip()
    assert last.startswith(failed)


def test_the_command_says_nothing_else(commanded: tuple[str, str]) -> None:
    out, err = commanded

    assert out.startswith("toolguard demo: ")
    assert err == ""


# With a real browser -----------------------------------------------------------------------------


class Watcher(ScriptedPerson):
    """Whoever watches the demo, with one browser for everybody they are asked to play."""

    def __init__(self, browser: Browser, out: io.StringIO) -> None:
        super().__init__("", browser)
        self._out = out
        self._signed_in_as = ""

    async def play(self, url: str) -> None:
        """Open ``url`` as whom the demo asks for."""
        asked = [line for line in self._out.getvalue().splitlines() if "In your browser:" in line]
        named = re.search(r"as (\S+@[a-z-]+\.example)", asked[-1])
        assert named is not None
        self.email = named[1]
        self.connects = "do not connect" not in asked[-1]
        await self.visit(url)

    async def _answer(self, page: Page) -> Page | None:
        is_consent = page.heading.endswith("Calendar Assistant?") or "cannot" in page.heading
        if is_consent and self._signed_in_as != self.email:
            return await self._browser.press(page, "Use another account")
        if page.heading.startswith("Sign in to"):
            self._signed_in_as = self.email
        return await super()._answer(page)


@pytest.fixture
def watcher() -> Iterator[io.StringIO]:
    """Make the real browser of this process one that answers by itself; yield what it reads."""
    out, faults = io.StringIO(), []
    with anyio.from_thread.start_blocking_portal() as portal:

        async def make() -> Watcher:
            return Watcher(Browser(), out)

        person = portal.call(make)

        class Window(webbrowser.BaseBrowser):
            def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
                def watch() -> None:
                    try:
                        portal.call(person.play, url)
                    except Exception as fault:  # noqa: BLE001 - shown at the end of the test
                        faults.append(fault)

                threading.Thread(target=watch).start()
                return True

        webbrowser.register("watcher", None, Window("watcher"), preferred=True)
        yield out
        webbrowser._tryorder.remove("watcher")  # type: ignore[attr-defined]
        portal.call(person._browser.aclose)
    assert faults == []


def test_with_a_real_browser_somebody_plays_all_the_people(watcher: io.StringIO) -> None:
    anyio.run(partial(story.tell, Narrator(watcher, {}), real_browser=True))

    told = watcher.getvalue()
    assert "In your browser: sign in as alice@tenant-a.example" in told
    assert "In your browser: as dora@tenant-a.example" in told
    assert "All 15 steps went as they should." in told
