"""Connecting an account: for the user whose link it is, and for nobody else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest
from starlette.applications import Starlette

from support.hosts import Hosts
from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts
from toolguard.dev.google.consent import ConsentScreen, OAuthClient
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser, Page
from toolguard.dev.vault.connection_table import ConnectionTable, Owner
from toolguard.dev.vault.linking import Linking
from toolguard.dev.vault.providers import OutboundApp, OutboundClient
from toolguard.testing import FrozenClock

T = TypeVar("T")

SERVER = "http://127.0.0.1:8800"
GOOGLE = "http://127.0.0.1:8801"
APP = "google-calendar"
ALICE, BOB = "alice@tenant-a.example", "bob@tenant-a.example"


class Room:
    """A server with its connect pages, the provider, and people with browsers."""

    def __init__(self) -> None:
        self.clock = FrozenClock(1_800_000_000)
        self.store = Store()
        self.server = DevServer(builtin_world(), self.store, origin=SERVER, clock=self.clock)
        self.table = ConnectionTable(self.store.db, self.store.lock)
        accounts = Accounts(clock=self.clock)
        client = OAuthClient("vault", "secret", f"{SERVER}/connect/callback", "The vault")
        screen = ConsentScreen(accounts, [client], origin=GOOGLE)
        google = Starlette(routes=screen.routes())
        self.hosts, self.backchannel = Hosts({GOOGLE: google}), Hosts({GOOGLE: google})
        app = OutboundApp(
            id=APP,
            name="Google Calendar",
            authorize_url=f"{GOOGLE}/o/oauth2/v2/auth",
            token_url=f"{GOOGLE}/token",
            client_id="vault",
            client_secret="secret",
            scopes=(CALENDAR,),
        )
        outbound = OutboundClient(
            app, f"{SERVER}/connect/callback", transport=self.backchannel, clock=self.clock
        )
        self.linking = Linking(self.server, self.table, {APP: outbound}, clock=self.clock)
        self.server.extend(extra_routes=self.linking.routes())
        self.hosts.apps[SERVER] = self.server.app

    def link(self, user: str = "alice", *scopes: str, return_to: str = "") -> str:
        return self.linking.new(user, APP, scopes, return_to)

    def held(self, user: str = "alice") -> tuple[str, ...] | None:
        token = self.table.get(Owner("user", user), APP)
        return None if token is None else token.scopes

    def run(self, visit: Callable[[Browser], Awaitable[T]]) -> T:
        async def once() -> T:
            browser = Browser(transport=self.hosts)
            try:
                return await visit(browser)
            finally:
                await browser.aclose()

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

    page = room.run(lambda browser: connected(browser, room.link()))

    assert page.heading == "You can close this window"
    assert page.paragraphs == ["Google Calendar is connected for alice@tenant-a.example."]
    assert room.held() == (CALENDAR,)


def test_the_way_goes_on_where_it_came_from() -> None:
    room = Room()
    done = f"{room.server.issuer}/done"

    page = room.run(lambda browser: connected(browser, room.link(return_to=done)))

    assert page.url == done


def test_the_way_never_leads_to_another_server() -> None:
    room = Room()
    link = room.link(return_to="https://evil.example/")

    page = room.run(lambda browser: connected(browser, link))

    assert page.heading == "You can close this window"


def test_a_link_is_for_its_user_only(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    link = room.link("alice")

    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        page = room.run(lambda browser: signed_in(browser, link, BOB))

    assert (page.status, page.links, page.forms) == (403, {}, [])
    assert page.paragraphs[0] == (
        "This link is for another user. You are signed in as bob@tenant-a.example, and nothing "
        "was connected."
    )
    assert caplog.messages == ["connect link of 'alice' refused to 'bob'"]
    assert "alice" not in " ".join(page.paragraphs)


def test_the_answer_of_the_provider_is_for_its_user_only() -> None:
    room = Room()

    async def victim_opens_the_answer(attacker: Browser) -> Page:
        page = await signed_in(attacker, room.link("bob"), BOB)
        consent = await attacker.follow(page, "Continue to Google Calendar")
        del room.hosts.apps[SERVER]  # the attacker keeps the answer to themselves
        with pytest.raises(httpx.ConnectError) as caught:
            await attacker.press(consent, "Allow")
        answer = str(caught.value.request.url)
        room.hosts.apps[SERVER] = room.server.app
        victim = Browser(transport=room.hosts)
        try:
            await signed_in(victim, room.link("alice"), ALICE)
            return await victim.open(answer)
        finally:
            await victim.aclose()

    page = room.run(victim_opens_the_answer)

    assert page.status == 403
    assert (room.held("alice"), room.held("bob")) == (None, None)


def test_an_answer_is_good_once() -> None:
    room = Room()

    async def twice(browser: Browser) -> Page:
        answered = await connected(browser, room.link())
        assert answered.status == 200
        return await browser.open(answered.url)

    assert room.run(twice).status == 403


def test_nobody_is_connected_who_cancels() -> None:
    room = Room()

    page = room.run(lambda browser: connected(browser, room.link(), button="Cancel"))

    assert page.paragraphs == ["Google Calendar was not connected."]
    assert room.held() is None


@pytest.mark.parametrize("seconds", [600, 6_000])
def test_a_link_is_good_for_ten_minutes(seconds: int) -> None:
    room = Room()
    link = room.link()
    room.clock.advance(seconds)

    page = room.run(lambda browser: browser.open(link))

    assert page.status == 400
    assert page.paragraphs[0] == "This link is no longer good: ask for a new one"


def test_a_link_that_was_never_made_is_none() -> None:
    room = Room()

    assert room.run(lambda browser: browser.open(f"{SERVER}/connect/guess")).status == 400


def test_what_was_connected_stays_connected_when_more_is_asked_for() -> None:
    room = Room()

    async def twice(browser: Browser) -> Page:
        await connected(browser, room.link("alice", CALENDAR_READONLY))
        page = await browser.open(room.link("alice", CALENDAR))
        consent = await browser.follow(page, "Continue to Google Calendar")
        return await browser.press(consent, "Allow")

    room.run(twice)

    assert room.held() == (CALENDAR_READONLY, CALENDAR)


def test_a_provider_that_is_away_is_said_to_be() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await signed_in(browser, room.link(), ALICE)
        consent = await browser.follow(page, "Continue to Google Calendar")
        del room.backchannel.apps[GOOGLE]
        return await browser.press(consent, "Allow")

    page = room.run(visit)

    assert (page.status, page.paragraphs[0]) == (503, "Google Calendar is away")


def test_the_consent_page_offers_it_until_it_is_connected() -> None:
    room = Room()
    alice = room.server.world.user("alice")
    assert alice is not None
    there = f"{room.server.issuer}/done"

    offered = room.linking.for_consent(alice, there)
    assert offered is not None
    page = room.run(lambda browser: connected(browser, offered))

    assert page.url == there
    assert room.linking.for_consent(alice, there) is None


def test_neither_links_nor_answers_are_kept_in_the_clear() -> None:
    room = Room()
    ticket = room.link().rpartition("/")[2]

    async def visit(browser: Browser) -> str:
        page = await signed_in(browser, f"{SERVER}/connect/{ticket}", ALICE)
        return page.links["Continue to Google Calendar"]

    consent_url = room.run(visit)
    state = consent_url.partition("state=")[2].partition("&")[0]
    with room.store.lock:
        kept = "\n".join(room.store.db.iterdump())

    assert len(state) == 43
    assert ticket not in kept
    assert state not in kept
