"""OpenID Connect: which clients learn who signed in, and nothing beyond."""

from __future__ import annotations

import asyncio
import sqlite3
from importlib.resources import files
from pathlib import Path
from typing import Any

import jwt
import pytest

from support.devrooms import CALLBACK, ISSUER, MCP, READ, WRITE, Room, answer_of, submit
from toolguard.dev.oauth.config import builtin_world, parse_world
from toolguard.dev.store import Store
from toolguard.errors import InvalidTokenError
from toolguard.vault import OpenIDSignIn
from toolguard.vault.sign_in import read_person

ALICE = "alice@tenant-a.example"


def signed_in(room: Room, client_id: str, scope: str, **changed: Any) -> dict[str, Any]:
    response = room.redeem(client_id, room.code(client_id, scope=scope, **changed))
    assert response.status_code == 200, response.text
    tokens: dict[str, Any] = response.json()
    return tokens


def claims_of(room: Room, id_token: str, client_id: str) -> dict[str, Any]:
    """Return the claims of an ID token whose signature fits the published keys."""
    keys = jwt.PyJWKSet.from_dict(room.client.get(f"{ISSUER}/jwks").json())
    key = keys[jwt.get_unverified_header(id_token)["kid"]]
    claims: dict[str, Any] = jwt.decode(
        id_token,
        key,
        algorithms=["ES256"],
        audience=client_id,
        issuer=ISSUER,
        options={"verify_exp": False, "verify_iat": False},
    )
    return claims


def test_a_client_that_asks_for_openid_gets_an_id_token() -> None:
    room = Room()
    client_id = room.register()["client_id"]

    tokens = signed_in(room, client_id, "openid email", nonce="n0nce")

    now = int(room.clock())
    assert claims_of(room, tokens["id_token"], client_id) == {
        "iss": ISSUER,
        "sub": "alice",
        "aud": client_id,
        "iat": now,
        "exp": now + 300,
        "nonce": "n0nce",
        "email": ALICE,
        "email_verified": True,
    }


def test_the_vault_recognizes_the_person_of_the_id_token() -> None:
    room = Room()
    client_id = room.register()["client_id"]

    tokens = signed_in(room, client_id, "openid email", nonce="n0nce", resource=None)

    person = read_person(tokens, OpenIDSignIn(client_id), ISSUER, "n0nce", room.clock())
    assert person is not None
    assert (person.issuer, person.subject, person.name) == (ISSUER, "alice", ALICE)


def test_without_the_scope_email_there_is_no_address() -> None:
    room = Room()
    client_id = room.register()["client_id"]

    claims = claims_of(room, signed_in(room, client_id, "openid")["id_token"], client_id)

    assert not {"email", "nonce"} & set(claims)


@pytest.mark.parametrize("scope", [READ, f"{READ} email", "email"])
def test_without_the_scope_openid_there_is_no_id_token(scope: str) -> None:
    room = Room()

    tokens = signed_in(room, room.register()["client_id"], scope, nonce="n0nce")

    assert "id_token" not in tokens


def test_identity_adds_nothing_to_the_access_token() -> None:
    room = Room()
    client_id = room.register()["client_id"]

    only = signed_in(room, client_id, "openid email")
    both = signed_in(room, client_id, f"openid {READ}")

    assert only["scope"] == "openid email"
    assert both["scope"].split()[:2] == ["openid", READ]
    for tokens, scopes in ((only, ()), (both, (READ, "outbound.token.fetch"))):
        principal = asyncio.run(room.server.verifier(MCP).verify(tokens["access_token"]))
        assert tuple(principal.scopes) == scopes


def test_a_sign_in_alone_opens_no_resource() -> None:
    room = Room(builtin_world().with_resources("http://127.0.0.1:9000/mcp"))

    tokens = signed_in(room, room.register()["client_id"], "openid", resource=None)

    assert "id_token" in tokens
    with pytest.raises(InvalidTokenError):
        asyncio.run(room.server.verifier().verify(tokens["access_token"]))


def test_an_id_token_is_refused_as_an_access_token() -> None:
    room = Room()
    id_token = signed_in(room, room.register()["client_id"], "openid")["id_token"]

    with pytest.raises(InvalidTokenError):
        asyncio.run(room.server.verifier(MCP).verify(id_token))

    assert room.introspect(id_token) == {"active": False}


def test_the_user_reads_what_identity_means_and_may_untick_it() -> None:
    room = Room()
    browser = room.visitor()
    client_id = room.register()["client_id"]

    page = room.consent_at(browser, client_id, scope=f"openid {READ}")
    answer = answer_of(submit(browser, page, decision="allow", scope=READ))

    assert "Know who you are" in page.text
    assert "id_token" not in room.redeem(client_id, answer["code"]).json()


def test_a_user_without_the_scope_of_a_policy_can_sign_in() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id, "bob@tenant-a.example", scope=f"openid {WRITE}")

    tokens = room.redeem(client_id, code).json()

    assert tokens["scope"] == "openid"
    assert claims_of(room, tokens["id_token"], client_id)["sub"] == "bob"


def test_a_refreshed_id_token_has_no_nonce() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = signed_in(room, client_id, "openid", nonce="n0nce")

    refreshed = room.refresh(client_id, tokens["refresh_token"]).json()

    claims = claims_of(room, refreshed["id_token"], client_id)
    assert (claims["sub"], "nonce" in claims) == ("alice", False)


@pytest.mark.parametrize("nonce", ["\u00e9", "a\nb", "x" * 4_097, ["one", "two"]])
def test_an_unreadable_nonce_is_refused(nonce: Any) -> None:
    room = Room()
    client_id = room.register()["client_id"]

    response = room.consent_at(room.visitor(), client_id, scope="openid", nonce=nonce)

    assert response.headers["location"].startswith(f"{CALLBACK}?error=invalid_request")


def test_the_metadata_offers_the_scopes_of_identity() -> None:
    document = Room().client.get(f"{ISSUER}/.well-known/openid-configuration").json()

    assert {"openid", "email"} <= set(document["scopes_supported"])


def test_a_world_that_names_openid_decides_on_it() -> None:
    shown = files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8")
    room = Room(parse_world(shown.replace("[scopes]", '[scopes]\n"openid" = "Sign in"', 1)))

    page = room.consent_at(room.visitor(), room.register()["client_id"], scope="openid")

    assert "You cannot allow this" in page.text


def test_a_state_file_of_an_older_version_keeps_working(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    db = sqlite3.connect(path)
    db.execute(
        "CREATE TABLE code (digest TEXT PRIMARY KEY, grant_id TEXT NOT NULL, redirect_uri TEXT,"
        " challenge TEXT NOT NULL, expires_at REAL NOT NULL, used_at REAL)"
    )
    db.close()

    room = Room(store=Store(str(path)))

    client_id = room.register()["client_id"]
    tokens = signed_in(room, client_id, "openid", nonce="n0nce")
    assert claims_of(room, tokens["id_token"], client_id)["nonce"] == "n0nce"
    Store(str(path)).close()  # it opens again
