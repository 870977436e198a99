"""How does a client of the development server get tokens that are bound to its key?"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.devrooms import ISSUER, MCP, Room
from toolguard.dev.store import Store
from toolguard.errors import InvalidTokenError
from toolguard.testing.proofs import INVALID_PROOFS, ProofKey

ENDPOINT = f"{ISSUER}/token"
NOW = 1_800_000_000
KEY = ProofKey(clock=lambda: NOW)
# Of a token request, a proof says nothing of a token or of the key that one is bound to.
OF_REQUESTS = [
    *(name for name in INVALID_PROOFS if INVALID_PROOFS[name] not in ("token_hash", "binding"))
]


def redeemed(room: Room, client_id: str, *proofs: str) -> httpx.Response:
    code = room.code(client_id)
    room.client.proofs = proofs
    try:
        return room.redeem(client_id, code)
    finally:
        room.client.proofs = ()


def refreshed(room: Room, client_id: str, token: str, *proofs: str) -> httpx.Response:
    room.client.proofs = proofs
    try:
        return room.refresh(client_id, token)
    finally:
        room.client.proofs = ()


def proof() -> str:
    return KEY.prove("POST", ENDPOINT)


def test_a_proof_binds_the_access_token_to_its_key() -> None:
    room = Room()
    client_id = room.register()["client_id"]

    tokens = redeemed(room, client_id, proof()).json()

    verifier = room.server.verifier(MCP)
    assert tokens["token_type"] == "DPoP"
    principal = asyncio.run(verifier.verify_bound(tokens["access_token"]))
    assert (principal.user_id, principal.jkt) == ("alice", KEY.thumbprint)
    with pytest.raises(InvalidTokenError, match="not accepted as a bearer token"):
        asyncio.run(verifier.verify(tokens["access_token"]))


def test_introspection_tells_the_key_of_a_token() -> None:
    room = Room()
    tokens = redeemed(room, room.register()["client_id"], proof()).json()

    answer = room.introspect(tokens["access_token"])

    assert (answer["active"], answer["token_type"]) == (True, "DPoP")
    assert answer["cnf"] == {"jkt": KEY.thumbprint}


@pytest.mark.parametrize("name", [name for name in OF_REQUESTS if name != "missing"])
def test_a_token_request_with_an_invalid_proof_is_refused(name: str) -> None:
    room = Room()
    client_id = room.register()["client_id"]

    response = redeemed(room, client_id, *KEY.prove_invalid(name, "POST", ENDPOINT, "x"))

    assert (response.status_code, response.json()["error"]) == (400, "invalid_dpop_proof")


def test_a_proof_is_good_for_one_token_request() -> None:
    room = Room()
    client_id, once = room.register()["client_id"], proof()

    assert redeemed(room, client_id, once).status_code == 200
    assert redeemed(room, client_id, once).json()["error"] == "invalid_dpop_proof"


def test_a_client_that_registers_for_bound_tokens_needs_a_proof() -> None:
    room = Room()
    client = room.register(dpop_bound_access_tokens=True)

    assert client["dpop_bound_access_tokens"] is True
    refused = redeemed(room, client["client_id"])
    assert refused.json()["error"] == "invalid_dpop_proof"
    assert redeemed(room, client["client_id"], proof()).json()["token_type"] == "DPoP"


def test_a_registration_says_by_true_or_false_whether_tokens_are_bound() -> None:
    metadata: dict[str, Any] = {"redirect_uris": ["http://127.0.0.1/callback"]}

    response = Room().client.send(
        "POST", f"{ISSUER}/register", json={**metadata, "dpop_bound_access_tokens": "yes"}
    )

    assert response.json()["error"] == "invalid_client_metadata"


def test_a_refresh_token_of_a_public_client_is_bound_to_its_key() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    token = redeemed(room, client_id, proof()).json()["refresh_token"]

    other = ProofKey(clock=lambda: NOW).prove("POST", ENDPOINT)
    assert refreshed(room, client_id, token).json()["error"] == "invalid_grant"
    assert refreshed(room, client_id, token, other).json()["error"] == "invalid_grant"
    assert refreshed(room, client_id, token, proof()).json()["token_type"] == "DPoP"


def test_the_metadata_names_the_algorithms_of_proofs() -> None:
    document = Room().client.get(f"{ISSUER}/.well-known/openid-configuration").json()

    assert "ES256" in document["dpop_signing_alg_values_supported"]
    assert not [name for name in document["dpop_signing_alg_values_supported"] if "HS" in name]


def test_a_state_file_of_an_older_version_gets_the_new_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE client (client_id, name, redirect_uris, grant_types, a, b)")
        db.execute("CREATE TABLE refresh_token (digest, grant_id, used_at)")
        db.execute("INSERT INTO client VALUES ('a', 'b', '[]', '[]', 'none', NULL)")
    db.close()

    with Store(path) as store:
        assert store.db.execute("SELECT dpop_bound FROM client").fetchall() == [(0,)]
        assert store.db.execute("SELECT jkt FROM refresh_token").fetchall() == []
