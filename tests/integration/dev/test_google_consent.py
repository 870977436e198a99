"""The consent page of the Google-shaped provider, and the tokens that come of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from starlette.applications import Starlette

from support.hosts import Hosts
from toolguard.connections.http import VaultClient
from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts
from toolguard.dev.google.consent import ConsentScreen, RegisteredClient
from toolguard.dev.story.browser import Browser, Page
from toolguard.errors import ConnectionRequiredError
from toolguard.parsing.pkce import s256_challenge
from toolguard.testing import FrozenClock
from toolguard.vault import Endpoints, OAuthProvider
from toolguard.vault.grants import Grant
from toolguard.vault.oauth_client import OAuthClient as VaultsClient

T = TypeVar("T")

GOOGLE = "http://127.0.0.1:8801"
CALLBACK = "http://127.0.0.1:8800/connect/callback"
ENDPOINTS = Endpoints(f"{GOOGLE}/o/oauth2/v2/auth", f"{GOOGLE}/token")
SECRET = "a-secret"
VERIFIER = "v" * 43


class Room:
    """The provider, a client of it, and a browser."""

    def __init__(self) -> None:
        self.clock = FrozenClock(1_800_000_000)
        self.accounts = Accounts(clock=self.clock)
        client = RegisteredClient("vault", SECRET, CALLBACK, "The vault")
        screen = ConsentScreen(self.accounts, [client], origin=GOOGLE)
        here = Starlette()
        self.hosts = Hosts(
            {GOOGLE: Starlette(routes=screen.routes()), "http://127.0.0.1:8800": here}
        )
        self.provider = OAuthProvider(
            title="Google Calendar",
            client_id="vault",
            client_secret=SECRET,
            endpoints=ENDPOINTS,
        )
        http = VaultClient(transport=self.hosts)
        self.outbound = VaultsClient("google-calendar", self.provider, http, self.clock)

    def url(self, *scopes: str) -> str:
        return self.provider.consent_url(
            ENDPOINTS,
            CALLBACK,
            scopes or [CALENDAR],
            state="s1",
            code_challenge=s256_challenge(VERIFIER),
            login_hint="a@gmail.test",
        )

    def run(self, visit: Callable[[Browser], Awaitable[T]]) -> T:
        async def once() -> T:
            browser = Browser(transport=self.hosts)
            try:
                return await visit(browser)
            finally:
                await browser.aclose()

        return asyncio.run(once())

    def post(self, path: str, **form: str) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.hosts, base_url=GOOGLE) as client:
                return await client.post(path, data=form)

        return asyncio.run(once())

    def get(self, url: str) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.hosts, base_url=GOOGLE) as client:
                return await client.get(url)

        return asyncio.run(once())

    def consent(self, *scopes: str, button: str = "Allow", **filled: str) -> dict[str, str]:
        """Return what the browser brings back to the client."""

        async def visit(browser: Browser) -> Page:
            return await browser.press(await browser.open(self.url(*scopes)), button, **filled)

        return dict(parse_qsl(urlsplit(self.run(visit).url).query))

    def token(self, **changed: str) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "client_id": "vault",
            "client_secret": SECRET,
            "redirect_uri": CALLBACK,
            "code_verifier": VERIFIER,
            **changed,
        }
        return self.post("/token", **form)


def exchange(room: Room, code: str) -> Grant | None:
    """Return what a code stands for; None if it is refused."""
    try:
        return asyncio.run(room.outbound.exchange(code, VERIFIER, CALLBACK, ()))[0]
    except ConnectionRequiredError:
        return None


def test_who_allows_it_gives_the_client_tokens_of_the_chosen_account() -> None:
    room = Room()

    answer = room.consent(CALENDAR, CALENDAR_READONLY, account="Work@gmail.test")
    token = exchange(room, answer["code"])

    assert answer["state"] == "s1"
    assert token is not None
    assert (token.scopes, token.expires_at) == ((CALENDAR, CALENDAR_READONLY), room.clock() + 3_600)
    access = room.accounts.access(token.access_token)
    assert access is not None
    assert access.account == "work@gmail.test"


def test_the_page_proposes_the_account_of_the_hint_and_says_what_is_asked() -> None:
    page = Room().run(lambda browser: browser.open(Room().url(CALENDAR_READONLY)))

    assert page.heading == "The vault wants access to your Google account"
    assert ("account", "a@gmail.test") in page.forms[0].fields
    assert list(page.forms[0].buttons) == ["Allow", "Cancel"]


def test_who_cancels_gives_nothing() -> None:
    answer = Room().consent(button="Cancel")

    assert answer == {"error": "access_denied", "state": "s1"}


def test_a_code_is_good_once() -> None:
    room = Room()
    code = room.consent()["code"]

    assert exchange(room, code) is not None
    assert exchange(room, code) is None


def test_a_code_is_good_for_a_minute() -> None:
    room = Room()
    code = room.consent()["code"]
    room.clock.advance(61)

    assert exchange(room, code) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"code_verifier": "w" * 43},
        {"redirect_uri": "http://127.0.0.1:8800/other"},
        {"code": "another"},
    ],
)
def test_a_code_is_good_with_its_proof_only(changed: dict[str, str]) -> None:
    room = Room()

    refused = room.token(**{"code": room.consent()["code"], **changed})

    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


@pytest.mark.parametrize("changed", [{"client_secret": "guess"}, {"client_id": "unknown"}])
def test_tokens_are_for_the_registered_client(changed: dict[str, str]) -> None:
    room = Room()

    refused = room.token(code=room.consent()["code"], **changed)

    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")


def test_a_refresh_is_good_until_the_consent_ends() -> None:
    room = Room()
    token = exchange(room, room.consent()["code"])
    assert token is not None

    fresh = asyncio.run(room.outbound.refresh(token))
    assert isinstance(fresh, Grant)
    assert fresh.refresh_token == token.refresh_token
    assert fresh.access_token != token.access_token

    room.accounts.revoke_all("a@gmail.test")
    refused = asyncio.run(room.outbound.refresh(token))
    assert isinstance(refused, ConnectionRequiredError)


def test_another_grant_type_is_refused() -> None:
    refused = Room().token(code="c", grant_type="password")

    assert refused.json()["error"] == "unsupported_grant_type"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("client_id=vault", "client_id=other"),
        ("redirect_uri=http", "redirect_uri=https"),
        ("response_type=code", "response_type=token"),
        ("code_challenge_method=S256", "code_challenge_method=plain"),
        ("&code_challenge=", "&code_challenge=short"),
        ("auth%2Fcalendar", "auth%2Fgmail"),
        ("state=s1", "state=s1&scope=twice"),
    ],
)
def test_a_request_that_is_not_right_is_answered_here_and_redirected_nowhere(
    old: str, new: str
) -> None:
    room = Room()
    assert old in room.url()

    answer = room.get(room.url().replace(old, new))

    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_a_form_is_good_once() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await browser.open(room.url())
        await browser.press(page, "Allow")
        return await browser.press(page, "Allow")

    assert room.run(visit).status == 403


def test_a_form_is_good_in_its_own_browser_only() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await browser.open(room.url())
        other = Browser(transport=room.hosts)
        try:
            return await other.press(page, "Allow")
        finally:
            await other.aclose()

    assert room.run(visit).status == 403


def test_a_form_of_one_page_is_not_good_for_another() -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        page = await browser.open(f"{GOOGLE}/connections")
        page.forms[0].action = f"{GOOGLE}/o/oauth2/v2/auth"
        return await browser.press(page, "Remove all access", account="a@gmail.test")

    assert room.run(visit).status == 400


@pytest.mark.parametrize("account", ["nobody", "a@b@c", "a b@gmail.test", "<b>@gmail.test"])
def test_an_account_is_an_address(account: str) -> None:
    room = Room()

    async def visit(browser: Browser) -> Page:
        return await browser.press(await browser.open(room.url()), "Allow", account=account)

    assert room.run(visit).status == 400


def test_people_can_take_back_what_they_allowed() -> None:
    room = Room()
    token = exchange(room, room.consent()["code"])
    assert token is not None

    async def visit(browser: Browser) -> Page:
        page = await browser.open(f"{GOOGLE}/connections")
        return await browser.press(page, "Remove all access", account="A@gmail.test")

    assert room.run(visit).heading == "You can close this window"
    assert room.accounts.access(token.access_token) is None
    assert not room.accounts.has_consents("a@gmail.test")


def test_the_pages_run_nothing_and_stand_in_no_frame() -> None:
    room = Room()

    for url in (room.url(), "/connections"):
        answer = room.get(url)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert not re.search(r"<script|\son[a-z]+=|\sstyle=", answer.text)
        assert answer.headers["cache-control"] == "no-store"
    assert (
        "form-action 'self' http://127.0.0.1:8800;"
        in room.get(room.url()).headers["content-security-policy"]
    )
    assert room.get("/style.css").headers["content-type"].startswith("text/css")


def test_no_secret_is_in_a_representation() -> None:
    client = RegisteredClient("vault", SECRET, CALLBACK, "The vault")

    assert SECRET not in f"{client}"
