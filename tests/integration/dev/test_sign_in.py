"""One browser, one sign-in, one answer; and where it may lead."""

from __future__ import annotations

import pytest

from support.devrooms import (
    ISSUER,
    ORIGIN,
    READ,
    Room,
    Visitor,
    answer_of,
    authorize_url,
    fields_of,
    submit,
)
from toolguard.dev.oauth.sessions import COOKIE, BrowserSession, csrf_token


def test_a_consent_is_answered_once() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"])
    assert "code" in answer_of(submit(browser, page, decision="allow"))
    again = submit(browser, page, decision="allow")
    assert again.status_code == 400
    assert "This sign-in was finished" in again.text


def test_another_browser_can_do_nothing_with_a_sign_in() -> None:
    room = Room()
    browser, other = room.visitor(), room.visitor()
    client_id = room.register()["client_id"]
    page = browser.follow(browser.get(authorize_url(client_id)))
    assert other.get(str(page.url)).status_code == 400
    room.consent_at(other, client_id, "bob@tenant-a.example")
    for step in ("sign-in", "provider", "consent"):
        url = str(page.url).replace("/sign-in?", f"/{step}?")
        response = other.get(url)
        assert response.status_code == 400
        assert "began in another browser" in response.text


def test_a_consent_page_without_a_sign_in_leads_to_it() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    url = str(page.url).replace("/sign-in?", "/consent?")
    assert browser.get(url).headers["location"] == str(page.url)
    tx = url.partition("tx=")[2]
    response = browser.post(f"{ISSUER}/consent", {"tx": tx, "decision": "allow", "scope": READ})
    assert response.headers["location"] == str(page.url)


def test_the_provider_page_without_an_address_leads_back() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    response = browser.get(str(page.url).replace("/sign-in?", "/provider?"))
    assert response.headers["location"] == str(page.url)


def test_the_cookie_changes_at_sign_in_and_is_not_for_scripts() -> None:
    room = Room()
    browser = room.visitor()
    response = browser.get(authorize_url(room.register()["client_id"]))
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    before = browser.cookies[COOKIE]
    page = submit(browser, browser.follow(response), email="alice@tenant-a.example")
    submit(browser, page)
    assert browser.cookies[COOKIE] != before
    stale = Visitor(room.server)
    stale.cookies.set(COOKIE, before, domain="127.0.0.1")
    assert stale.get(str(page.url)).status_code == 400


def test_after_signing_out_the_old_cookie_is_nobodys() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    page = room.consent_at(browser, client_id)
    stale = Visitor(room.server)
    stale.cookies.set(COOKIE, browser.cookies[COOKIE], domain="127.0.0.1")
    assert "/consent?" in stale.get(authorize_url(client_id)).headers["location"]
    submit(browser, page, form=1)
    assert "/sign-in?" in stale.get(authorize_url(client_id)).headers["location"]


@pytest.mark.parametrize("step", ["sign-in", "provider", "consent", "sign-out"])
@pytest.mark.parametrize(
    "forged", [None, "", "0" * 64, "other-step", "other-sign-in", "other-browser", "cross-site"]
)
def test_a_form_from_elsewhere_is_refused(step: str, forged: str | None) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(client_id)))
    if step != "sign-in":
        page = submit(browser, page, email="alice@tenant-a.example")
    if step in ("consent", "sign-out"):
        page = submit(browser, page)
    action, pairs = fields_of(page, 1 if step == "sign-out" else 0)
    assert action == f"{ISSUER}/{step}"
    good = dict(pairs)["csrf"]
    session = BrowserSession(browser.cookies[COOKIE], None)
    other_step = "consent" if step != "consent" else "sign-in"
    other_page = room.consent_at(room.visitor(), client_id)
    token = {
        "other-step": csrf_token(session, f"{other_step} {dict(pairs)['tx']}"),
        "other-sign-in": csrf_token(session, f"{step} another"),
        "other-browser": dict(fields_of(other_page)[1])["csrf"],
        "cross-site": good,
    }.get(forged or "", forged)
    sent = [(name, value) for name, value in pairs if name != "csrf"]
    sent += [("decision", "allow"), ("email", "bob@tenant-a.example")]
    sent += [] if token is None else [("csrf", token)]
    site = "cross-site" if forged == "cross-site" else "same-origin"
    response = browser.post(action, sent, headers={"sec-fetch-site": site})
    assert response.status_code == 403
    assert "location" not in response.headers
    assert "This form was not sent from a page of this server" in response.text


