"""The Google-shaped calendar: its own tokens, its events, its errors."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette

from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts
from toolguard.dev.google.calendar_api import calendar_routes
from toolguard.testing import FrozenClock

NOW = 1_800_000_000.0
EVENTS = "/calendar/v3/calendars/primary/events"
ALICE = "alice@example.com"


def ask(accounts: Accounts, token: str | None, method: str, path: str, **more: Any) -> Any:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(Starlette(routes=calendar_routes(accounts)))
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://google.test") as client:
            return await client.request(method, path, headers=headers, **more)

    return asyncio.run(once())


def alice(*scopes: str, clock: Any = lambda: NOW) -> tuple[Accounts, str]:
    accounts = Accounts(clock=clock)
    return accounts, accounts.grant(ALICE, scopes or [CALENDAR]).access_token


def event(start: str, end: str, **more: Any) -> dict[str, Any]:
    return {"start": {"dateTime": start}, "end": {"dateTime": end}, **more}


def test_an_inserted_event_is_listed() -> None:
    accounts, token = alice()
    meeting = event("2030-01-07T10:00:00+01:00", "2030-01-07T11:00:00+01:00", summary="Review")

    made = ask(accounts, token, "POST", EVENTS, json=meeting)
    listed = ask(accounts, token, "GET", EVENTS)

    assert made.status_code == 200
    assert listed.json()["items"] == [made.json()]
    assert made.json()["kind"] == "calendar#event"
    assert made.json()["start"] == {"dateTime": "2030-01-07T10:00:00+01:00"}


def test_events_come_in_the_order_of_their_start_and_within_the_asked_time() -> None:
    accounts, token = alice()
    for hour in ("12", "08", "10"):
        body = event(f"2030-01-07T{hour}:00:00Z", f"2030-01-07T{hour}:30:00Z", summary=hour)
        ask(accounts, token, "POST", EVENTS, json=body)
    span = {"timeMin": "2030-01-07T08:30:00Z", "timeMax": "2030-01-07T12:00:01Z"}

    listed = ask(accounts, token, "GET", EVENTS, params=span)

    assert [item["summary"] for item in listed.json()["items"]] == ["10", "12"]


def test_an_event_can_be_deleted_once() -> None:
    accounts, token = alice()
    body = event("2030-01-07T10:00:00Z", "2030-01-07T11:00:00Z")
    made = ask(accounts, token, "POST", EVENTS, json=body).json()

    first = ask(accounts, token, "DELETE", f"{EVENTS}/{made['id']}")
    second = ask(accounts, token, "DELETE", f"{EVENTS}/{made['id']}")

    assert (first.status_code, first.content) == (204, b"")
    assert second.status_code == 404
    assert second.json()["error"]["errors"][0]["reason"] == "notFound"


def test_nobody_sees_or_deletes_the_events_of_another_account() -> None:
    accounts, token = alice()
    body = event("2030-01-07T10:00:00Z", "2030-01-07T11:00:00Z")
    made = ask(accounts, token, "POST", EVENTS, json=body).json()
    bob = accounts.grant("bob@example.com", [CALENDAR]).access_token

    assert ask(accounts, bob, "GET", EVENTS).json()["items"] == []
    assert ask(accounts, bob, "DELETE", f"{EVENTS}/{made['id']}").status_code == 404


def test_busy_times_are_merged_and_cut_to_the_asked_time() -> None:
    accounts, token = alice()
    for start, end in (
        ("09:00", "10:00"),
        ("10:00", "11:00"),
        ("10:30", "10:45"),
        ("15:00", "16:00"),
    ):
        body = event(f"2030-01-07T{start}:00Z", f"2030-01-07T{end}:00Z")
        ask(accounts, token, "POST", EVENTS, json=body)
    asked = {"timeMin": "2030-01-07T09:30:00Z", "timeMax": "2030-01-07T15:30:00Z"}

    answer = ask(accounts, token, "POST", "/calendar/v3/freeBusy", json=asked)

    assert answer.json()["calendars"]["primary"]["busy"] == [
        {"start": "2030-01-07T09:30:00Z", "end": "2030-01-07T11:00:00Z"},
        {"start": "2030-01-07T15:00:00Z", "end": "2030-01-07T15:30:00Z"},
    ]


@pytest.mark.parametrize("token", [None, "", "ya29.unknown", "\x00"])
def test_without_a_good_token_nothing_is_answered(token: str | None) -> None:
    accounts, _ = alice()

    answer = ask(accounts, token, "GET", EVENTS)

    assert answer.status_code == 401
    assert answer.json()["error"]["status"] == "UNAUTHENTICATED"
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_refresh_token_is_no_access_token() -> None:
    accounts = Accounts(clock=lambda: NOW)
    given = accounts.grant(ALICE, [CALENDAR])

    assert ask(accounts, given.refresh_token, "GET", EVENTS).status_code == 401


def test_who_may_only_read_cannot_write() -> None:
    accounts, token = alice(CALENDAR_READONLY)
    body = event("2030-01-07T10:00:00Z", "2030-01-07T11:00:00Z")

    refused = ask(accounts, token, "POST", EVENTS, json=body)

    assert refused.status_code == 403
    assert refused.json()["error"]["status"] == "PERMISSION_DENIED"
    assert CALENDAR in refused.headers["www-authenticate"]
    assert ask(accounts, token, "GET", EVENTS).json()["items"] == []


def test_an_access_token_ends_and_can_be_refreshed() -> None:
    clock = FrozenClock(NOW)
    accounts = Accounts(clock=clock, lifetime=60)
    given = accounts.grant(ALICE, [CALENDAR])
    clock.advance(60)

    fresh = accounts.refresh(given.refresh_token)

    assert ask(accounts, given.access_token, "GET", EVENTS).status_code == 401
    assert fresh is not None
    assert ask(accounts, fresh.access_token, "GET", EVENTS).status_code == 200


def test_an_owner_can_revoke_everything() -> None:
    accounts = Accounts(clock=lambda: NOW)
    one, other = accounts.grant(ALICE, [CALENDAR]), accounts.grant("bob@example.com", [CALENDAR])

    accounts.revoke_all(ALICE)

    assert accounts.access(one.access_token) is None
    assert accounts.access(other.access_token) is not None


def test_what_is_kept_in_a_file_outlives_the_process_and_holds_no_token(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    db = sqlite3.connect(file)
    token = Accounts(db, clock=lambda: NOW).grant(ALICE, [CALENDAR]).access_token
    db.close()

    again = sqlite3.connect(file)
    access = Accounts(again, clock=lambda: NOW).access(token)
    again.close()

    assert access is not None
    assert access.account == ALICE
    assert token.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"start": "2030-01-07", "end": "2030-01-08"},
        event("2030-01-07T10:00:00", "2030-01-07T11:00:00"),
        event("2030-01-07T11:00:00Z", "2030-01-07T11:00:00Z"),
        event("0001-01-01T00:00:00+14:00", "2030-01-07T11:00:00Z"),
        {"start": {"date": []}, "end": {"date": "2030-01-08"}},
        [],
    ],
)
def test_an_event_without_a_time_is_refused(body: Any) -> None:
    accounts, token = alice()

    answer = ask(accounts, token, "POST", EVENTS, json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400


def test_a_query_that_makes_no_sense_is_refused() -> None:
    accounts, token = alice()

    assert ask(accounts, token, "GET", EVENTS, params={"timeMin": "now"}).status_code == 400


@given(st.binary(max_size=64) | st.sampled_from([b"[" * 70_000, b" " * 70_000]))
def test_any_body_is_answered(body: bytes) -> None:
    accounts, token = alice()

    assert ask(accounts, token, "POST", EVENTS, content=body).status_code == 400
