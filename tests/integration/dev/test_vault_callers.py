"""The vault as the guard sees it, and as the server beside it does."""

from __future__ import annotations

import pytest

from support.vaultrooms import APP, ISSUER, NOW, ORIGIN, READ, WRITE, Room, grant, token
from toolguard.connections import Connection, ConnectionRequest
from toolguard.descope import DescopeConnections
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionUnavailableError,
)
from toolguard.principal import Principal
from toolguard.vault import Vault

# With the guard's own client ---------------------------------------------------------------------


def fetch(room: Room, user: str, *scopes: str) -> Connection:
    async def once(vault: Vault) -> Connection:
        connections = DescopeConnections(
            "http://127.0.0.1:1/Plocal/.well-known/openid-configuration",
            transport=room.transport(vault),
            clock=lambda: NOW,
        )
        principal = Principal(user_id=user, issuer=ISSUER.issuer)
        try:
            return await connections.fetch(ConnectionRequest(APP, scopes, principal, token(user)))
        finally:
            await connections.aclose()

    return room.run(once)


def test_the_guard_reads_a_connection() -> None:
    connection = fetch(Room(), "alice", WRITE)

    assert (connection.token, connection.scopes) == ("ya29.alice", (READ, WRITE))
    assert connection.expires_at == 1_800_000_600.0


def test_the_guard_reads_a_connect_url_of_the_caller() -> None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(Room(), "bob", WRITE)

    assert caught.value.connect_url is not None
    assert caught.value.connect_url.startswith(f"{ORIGIN}/connections/link/")


def test_the_guard_reads_a_policys_no() -> None:
    with pytest.raises(ConnectionDeniedError):
        fetch(Room(policy=lambda *_: False), "alice")


# In the same process ------------------------------------------------------------------------------


def kept_for(room: Room, user: str | None, *scopes: str, holds: str = FETCH_SCOPE) -> Connection:
    principal = Principal(user_id=user, issuer=ISSUER.issuer, scopes=(holds,))
    return room.fetch(ConnectionRequest(APP, scopes, principal, None))


def test_in_the_same_process_a_user_gets_their_own() -> None:
    connection = kept_for(Room(), "alice", WRITE)

    assert (connection.token, connection.scopes) == ("ya29.alice", (READ, WRITE))


def test_in_the_same_process_the_same_is_refused() -> None:
    away = Room()
    away.google.away = True
    away.put(grant(READ, expires_at=NOW))

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
