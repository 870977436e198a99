"""Can an account be connected for, or taken by, anybody but the person a link is for?"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request

from support.vault_world import ISSUER, ORIGIN, World, follow, in_world
from toolguard.errors import ConnectionRequiredError
from toolguard.vault import Person, connect_routes
from toolguard.vault.browser import new_state
from toolguard.vault.grants import Grant, GrantKey, Owner


async def callback_of(browser: httpx.AsyncClient, link: str) -> str:
    """Go as far as the service, and return where it would send this browser back to."""
    page = await browser.get(link)
    button = re.search(r'class="button" href="([^"]+)"', page.text)
    assert button is not None
    consent = await browser.get(button[1], follow_redirects=False)
    answer = await browser.get(consent.headers["location"], follow_redirects=False)
    return answer.headers["location"]


async def is_connected(world: World, user: str) -> bool:
    try:
        await world.fetch(user)
    except ConnectionRequiredError:
        return False
    return True


def test_a_link_opened_by_another_person_is_refused_and_says_so(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        link = await world.link("alice")
        world.issuer.user = "bob"
        async with world.browser() as bob:
            page = await follow(bob, link)

        assert page.status_code == 403
        assert "another person" in page.text
        assert not await is_connected(world, "alice")
        assert not await is_connected(world, "bob")
        assert await follow_as(world, "alice", link) == 200

    in_world(tmp_path_url, test)


async def follow_as(world: World, user: str, link: str) -> int:
    world.issuer.user = user
    async with world.browser() as browser:
        return (await follow(browser, link)).status_code


def test_a_ticket_is_good_once(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        link = await world.link("alice")

        assert await follow_as(world, "alice", link) == 200
        assert await follow_as(world, "alice", link) == 410

    in_world(tmp_path_url, test)


def test_a_look_at_a_link_does_not_use_it_up(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        link = await world.link("alice")
        async with httpx.AsyncClient(transport=world.transport) as preview:
            await preview.get(link)

        assert await follow_as(world, "alice", link) == 200

    in_world(tmp_path_url, test)


def test_a_ticket_ends_after_ten_minutes(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        link = await world.link("alice")
        world.now += 600

        assert await follow_as(world, "alice", link) == 410

    in_world(tmp_path_url, test)


def test_a_callback_in_another_browser_connects_nothing(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        world.issuer.user = "mallory"
        async with world.browser() as mallory:
            callback = await callback_of(mallory, await world.link("mallory"))
        world.issuer.user = "alice"
        async with world.browser() as alice:
            await alice.get("/connections")
            page = await alice.get(callback)

        assert page.status_code == 403
        assert not await is_connected(world, "alice")
        assert not await is_connected(world, "mallory")

    in_world(tmp_path_url, test)


def test_a_sign_in_begun_in_another_browser_signs_nobody_in(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        world.issuer.user = "mallory"
        async with world.browser() as mallory:
            start = await mallory.get("/connections", follow_redirects=False)
            answer = await mallory.get(start.headers["location"], follow_redirects=False)
        async with world.browser() as alice:
            page = await alice.get(answer.headers["location"])
            assert page.status_code == 403
            assert "session" not in str([*alice.cookies])

    in_world(tmp_path_url, test)


@pytest.mark.parametrize(
    "change", [("state=", "state=x"), ("iss=https%3A%2F%2Fauth.test", "iss=https%3A%2F%2Fevil")]
)
def test_a_sign_in_with_another_state_or_issuer_is_refused(
    tmp_path_url: str, change: tuple[str, str]
) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            start = await alice.get("/connections", follow_redirects=False)
            answer = await alice.get(start.headers["location"], follow_redirects=False)
            location = answer.headers["location"]
            assert change[0] in location

            assert (await alice.get(location.replace(*change))).status_code == 403

    in_world(tmp_path_url, test)


def test_an_id_token_of_another_sign_in_is_refused(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            start = await alice.get("/connections", follow_redirects=False)
            changed = re.sub("nonce=[^&]+", "nonce=x", start.headers["location"])

            assert (await alice.get(changed)).status_code == 403

    in_world(tmp_path_url, test)


def test_an_answer_at_the_callback_of_another_connection_is_refused(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            callback = await callback_of(alice, await world.link("alice"))
            page = await alice.get(callback.replace("/callback/service", "/callback/other"))

        assert page.status_code == 403
        assert not await is_connected(world, "alice")

    in_world(tmp_path_url, test)


def test_a_state_is_good_once(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            callback = await callback_of(alice, await world.link("alice"))
            assert (await alice.get(callback)).status_code == 200
            assert (await alice.get(callback)).status_code == 403

    in_world(tmp_path_url, test)


def test_a_refused_consent_is_shown_and_connects_nothing(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            callback = await callback_of(alice, await world.link("alice"))
            state = parse_qs(urlsplit(callback).query)["state"][0]
            page = await alice.get(
                f"/connections/callback/service?error=access_denied&state={state}"
            )

        assert "was not connected" in page.text
        assert not await is_connected(world, "alice")

    in_world(tmp_path_url, test)


def test_markup_in_an_account_name_is_shown_as_text(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        world.service.account = "<script>alert(1)</script>"
        page = await world.connect("alice")

        assert "<script>" not in page.text
        assert "&lt;script&gt;" in page.text

    in_world(tmp_path_url, test)


def test_no_page_runs_a_script_or_tells_its_address(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            page = await alice.get(await world.link("alice"))
            button = re.search(r'class="button" href="([^"]+)"', page.text)
            assert button is not None
            go = await alice.get(button[1], follow_redirects=False)

        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["referrer-policy"] == go.headers["referrer-policy"] == "no-referrer"
        assert page.headers["cache-control"] == "no-store"

    in_world(tmp_path_url, test)


def test_a_person_sees_their_connections_and_disconnects_one(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect("alice")
        async with world.browser() as alice:
            page = await alice.get("/connections")
            assert "alice@service" in page.text
            form = dict(re.findall(r'name="(\w+)" value="([^"]+)"', page.text))
            forged = await alice.post("/connections/disconnect", data={**form, "csrf": "x"})
            assert forged.status_code == 403
            assert await is_connected(world, "alice")

            page = await alice.post("/connections/disconnect", data=form)

        assert "Nothing is connected" in page.text
        assert not await is_connected(world, "alice")
        assert len(world.service.revoked) == 1

    in_world(tmp_path_url, test)


@pytest.mark.parametrize("harm", ["key_id = 'lost'", "sealed = zeroblob(64)"])
def test_a_row_that_cannot_be_opened_hides_no_other(tmp_path_url: str, harm: str) -> None:
    async def test(world: World) -> None:
        person = Owner(ISSUER, "alice")
        for name in ("service", "other"):
            await world.vault.keep(GrantKey(person, name), Grant("a", account=f"at-{name}"), person)
        await world.sql(f"UPDATE vault_grant SET {harm} WHERE connection = 'other'")
        async with world.browser() as alice:
            page = await alice.get("/connections")
            assert page.status_code == 200
            assert "at-service" in page.text
            assert "at-other" not in page.text
            assert page.text.count("It has to be connected again.") == 1
            form = re.search(r'name="csrf" value="([^"]+)"', page.text)
            assert form is not None
            await alice.post(
                "/connections/disconnect", data={"csrf": form[1], "connection": "other"}
            )
        listed = await world.vault.list(ISSUER, "alice")
        assert [(each.connection, each.works) for each in listed] == [("service", True)]

    in_world(tmp_path_url, test)


def test_a_link_leads_back_to_the_origin_of_the_pages_only(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        person = Owner(ISSUER, "alice")
        key = GrantKey(person, "service")
        for evil in ("https://evil.test/", f"{ORIGIN}@evil.test/", "//evil.test", "javascript:x"):
            with pytest.raises(ValueError, match="return_to="):
                await world.vault.link(person, key, return_to=evil)
        back = f"{ORIGIN}/connections?from=app"
        link = await world.vault.link(person, key, return_to=back)
        assert link is not None
        async with world.browser() as alice:
            page = await follow(alice, link)
        assert str(page.url) == back
        assert await is_connected(world, "alice")

    in_world(tmp_path_url, test)


def test_a_session_of_the_application_stands_for_the_sign_in(tmp_path_url: str) -> None:
    async def signed_in(request: Request) -> Person | None:
        user = request.headers.get("x-user")
        return Person(ISSUER, user) if user else None

    async def test(world: World) -> None:
        link = await world.link("alice")
        async with world.browser() as browser:
            assert (await follow(browser, link)).status_code == 401
            browser.headers["x-user"] = "bob"
            assert (await follow(browser, link)).status_code == 403
            browser.headers["x-user"] = "alice"
            assert (await follow(browser, link)).status_code == 200
        assert await is_connected(world, "alice")

    in_world(tmp_path_url, test, sign_in=signed_in)


def test_on_https_the_cookies_belong_to_this_host_only(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        vault = world.replica(public_url="https://mcp.test")
        app = Starlette(routes=connect_routes(vault))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://mcp.test") as browser:
            cookie = (await browser.get("/connections")).headers["set-cookie"]
        await vault.aclose()

        assert cookie.startswith("__Host-toolguard-browser=")
        assert {"Secure", "HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))

    in_world(tmp_path_url, test)


@pytest.mark.parametrize("change", ["owner = 'alice'", "kind = 'tenant'", "issuer = 'https://x'"])
def test_a_link_whose_owner_was_changed_in_the_database_is_refused(
    database_url: str, change: str
) -> None:
    async def test(world: World) -> None:
        link = await world.link("mallory")
        await world.sql(f"UPDATE vault_slip SET {change}")

        assert await follow_as(world, "alice", link) == 410
        assert not await is_connected(world, "mallory")

    in_world(database_url, test)


@pytest.mark.parametrize("change", ["owner = 'alice'", "expires_at = expires_at + 1"])
def test_a_session_changed_in_the_database_signs_nobody_in(tmp_path_url: str, change: str) -> None:
    async def test(world: World) -> None:
        world.issuer.user = "mallory"
        async with world.browser() as mallory:
            assert (await mallory.get("/connections")).status_code == 200
            await world.sql(f"UPDATE vault_slip SET {change}")
            page = await mallory.get("/connections", follow_redirects=False)

        assert page.status_code == 303

    in_world(tmp_path_url, test)


def test_strangers_write_nothing_to_the_database(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        link = await world.link("alice")
        async with world.browser() as stranger:
            for each in ("/connections", link, f"{link}?again=1", "/connections/link/x"):
                await stranger.get(each, follow_redirects=False)
            await stranger.get("/connections/signed-in?state=x&code=y")

        assert await world.sql("SELECT purpose FROM vault_slip") == [("ticket",)]

    in_world(tmp_path_url, test)


def test_a_person_has_a_bounded_number_of_open_links(database_url: str) -> None:
    async def test(world: World) -> None:
        of_bob = await world.link("bob")
        for _ in range(55):
            world.now += 1
            link = await world.link("alice")

        assert await world.sql("SELECT count(*) FROM vault_slip WHERE owner = 'alice'") == [(50,)]
        assert await follow_as(world, "alice", link) == 200
        assert await follow_as(world, "bob", of_bob) == 200

    in_world(database_url, test)


def test_a_sign_in_ends_after_ten_minutes(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            start = await alice.get("/connections", follow_redirects=False)
            answer = await alice.get(start.headers["location"], follow_redirects=False)
            world.now += 600
            page = await alice.get(answer.headers["location"])

        assert page.status_code == 403

    in_world(tmp_path_url, test)


@pytest.mark.parametrize("facts", [{}, {"until": "x"}, {"until": 2e9, "then": ["x"]}])
def test_a_state_that_a_browser_makes_itself_signs_nobody_in(
    tmp_path_url: str, facts: dict[str, Any]
) -> None:
    async def test(world: World) -> None:
        async with world.browser() as browser:
            browser.cookies.set("toolguard-browser", "known")
            query = {"state": new_state("known", facts), "code": "x"}
            assert (await browser.get("/connections/signed-in", params=query)).status_code == 403

    in_world(tmp_path_url, test)


def test_a_form_with_a_proof_that_is_not_ascii_is_refused(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        async with world.browser() as alice:
            await alice.get("/connections")
            page = await alice.post("/connections/disconnect", data={"csrf": "\u00e9"})

        assert page.status_code == 403

    in_world(tmp_path_url, test)
