"""Who is asked for what, in which words, and what becomes of the answer."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from support.devrooms import (
    CALLBACK,
    FETCH,
    ISSUER,
    MCP,
    ORIGIN,
    READ,
    WRITE,
    Room,
    answer_of,
    authorize_url,
    fields_of,
    submit,
)
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.consent import ConnectLink
from toolguard.dev.oauth.policies import ScopeRule
from toolguard.dev.services import Origins, Services
from toolguard.dev.store import Store


def checkboxes(page: Any) -> list[str]:
    return [value for name, value in fields_of(page)[1] if name == "scope"]


def test_alice_allows_and_the_client_gets_a_code_with_state_and_issuer() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    response = submit(browser, room.consent_at(browser, client_id), decision="allow")
    assert response.status_code == 303
    assert response.headers["location"].startswith("http://127.0.0.1:3000/callback?code=")
    answer = answer_of(response)
    assert len(answer.pop("code")) == 43
    assert answer == {"state": "st4te", "iss": "http://127.0.0.1:8800/P2dev"}


@pytest.mark.parametrize(
    ("email", "offered", "refused"),
    [
        ("alice@tenant-a.example", [READ, WRITE, FETCH], []),
        ("bob@tenant-a.example", [READ, FETCH], [WRITE]),
        ("carol@tenant-b.example", [READ, FETCH], [WRITE]),
        ("dora@tenant-a.example", [READ, WRITE, FETCH], []),
    ],
)
def test_a_user_is_offered_what_the_policy_gives_them(
    email: str, offered: list[str], refused: list[str]
) -> None:
    room = Room()
    page = room.consent_at(room.visitor(), room.register()["client_id"], email)
    assert checkboxes(page) == offered
    assert ("what the policy does not give you" in page.text) == bool(refused)
    assert all(f"{scope}</code></li>" in page.text for scope in refused)


def test_the_consent_page_says_in_words_who_asks_for_what() -> None:
    room = Room()
    page = room.consent_at(room.visitor(), room.register()["client_id"])
    for words in (
        "Allow Test client?",
        "It registered itself: nobody has checked its name",
        "<strong>alice@tenant-a.example</strong>",
        "See the events in your calendar",
        "Create and delete events in your calendar",
        "You return to <code>http://127.0.0.1:3000</code>",
        "It will act at <code>http://127.0.0.1:8000/mcp</code>",
    ):
        assert words in page.text


@pytest.mark.parametrize(
    ("email", "tenant", "style"),
    [
        ("alice@tenant-a.example", "Tenant A", "in the style of Okta"),
        ("Carol@Tenant-B.Example", "Tenant B", "in the style of Entra ID"),
    ],
)
def test_the_domain_leads_to_the_provider_of_the_tenant(
    email: str, tenant: str, style: str
) -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    page = submit(browser, page, email=email)
    assert f"<h1>Sign in to {tenant}</h1>" in page.text
    assert style in page.text
    assert "Development sign-in: one button instead of a password." in page.text


def test_a_domain_of_no_tenant_is_said_on_the_page() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    page = submit(browser, page, email="eve@evil.example")
    assert page.status_code == 400
    assert "the domain of this address: write one of those below" in page.text
    assert 'value="eve@evil.example"' in page.text


def test_an_account_that_is_not_there_cannot_sign_in_and_another_can() -> None:
    room = Room()
    browser = room.visitor()
    page = browser.follow(browser.get(authorize_url(room.register()["client_id"])))
    page = submit(browser, page, email="eve@tenant-a.example")
    assert page.status_code == 400
    assert "Tenant A does not know this account" in page.text
    action, pairs = fields_of(page)
    forged = [(name, "sign-in" if name == "action" else value) for name, value in pairs]
    assert browser.post(action, forged).status_code == 403
    page = submit(browser, page)
    assert "<h1>Sign in</h1>" in page.text


def test_what_is_unticked_is_not_granted() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    page = room.consent_at(browser, client_id)
    code = answer_of(submit(browser, page, scope=READ, decision="allow"))["code"]
    assert room.redeem(client_id, code).json()["scope"] == READ


@pytest.mark.parametrize("smuggled", [WRITE, "admin", f"{READ} {WRITE}"])
def test_what_the_page_did_not_offer_cannot_be_smuggled_in(smuggled: str) -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"], "bob@tenant-a.example")
    action, pairs = fields_of(page)
    response = browser.post(action, [*pairs, ("scope", smuggled), ("decision", "allow")])
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "asks for more than the page offered" in response.text


def test_what_was_not_asked_for_cannot_be_ticked_in() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"], scope=READ)
    action, pairs = fields_of(page)
    response = browser.post(action, [*pairs, ("scope", WRITE), ("decision", "allow")])
    assert response.status_code == 400
    assert "location" not in response.headers


def test_nothing_ticked_is_asked_again() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"])
    action, pairs = fields_of(page)
    kept = [(name, value) for name, value in pairs if name != "scope"]
    page = browser.post(action, [*kept, ("decision", "allow")])
    assert page.status_code == 400
    assert "Leave at least one ticked, or deny" in page.text
    assert "code" in answer_of(submit(browser, page, decision="allow"))


def test_where_nothing_is_asked_for_the_client_gets_a_token_without_scopes() -> None:
    room = Room(replace(builtin_world(), scopes={}, default_scopes=(), rules=()))
    client_id = room.register()["client_id"]
    browser = room.visitor()
    page = room.consent_at(browser, client_id, "bob@tenant-a.example", scope=None)

    assert "It asks for no scope" in page.text
    code = answer_of(submit(browser, page, decision="allow"))["code"]
    tokens = room.redeem(client_id, code).json()

    assert tokens["scope"] == ""
    assert room.introspect(tokens["access_token"])["active"] is True


def test_denying_tells_the_client_so() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"])
    response = submit(browser, page, decision="deny")
    assert response.headers["location"].startswith(f"{CALLBACK}?")
    assert answer_of(response) == {
        "error": "access_denied",
        "error_description": "The user did not allow it",
        "state": "st4te",
        "iss": ISSUER,
    }


def test_a_user_who_can_allow_nothing_can_only_go_back() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(
        browser, room.register()["client_id"], "bob@tenant-a.example", scope=WRITE
    )
    assert "You cannot allow this to Test client" in page.text
    assert checkboxes(page) == []
    assert 'value="allow"' not in page.text
    assert answer_of(submit(browser, page, decision="deny"))["error"] == "access_denied"


def test_a_user_for_whom_no_rule_applies_can_only_go_back() -> None:
    rule = ScopeRule.parse("Root", ["user.permissions contains root"], [READ])
    room = Room(replace(builtin_world(), rules=(rule,)))
    page = room.consent_at(room.visitor(), room.register()["client_id"])
    assert checkboxes(page) == []


def test_a_step_up_asks_again_with_the_same_answer() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    for _ in range(2):
        page = room.consent_at(browser, client_id, "bob@tenant-a.example")
        code = answer_of(submit(browser, page, decision="allow"))["code"]
        assert room.redeem(client_id, code).json()["scope"] == f"{READ} {FETCH}"


def test_who_is_signed_in_is_asked_for_consent_only() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    browser = room.visitor()
    room.consent_at(browser, client_id)
    response = browser.get(authorize_url(client_id))
    assert response.headers["location"].startswith(f"{ISSUER}/consent?tx=")


def test_another_account_can_be_used_instead() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"])
    page = submit(browser, page, form=1)
    assert "<h1>Sign in</h1>" in page.text
    page = submit(browser, submit(browser, page, email="bob@tenant-a.example"))
    assert "<strong>bob@tenant-a.example</strong>" in page.text
    assert checkboxes(page) == [READ, FETCH]


def test_a_client_that_asks_for_nothing_asks_for_the_default() -> None:
    room = Room()
    page = room.consent_at(room.visitor(), room.register()["client_id"], scope=None)
    assert checkboxes(page) == [READ, FETCH]


def test_without_a_resource_the_only_one_is_meant() -> None:
    room = Room()
    page = room.consent_at(room.visitor(), room.register()["client_id"], resource=None)
    assert f"It will act at <code>{MCP}</code>" in page.text


def test_a_redirect_uri_may_be_left_out_where_there_is_only_one() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id, redirect_uri=None)
    assert room.redeem(client_id, code, redirect_uri=None).status_code == 200


def test_an_application_with_its_own_scheme_is_opened_from_a_page() -> None:
    room = Room()
    uri = "claude://oauth-callback/mcp"
    client_id = room.register(redirect_uris=[uri])["client_id"]
    browser = room.visitor()
    page = room.consent_at(browser, client_id, redirect_uri=uri)
    assert "form-action 'self' claude:;" in page.headers["content-security-policy"]
    done = submit(browser, page, decision="allow")
    assert done.status_code == 200
    assert "<h1>You can close this window</h1>" in done.text
    assert done.headers["refresh"].startswith("0; url=claude://oauth-callback/mcp?code=")
    assert 'href="claude://oauth-callback/mcp?code=' in done.text


def test_the_consent_page_offers_to_connect_an_account() -> None:
    asked: list[tuple[str, str]] = []

    async def connect_url(user: Any, return_to: str) -> ConnectLink:
        asked.append((user.id, return_to))
        return ConnectLink("Git <Hub>", f"{ORIGIN}/connect/1?a=1&b=2")

    room = Room(connect_url=connect_url)
    page = room.consent_at(room.visitor(), room.register()["client_id"])
    assert (
        'href="http://127.0.0.1:8800/connect/1?a=1&amp;b=2">Connect Git &lt;Hub&gt;<' in page.text
    )
    user_id, return_to = asked[0]
    assert user_id == "alice"
    assert return_to == str(page.url)
    assert room.server.owns(return_to)


def test_a_world_without_connections_offers_none() -> None:
    world = replace(builtin_world(), connections={})
    with Store() as store:
        services = Services(world, store, Origins(ORIGIN, "http://127.0.0.1:8801"), time.time)
        services.authorization_app()
        room = Room()
        room.server = services.server
        room.client = room.visitor()

        page = room.consent_at(room.visitor(), room.register()["client_id"])

    assert page.status_code == 200
    assert ">Connect " not in page.text


def test_nothing_is_offered_where_nothing_is_left_to_connect() -> None:
    async def connect_url(_: Any, __: str) -> ConnectLink | None:
        return None

    room = Room(connect_url=connect_url)
    page = room.consent_at(room.visitor(), room.register()["client_id"])
    assert "Connect" not in page.text


def test_a_client_that_is_gone_gets_nothing() -> None:
    room = Room()
    browser = room.visitor()
    page = room.consent_at(browser, room.register()["client_id"])
    with room.server.store.transaction() as db:
        db.execute("DELETE FROM client")
    assert submit(browser, page, decision="allow").status_code == 403