def test_the_same_form_from_its_page_is_accepted() -> None:
    room = Room()
    browser = room.visitor()
    action, pairs = fields_of(room.consent_at(browser, room.register()["client_id"]))
    response = browser.post(
        action, [*pairs, ("decision", "allow")], headers={"sec-fetch-site": "same-origin"}
    )
    assert response.status_code == 303


def test_a_sign_in_expires() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    room.clock.advance(600)
    assert browser.get(str(page.url)).status_code == 400


def test_a_session_expires() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    room.consent_at(browser, client_id)
    room.clock.advance(3_600)
    assert "/sign-in?" in browser.get(authorize_url(client_id)).headers["location"]


def callback_of(room: Room, browser: Visitor) -> str:
    """Go to where the provider sends the browser back, and stop there."""
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    page = submit(browser, page, email="alice@tenant-a.example")
    location: str = browser.post(*fields_of(page)).headers["location"]
    return location


def test_the_code_of_the_provider_is_good_once() -> None:
    room = Room()
    browser = room.visitor()
    url = callback_of(room, browser)
    assert url.startswith(f"{ISSUER}/callback?state=")
    assert browser.get(url).headers["location"].startswith(f"{ISSUER}/consent?tx=")
    assert browser.get(url).status_code == 400


def test_the_code_of_the_provider_is_good_in_its_own_browser_only() -> None:
    room = Room()
    url = callback_of(room, room.visitor())
    other = room.visitor()
    callback_of(room, other)
    response = other.get(url)
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("code", ["", "forged"])
def test_a_forged_code_of_the_provider_signs_nobody_in(code: str) -> None:
    room = Room()
    browser = room.visitor()
    url = callback_of(room, browser).partition("&code=")[0]
    response = browser.get(f"{url}&code={code}")
    assert response.status_code == 400
    assert "set-cookie" not in response.headers


# Signing in for other pages of the server


def test_a_page_of_the_server_can_have_its_visitor_signed_in_first() -> None:
    room = Room()
    browser = room.visitor()
    there = f"{ORIGIN}/connect/abc?x=1"
    page = browser.follow(browser.get(room.server.sign_in_url(there)))
    assert "<strong>This development server</strong> asks you to sign in" in page.text
    page = submit(browser, page, email="dora@tenant-a.example")
    response = browser.post(*fields_of(page))
    response = browser.get(response.headers["location"])
    assert response.headers["location"] == there
    assert browser.get(room.server.sign_in_url(there)).headers["location"] == there


def test_a_browser_may_begin_more_than_once() -> None:
    room = Room()
    browser = room.visitor()
    for path in ("one", "two"):
        page = browser.follow(browser.get(room.server.sign_in_url(f"{ORIGIN}/{path}")))
        assert "<h1>Sign in</h1>" in page.text
        assert room.visitor().get(str(page.url)).status_code == 400


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "http://127.0.0.1:8800.evil.example/",
        "http://127.0.0.1:8800@evil.example/",
        "http://127.0.0.1:88001/",
        "http://127.0.0.1:8800",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http://127.0.0.1:8800/\r\nset-cookie: a=b",
        "http://127.0.0.1:8800/\u00e9",
    ],
)
def test_nobody_is_sent_elsewhere_after_signing_in(url: str) -> None:
    room = Room()
    with pytest.raises(ValueError, match="not an address of this server"):
        room.server.sign_in_url(url)
    response = room.client.get(f"{ISSUER}/sign-in", params={"return_to": url})
    assert response.status_code == 400
    assert "location" not in response.headers


def test_a_sign_in_without_a_client_has_nothing_to_consent_to() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(room.server.sign_in_url(f"{ORIGIN}/x")))
    room.consent_at(browser, room.register()["client_id"])
    response = browser.get(str(page.url).replace("/sign-in?", "/consent?"))
    assert response.status_code == 400
    assert "No application has asked for anything" in response.text


def test_the_way_ends_on_a_page_that_can_be_closed() -> None:
    assert "You can close this window" in Room().client.get(f"{ISSUER}/done").text
