"""The console of the development server: what it shows, and to whom it gives a token."""

from __future__ import annotations

import html
import re
import shlex
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from support.devrooms import FETCH, ISSUER, MCP, ORIGIN, READ, WRITE, Room, Visitor, fields_of
from support.devrooms import submit as send
from toolguard.audit import AuditedOperation
from toolguard.dev.console import Console, paste_lines
from toolguard.dev.decisions import Decisions
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.telemetry import DecisionRecord


def shown(room: Room, browser: Visitor | None = None) -> httpx.Response:
    response = (browser or room.client).get(ISSUER)
    assert response.status_code == 200
    return response


def text_of(page: httpx.Response) -> str:
    """Return what a page says, in one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", page.text)).split())


def token_in(page: httpx.Response) -> dict[str, Any]:
    found = re.search(r"<pre><code>(eyJ[^<]+)<", page.text)
    assert found is not None, page.text
    claims: dict[str, Any] = jwt.decode(found[1], options={"verify_signature": False})
    return claims


def test_the_address_of_the_issuer_is_the_console() -> None:
    room = Room()

    assert room.client.get(f"{ORIGIN}/").headers["location"] == ISSUER
    said = text_of(shown(room))
    assert f"It issues tokens as {ISSUER} for {MCP}." in said
    assert "Bob Baker, bob@tenant-a.example Tenant tenant-a; connected: nothing " in said
    assert "permissions scheduler; connected: google-calendar " in said
    assert f"{WRITE}: Create and delete events in your calendar" in said
    assert 'Scheduler Write Access: if user.tenantIds contains "tenant-a" and ' in said
    assert "google-calendar: calendar" in said
    assert "None has registered." in said


def test_a_person_is_clicked_on_for_a_token() -> None:
    room = Room()

    page = send(room.client, shown(room), form=0)

    assert text_of(page).count("A token of alice@tenant-a.example") == 2  # title and heading
    claims = token_in(page)
    assert (claims["sub"], claims["aud"], claims["client_id"]) == (
        "alice",
        MCP,
        "toolguard-console",
    )
    assert page.headers["cache-control"] == "no-store"
    assert "no-referrer" in page.headers["referrer-policy"]


def ask(room: Room, browser: Visitor, **changed: Any) -> httpx.Response:
    """Post the form of Bob, with some of its fields changed or left out."""
    action, pairs = fields_of(shown(room, browser), form=1)
    fields = {**dict(pairs), **changed}
    headers = fields.pop("headers", {})
    return browser.post(
        action, {key: value for key, value in fields.items() if value is not None}, headers=headers
    )


def test_the_policy_decides_on_the_console_as_well() -> None:
    room = Room()

    page = ask(room, room.client, scope=WRITE)

    assert page.status_code == 400
    assert "does not grant mcp:calendar.write" in text_of(page)


OTHERS = [
    {"csrf": None},
    {"csrf": "0" * 64},
    {"headers": {"sec-fetch-site": "cross-site"}},
    {"headers": {"sec-fetch-site": "same-site"}},
    {"headers": {"sec-fetch-site": "none"}},
    {"headers": {"host": "rebound.example"}},
]


@pytest.mark.parametrize("changed", OTHERS, ids=str)
def test_a_post_from_elsewhere_gets_no_token(changed: dict[str, Any]) -> None:
    room = Room()

    response = ask(room, room.client, **changed)

    assert response.status_code in {403, 421}
    assert "eyJ" not in response.text


def test_the_form_of_another_browser_gets_no_token() -> None:
    room = Room()
    action, pairs = fields_of(shown(room))
    other = room.visitor()

    without = other.post(action, pairs)
    shown(room, other)
    with_session = other.post(action, pairs)

    assert (without.status_code, with_session.status_code) == (403, 403)


def test_a_get_gives_no_token() -> None:
    assert Room().client.get(f"{ISSUER}/console-token?person=alice").status_code == 405


def test_another_host_sees_no_console() -> None:
    response = Room().client.get(ISSUER, headers={"host": "rebound.example:8800"})

    assert response.status_code == 421
    assert "alice" not in response.text


def test_clients_and_decisions_are_shown_with_reasons() -> None:
    room = Room()
    client = room.register(client_name="My <b>editor</b>")
    browser = room.visitor()
    consent = room.consent_at(browser, client["client_id"], "bob@tenant-a.example")
    send(browser, consent, decision="allow")
    room.client.send(
        "POST", f"{ISSUER}/register", json={"redirect_uris": ["https://evil.example/"]}
    )
    room.client.get(f"{ISSUER}/authorize?client_id=gone")

    page = shown(room)

    said = text_of(page)
    assert f"My <b>editor</b> {client['client_id']}http://127.0.0.1:3000/callback" in said
    assert (
        f"bob@tenant-a.example gives My <b>editor</b> {READ} {FETCH}by the policy 'Read-Only "
        f"Access for All Others', which does not grant {WRITE}"
    ) in said
    assert "registration refused: invalid_redirect_uriA redirect URI is not among those" in said
    assert "authorization refused: invalid_clientThis application is not registered here." in said
    assert "<b>" not in page.text
    order = [said.index(each) for each in ("authorization refused", "registration ref", "gives My")]
    assert order == sorted(order)


def test_a_refusal_of_a_token_is_noted() -> None:
    room = Room()
    ask(room, room.client, scope=WRITE)

    said = text_of(shown(room))

    assert "a token of the console refused: invalid_scopethe policy 'Read-Only" in said


def test_notes_hold_no_more_than_the_last() -> None:
    room = Room()
    for number in range(60):
        room.server.context.notes.add(f"number {number}\x1b[2J", "x" * 400)

    last = room.server.context.notes.last

    assert len(last) == 50
    assert last[0].decision == "number 59 [2J"
    assert last[0].reason == "x" * 300 + "…"


def test_what_the_server_requires_is_shown() -> None:
    audited = AuditedOperation(
        "tool", "push_<note>", None, "restricted", "notes.write", guarded=True
    )
    with Store() as store:
        server = DevServer(builtin_world(), store, origin=ORIGIN)

        async def none(_: str) -> list[str]:
            return []

        console = Console(
            server.context,
            connections={"github": ("repo",)},
            connected=none,
            operations=lambda: ("My notes", (audited,)),
            decisions=Decisions(),
        )
        server.extend(extra_routes=console.routes())
        page = Visitor(server).get(ISSUER)

    said = text_of(page)
    assert "tool push_<note>: notes.write" in said
    assert "github: repo" in said
    assert "claude mcp add --transport http my-notes http://127.0.0.1:8000/mcp" in said


HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e\ud800'\"&"


def test_calls_of_the_users_server_are_shown_as_text(tmp_path: Path) -> None:
    room = Room()
    record = DecisionRecord(
        1.0,
        HOSTILE,
        "refused",
        HOSTILE,
        kind="tool",
        operation=HOSTILE,
        issuer=HOSTILE,
        subject=HOSTILE,
        client=HOSTILE,
        rule=HOSTILE,
        missing_scopes=(HOSTILE,),
    )
    room.decisions.file = tmp_path / "decisions.jsonl"
    room.decisions.file.write_text(f"<script>\n{record.to_json()}\n{{", "utf-8")

    page = shown(room)

    assert "<script" not in page.text
    shown_as = "<script>alert(1)</script> [2J '\"&"
    assert f"00:00:01 UTC refused: tool {shown_as}, for {shown_as} through" in text_of(page)
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


def test_the_console_says_how_a_server_shows_its_calls(tmp_path: Path) -> None:
    room = Room()
    room.decisions.file = tmp_path / "a 'file'.jsonl"

    without = text_of(shown(room))
    room.decisions.note(DecisionRecord(1.0, MCP, "served"))
    after_one = text_of(shown(room))

    assert f"export TOOLGUARD_RECORDS={shlex.quote(str(room.decisions.file))}" in without
    assert f"ToolGuard(..., on_decision=JSONLines({str(room.decisions.file)!r}))" in without
    assert "TOOLGUARD_RECORDS" not in after_one
    assert "served: a request, for a caller without a valid token" in after_one


def test_lines_to_paste_cannot_hold_a_second_command() -> None:
    lines = paste_lines("a; rm -rf /", "http://127.0.0.1:8000/mcp?a=$(id)&b='")

    assert lines["Claude Code"].startswith("claude mcp add --transport http a--rm--rf 'http://127")
    assert "$(id)" in lines["Claude Code"].split("'")[1]
    assert set(lines) == {
        "Claude Code",
        "Cursor, .cursor/mcp.json",
        "VS Code",
        "MCP inspector",
        "toolguard",
        "curl",
    }
