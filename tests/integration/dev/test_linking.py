"""Connecting an account: for the user whose link it is, and for nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from starlette.applications import Starlette

from support.hosts import Hosts
from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts
from toolguard.dev.google.consent import ConsentScreen, RegisteredClient
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser, Page
from toolguard.dev.vault.of_server import ServerVault
from toolguard.testing import FrozenClock
from toolguard.vault import Endpoints, OAuthProvider, connect_routes
from toolguard.vault.grants import GrantKey

T = TypeVar("T")

SERVER = "http://127.0.0.1:8800"
GOOGLE = "http://127.0.0.1:8801"
APP = "google-calendar"
ALICE, BOB = "alice@tenant-a.example", "bob@tenant-a.example"


class Room:
    """A server with its connect pages, the provider, and people with browsers."""

    def __init__(self, state: Path | None = None) -> None:
        self.clock = FrozenClock(1_800_000_000)
        self.store = Store(str(state or ":memory:"))
        self.server = DevServer(builtin_world(), self.store, origin=SERVER, clock=self.clock)
        accounts = Accounts(clock=self.clock)
        callback = f"{SERVER}/connections/callback/{APP}"
        client = RegisteredClient("vault", "secret", callback, "The vault")
        screen = ConsentScreen(accounts, [client], origin=GOOGLE)
        google = Starlette(routes=screen.routes())
        self.hosts, self.backchannel = Hosts({GOOGLE: google}), Hosts({GOOGLE: google})
        provider = OAuthProvider(
            title="Google Calendar",
            client_id="vault",
            client_secret="secret",
            endpoints=Endpoints(f"{GOOGLE}/o/oauth2/v2/auth", f"{GOOGLE}/token"),
            scopes=(CALENDAR,),
            login_hint=True,
        )
        self.connected = ServerVault(
            self.server, {APP: provider}, transport=self.backchannel, clock=self.clock
        )
        self.server.extend(extra_routes=connect_routes(self.connected.vault))
        self.hosts.apps[SERVER] = self.server.app

    async def link(self, user: str = "alice", *scopes: str, return_to: str = "") -> str:
        return await self.connected.link(user, APP, scopes, return_to=return_to)

    async def held(self, user: str = "alice") -> tuple[str, ...] | None:
        key = GrantKey(self.connected.owner(user), APP)
        kept = await self.connected.vault.store.get(key)
        return None if kept is None else kept.grant.scopes

    def run(self, visit: Callable[[Browser], Awaitable[T]]) -> T:
        async def once() -> T:
            browser = Browser(transport=self.hosts)
            try:
                return await visit(browser)
            finally:
                await browser.aclose()
                await self.connected.vault.aclose()

        return asyncio.run(once())


async def signed_in(browser: Browser, url: str, email: str) -> Page:
    """Return the page behind ``url``, after the sign-in that stands before it."""
    page = await browser.press(await browser.open(url), "Continue", email=email)
    return await browser.press(page, "Sign in as")


async def connected(browser: Browser, url: str, email: str = ALICE, button: str = "Allow") -> Page:
    page = await signed_in(browser, url, email)
    consent = await browser.follow(page, "Continue to Google Calendar")
    return await browser.press(consent, button)


def test_a_user_connects_their_account() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await connected(browser, await room.link())
        assert await room.held() == (CALENDAR,)
        return page

    page = room.run(visit)

    assert page.heading == "You can close this window"
    assert page.paragraphs[0] == "Google Calendar is connected for alice@tenant-a.example."


@pytest.mark.parametrize("button", ["Allow", "Cancel"])
def test_the_way_goes_on_where_it_came_from(button: str) -> None:
    room = Room()
    done = f"{room.server.issuer}/done"

    async def visit(browser: Browser) -> Page:
        return await connected(browser, await room.link(return_to=done), button=button)

    assert room.run(visit).url == done


def test_the_way_never_leads_to_another_server() -> None:
    room = Room()

    async def visit(_: Browser) -> None:
        with pytest.raises(ValueError, match=f"write a URL on {SERVER}"):
            await room.link(return_to="https://evil.example/")

    room.run(visit)


def test_a_link_is_for_its_user_only(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        return await signed_in(browser, await room.link("alice"), BOB)

    with caplog.at_level(logging.WARNING, "toolguard.vault"):
        page = room.run(visit)

    assert (page.status, page.links, page.forms) == (403, {}, [])
    assert page.paragraphs[0] == (
        "This link is for another person. You are signed in as bob@tenant-a.example, and nothing "
        "was connected."
    )
    assert caplog.messages == ["a connect link of 'alice' was opened by 'bob'"]
    assert "alice" not in " ".join(page.paragraphs)


def test_the_answer_of_the_provider_is_for_its_user_only() -> None:
    room = Room()

    async def victim_opens_the_answer(attacker: Browser) -> Page:
        page = await signed_in(attacker, await room.link("bob"), BOB)
        consent = await attacker.follow(page, "Continue to Google Calendar")
        del room.hosts.apps[SERVER]  # the attacker keeps the answer to themselves
        with pytest.raises(httpx.ConnectError) as caught:
            await attacker.press(consent, "Allow")
        answer = str(caught.value.request.url)
        room.hosts.apps[SERVER] = room.server.app
        victim = Browser(transport=room.hosts)
        try:
            await signed_in(victim, await room.link("alice"), ALICE)
            return await victim.open(answer)
        finally:
            await victim.aclose()
            assert (await room.held("alice"), await room.held("bob")) == (None, None)

    assert room.run(victim_opens_the_answer).status == 403


def test_nobody_is_connected_who_cancels() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await connected(browser, await room.link(), button="Cancel")
        assert await room.held() is None
        return page

    assert room.run(visit).paragraphs == ["Google Calendar was not connected."]


def test_what_was_connected_stays_connected_when_more_is_asked_for() -> None:
    room = Room()

    async def twice(browser: Browser) -> tuple[str, ...] | None:
        await connected(browser, await room.link("alice", CALENDAR_READONLY))
        page = await browser.open(await room.link("alice", CALENDAR))
        consent = await browser.follow(page, "Continue to Google Calendar")
        await browser.press(consent, "Allow")
        return await room.held()

    assert room.run(twice) == (CALENDAR_READONLY, CALENDAR)


def test_a_provider_that_is_away_is_said_to_be() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await signed_in(browser, await room.link(), ALICE)
        consent = await browser.follow(page, "Continue to Google Calendar")
        del room.backchannel.apps[GOOGLE]
        return await browser.press(consent, "Allow")

    page = room.run(visit)

    assert page.status == 503
    assert page.paragraphs[0] == "The service did not answer as expected: try again."


def test_the_consent_page_offers_it_until_it_is_connected() -> None:
    room = Room()
    alice = room.server.world.user("alice")
    assert alice is not None
    there = f"{room.server.issuer}/done"

    async def visit(browser: Browser) -> Page:
        offered = await room.connected.link_for_consent(alice, there)
        assert offered is not None
        assert offered.title == "Google Calendar"
        page = await connected(browser, offered.url)
        assert await room.connected.link_for_consent(alice, there) is None
        return page

    assert room.run(visit).url == there


def test_a_state_file_keeps_connections_sealed_beside_it(tmp_path: Path) -> None:
    before = Room(tmp_path / "state.db")

    async def connect(browser: Browser) -> None:
        await connected(browser, await before.link())

    before.run(connect)
    before.store.close()
    after = Room(tmp_path / "state.db")

    assert after.run(lambda _: after.connected.has("alice", APP))
    assert (tmp_path / "state.db.vault").stat().st_mode & 0o077 == 0
    assert b"ya29" not in (tmp_path / "state.db.vault").read_bytes()
