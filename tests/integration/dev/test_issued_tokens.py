"""Who may ask about a token, revoke it, or exchange it for another."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import jwt
import pytest

from support.devrooms import FETCH, ISSUER, MCP, READ, WRITE, Room
from toolguard.connections.protocol import Connection
from toolguard.dev.oauth.config import builtin_world
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionUnavailableError,
    InvalidTokenError,
)
from toolguard.testing import ScriptedConnections
from toolguard.testing.connections import ScriptedAnswer
from toolguard.testing.proofs import ProofKey

OTHER = "http://127.0.0.1:9000/mcp"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"


def is_good(room: Room, token: str) -> bool:
    try:
        asyncio.run(room.server.verifier().verify(token))
    except InvalidTokenError:
        return False
    return True


# Introspection (RFC 7662)


def test_a_server_is_told_about_a_token_that_is_for_it() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    answer = room.introspect(room.tokens(client_id)["access_token"])
    assert {name: answer[name] for name in ("active", "sub", "client_id", "aud", "scope")} == {
        "active": True,
        "sub": "alice",
        "client_id": client_id,
        "aud": MCP,
        "scope": f"{READ} {WRITE} {FETCH}",
    }


@pytest.mark.parametrize("token", ["", "x", "a.b.c"])
def test_of_what_is_no_token_it_is_told_nothing(token: str) -> None:
    room = Room()
    answer = room.introspect(token or "-")
    assert answer == {"active": False}


def test_of_a_refresh_token_or_one_that_has_ended_it_is_told_nothing() -> None:
    room = Room()
    tokens = room.tokens(room.register()["client_id"])
    assert room.introspect(tokens["refresh_token"]) == {"active": False}
    room.clock.advance(300)
    assert room.introspect(tokens["access_token"]) == {"active": False}


def test_of_a_token_for_another_server_it_is_told_nothing() -> None:
    room = Room(builtin_world().with_resources(OTHER))
    client_id = room.register()["client_id"]
    code = room.code(client_id, resource=OTHER)
    token = room.redeem(client_id, code).json()["access_token"]
    assert room.introspect(token) == {"active": False}
    credentials = room.server.credentials(OTHER)
    answer = room.client.post(f"{ISSUER}/introspect", {"token": token}, auth=credentials).json()
    assert answer["active"] is True


@pytest.mark.parametrize(
    "auth", [None, ("calendar-server", "x"), ("calendar-server", ""), ("unknown", "x")]
)
def test_whoever_is_no_server_of_the_world_is_refused(auth: tuple[str, str] | None) -> None:
    room = Room()
    response = room.client.post(f"{ISSUER}/introspect", {"token": "x"}, auth=auth)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_a_client_may_not_introspect() -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method="client_secret_basic")
    auth = (registered["client_id"], registered["client_secret"])
    response = room.client.post(f"{ISSUER}/introspect", {"token": "x"}, auth=auth)
    assert response.status_code == 401


# Revocation (RFC 7009)


def revoke(room: Room, client_id: str, token: str, **more: str) -> httpx.Response:
    form = {"token": token, "client_id": client_id, **more}
    return room.client.post(f"{ISSUER}/revoke", form)


def test_revoking_a_refresh_token_ends_its_family() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    assert revoke(room, client_id, tokens["refresh_token"]).status_code == 200
    assert room.refresh(client_id, tokens["refresh_token"]).json()["error"] == "invalid_grant"
    assert not is_good(room, tokens["access_token"])


def test_revoking_an_access_token_ends_it_alone() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    hint = {"token_type_hint": "refresh_token"}
    assert revoke(room, client_id, tokens["access_token"], **hint).status_code == 200
    assert not is_good(room, tokens["access_token"])
    assert room.refresh(client_id, tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_nobody_revokes_the_token_of_another_client(kind: str) -> None:
    room = Room()
    tokens = room.tokens(room.register()["client_id"])
    response = revoke(room, room.register()["client_id"], tokens[kind])
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")
    assert is_good(room, tokens["access_token"])


def test_an_unknown_token_is_revoked_like_any_other() -> None:
    room = Room()
    assert revoke(room, room.register()["client_id"], "x").status_code == 200


def test_an_unknown_client_revokes_nothing() -> None:
    assert revoke(Room(), "client-unknown", "x").status_code == 401


# Exchange (RFC 8693)


ALICES = Connection("ya29.alice", scopes=("calendar",), expires_at=1_800_000_060.5)


def vault_with(answer: ScriptedAnswer = ALICES) -> ScriptedConnections:
    return ScriptedConnections({"google-calendar": answer})


def exchange(room: Room, token: str, server: str = MCP, **changed: Any) -> httpx.Response:
    form = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ACCESS,
        "audience": "google-calendar",
        **changed,
    }
    given = {name: value for name, value in form.items() if value is not None}
    return room.client.post(f"{ISSUER}/token", given, auth=room.server.credentials(server))


def with_vault(vault: ScriptedConnections) -> tuple[Room, str]:
    room = Room(builtin_world().with_resources(OTHER))
    room.server.extend(vault=vault)
    return room, room.tokens(room.register()["client_id"])["access_token"]


def test_a_server_gets_its_callers_connection() -> None:
    vault = vault_with()
    room, token = with_vault(vault)
    answer = exchange(room, token, scope="calendar")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "access_token": "ya29.alice",
        "issued_token_type": ACCESS,
        "token_type": "Bearer",
        "scope": "calendar",
        "expires_in": 60,
    }
    (asked,) = vault.calls
    assert (asked.name, asked.scopes, asked.principal.user_id) == (
        "google-calendar",
        ("calendar",),
        "alice",
    )


def test_a_server_gets_a_token_for_another_server() -> None:
    room, token = with_vault(vault_with())
    room.clock.advance(100)
    answer = exchange(room, token, audience=None, resource=OTHER, scope=READ).json()
    assert answer["expires_in"] == 200
    claims = jwt.decode(answer["access_token"], options={"verify_signature": False})
    assert (claims["aud"], claims["sub"], claims["scope"]) == (OTHER, "alice", READ)
    assert (claims["client_id"], claims["act"]) == ("calendar-server", {"sub": "calendar-server"})
    back = exchange(room, answer["access_token"], OTHER, audience=None, resource=MCP).json()
    claims = jwt.decode(back["access_token"], options={"verify_signature": False})
    assert claims["act"] == {"sub": "server-2", "act": {"sub": "calendar-server"}}


def test_a_token_that_is_bound_to_a_key_is_exchanged_without_a_proof() -> None:
    room = Room(builtin_world().with_resources(OTHER))
    room.server.extend(vault=vault_with())
    client_id = room.register()["client_id"]
    room.client.proofs = (ProofKey(clock=room.clock).prove("POST", f"{ISSUER}/token"),)
    tokens = room.tokens(client_id)
    room.client.proofs = ()
    assert tokens["token_type"] == "DPoP"

    connection = exchange(room, tokens["access_token"]).json()
    downstream = exchange(room, tokens["access_token"], audience=None, resource=OTHER).json()

    assert (connection["access_token"], connection["token_type"]) == ("ya29.alice", "Bearer")
    # It is the server's, which has not proved a key of its own.
    claims = jwt.decode(downstream["access_token"], options={"verify_signature": False})
    assert (downstream["token_type"], claims["sub"], "cnf" in claims) == ("Bearer", "alice", False)


def test_what_was_exchanged_ends_with_the_grant() -> None:
    room = Room(builtin_world().with_resources(OTHER))
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    answer = exchange(room, tokens["access_token"], audience=None, resource=OTHER).json()
    assert is_good(room, answer["access_token"])
    revoke(room, client_id, tokens["refresh_token"])
    assert not is_good(room, answer["access_token"])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"subject_token": "x"}, "invalid_request"),
        ({"subject_token": None}, "invalid_request"),
        ({"subject_token_type": None}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"actor_token": "x", "actor_token_type": ACCESS}, "invalid_request"),
        ({"audience": None}, "invalid_target"),
        ({"resource": OTHER}, "invalid_target"),
        ({"audience": OTHER, "scope": "admin"}, "invalid_scope"),
    ],
)
def test_an_exchange_that_cannot_be_is_refused(changed: dict[str, Any], error: str) -> None:
    room, token = with_vault(vault_with())
    response = exchange(room, token, **changed)
    assert (response.status_code, response.json()["error"]) == (400, error)


def test_a_token_for_another_server_cannot_be_exchanged() -> None:
    room, token = with_vault(vault_with())
    response = exchange(room, token, OTHER)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_a_connection_needs_the_scope_of_the_vault() -> None:
    vault = vault_with()
    room = Room()
    room.server.extend(vault=vault)
    client_id = room.register()["client_id"]
    refresh_token = room.tokens(client_id)["refresh_token"]
    token = room.refresh(client_id, refresh_token, scope=READ).json()["access_token"]
    assert exchange(room, token).json()["error"] == "invalid_scope"
    assert vault.calls == []


def test_without_a_vault_there_is_nothing_to_get() -> None:
    room = Room()
    token = room.tokens(room.register()["client_id"])["access_token"]
    assert exchange(room, token).json()["error"] == "invalid_target"


@pytest.mark.parametrize(
    ("failure", "status", "error"),
    [
        (ConnectionRequiredError("x", connection="x"), 400, "interaction_required"),
        (ConnectionDeniedError("x", connection="x"), 400, "invalid_target"),
        (ConnectionUnavailableError("x", connection="x"), 503, "temporarily_unavailable"),
    ],
)
def test_what_the_vault_says_is_passed_on(failure: Exception, status: int, error: str) -> None:
    room, token = with_vault(vault_with(failure))
    response = exchange(room, token)
    assert (response.status_code, response.json()["error"]) == (status, error)


def test_a_user_who_has_to_connect_is_told_where() -> None:
    failure = ConnectionRequiredError("Connect", connection="x", connect_url="http://127.0.0.1/c")
    room, token = with_vault(vault_with(failure))
    assert exchange(room, token).json() == {
        "error": "interaction_required",
        "error_description": "Connect",
        "connect_url": "http://127.0.0.1/c",
    }


def test_a_client_cannot_exchange() -> None:
    room, token = with_vault(vault_with())
    registered = room.register(token_endpoint_auth_method="client_secret_basic")
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS}
    response = room.client.post(
        f"{ISSUER}/token", form, auth=(registered["client_id"], registered["client_secret"])
    )
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
