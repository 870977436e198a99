"""The vault as the guard sees it, as the server beside it does, and what it keeps."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from support.vaultrooms import ALICE, APP, ISSUER, NOW, READ, WRITE, Room, provider_token, token
from toolguard.connections import Connection, ConnectionRequest
from toolguard.descope import DescopeConnections
from toolguard.dev.vault.connection_table import ConnectionTable, Owner
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionUnavailableError,
)
from toolguard.principal import Principal

# With the guard's own client ---------------------------------------------------------------------


def fetch(room: Room, user: str, *scopes: str) -> Connection:
    async def once() -> Connection:
        connections = DescopeConnections(
            "http://127.0.0.1:1/Plocal/.well-known/openid-configuration",
            transport=room.transport,
            clock=lambda: NOW,
        )
        principal = Principal(user_id=user, issuer=ISSUER.issuer)
        try:
            return await connections.fetch(ConnectionRequest(APP, scopes, principal, token(user)))
        finally:
            await connections.aclose()

    return asyncio.run(once())


def test_the_guard_reads_a_connection() -> None:
    connection = fetch(Room(), "alice", WRITE)

    assert (connection.token, connection.scopes) == ("ya29.alice", (READ, WRITE))
    assert connection.expires_at == 1_800_000_060.0


def test_the_guard_reads_a_connect_url_of_the_caller() -> None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(Room(), "bob", WRITE)

    assert caught.value.connect_url == "http://127.0.0.1:1/connect/bob/google-calendar/1"


def test_the_guard_reads_a_policys_no() -> None:
    with pytest.raises(ConnectionDeniedError):
        fetch(Room(policy=lambda *_: False), "alice")


# In the same process ------------------------------------------------------------------------------


def kept_for(room: Room, user: str | None, *scopes: str, holds: str = FETCH_SCOPE) -> Connection:
    principal = Principal(user_id=user, issuer=ISSUER.issuer, scopes=(holds,))
    return asyncio.run(room.vault.fetch(ConnectionRequest(APP, scopes, principal, None)))


def test_in_the_same_process_a_user_gets_their_own() -> None:
    connection = kept_for(Room(), "alice", WRITE)

    assert (connection.token, connection.scopes) == ("ya29.alice", (READ, WRITE))


def test_in_the_same_process_the_same_is_refused() -> None:
    away = Room()
    away.google.away = True
    away.table.put(ALICE, APP, provider_token(READ, expires_at=NOW))

    with pytest.raises(ConnectionRequiredError):
        kept_for(Room(), "bob")
    with pytest.raises(ConnectionRequiredError):
        kept_for(Room(), "alice", "https://mail")
    with pytest.raises(ConnectionDeniedError):
        kept_for(Room(), "alice", holds="mcp:calendar.write")
    with pytest.raises(ConnectionDeniedError):
        kept_for(Room(policy=lambda *_: False), "alice")
    with pytest.raises(ConnectionDeniedError):
        kept_for(Room(), None)
    with pytest.raises(ConnectionUnavailableError):
        kept_for(away, "alice")


# The table ---------------------------------------------------------------------------------------


def test_a_file_keeps_connections(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    db = sqlite3.connect(file)
    ConnectionTable(db).put(ALICE, APP, provider_token(READ, expires_at=None))
    db.close()

    again = sqlite3.connect(file)
    table = ConnectionTable(again)

    assert table.get(ALICE, APP) == provider_token(READ, expires_at=None)
    assert table.get(Owner("user", "bob"), APP) is None
    assert table.remove(ALICE, APP)
    assert not table.remove(ALICE, APP)
    again.close()


def test_a_newer_token_takes_the_place_of_the_older() -> None:
    table = ConnectionTable.in_memory()
    table.put(ALICE, APP, provider_token(READ))
    table.put(ALICE, APP, provider_token(READ, WRITE))

    assert table.get(ALICE, APP) == provider_token(READ, WRITE)


def test_no_token_is_in_a_representation() -> None:
    shown = repr(provider_token(READ))

    assert "ya29" not in shown
    assert "1//" not in shown
