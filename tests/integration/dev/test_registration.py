"""Who may register by request (RFC 7591), and with what."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from support.devrooms import CALLBACK, ISSUER, Room

REGISTER = f"{ISSUER}/register"


def register(**metadata: Any) -> httpx.Response:
    asked = {"redirect_uris": [CALLBACK], **metadata}
    return Room().client.send("POST", REGISTER, json=asked)


def test_a_local_client_registers() -> None:
    room = Room()
    registered = room.register()
    assert registered.pop("client_id").startswith("client-")
    assert registered == {
        "client_id_issued_at": 1_800_000_000,
        "client_name": "Test client",
        "redirect_uris": ["http://127.0.0.1:3000/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    }


@pytest.mark.parametrize(
    "uri",
    ["claude://oauth-callback/x", "https://chat.openai.com/oauth/callback/x", CALLBACK],
)
def test_approved_clients_register(uri: str) -> None:
    assert register(redirect_uris=[uri]).status_code == 201


@pytest.mark.parametrize(
    "uris",
    [
        ["https://evil.example/callback"],
        [CALLBACK, "https://evil.example/callback"],
        ["https://chat.openai.com@evil.example/oauth/callback/x"],
        ["javascript:alert(1)"],
        [],
        [1],
        [None],
        CALLBACK,
        None,
        [CALLBACK] * 21,
    ],
)
def test_any_other_redirect_uri_is_refused_and_logged(
    uris: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        response = register(redirect_uris=uris, client_name="Mallory")
    assert response.status_code == 400
    assert response.json()["error"] == "invalid_redirect_uri"
    is_unapproved = isinstance(uris, list) and any("evil" in str(u) or ":a" in str(u) for u in uris)
    assert ("registration of 'Mallory' refused" in caplog.text) == is_unapproved


def test_a_line_break_cannot_forge_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        register(redirect_uris=["https://evil.example/\nall is well"], client_name="a\nb")
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()


def test_a_client_that_says_nothing_gets_a_secret_and_codes_only() -> None:
    registered = register().json()
    assert registered["token_endpoint_auth_method"] == "client_secret_basic"
    assert len(registered["client_secret"]) == 43
    assert registered["client_secret_expires_at"] == 0
    assert registered["grant_types"] == ["authorization_code"]


def test_a_public_client_gets_no_secret() -> None:
    assert "client_secret" not in register(token_endpoint_auth_method="none").json()


def test_grant_types_that_are_not_for_clients_are_left_out() -> None:
    asked = ["authorization_code", "refresh_token", "client_credentials", "password"]
    registered = register(grant_types=asked).json()
    assert registered["grant_types"] == ["authorization_code", "refresh_token"]


def test_unknown_members_are_ignored_and_scopes_are_the_policys_business() -> None:
    registered = register(scope="mcp:calendar.write", software_id="x", jwks={"keys": []}).json()
    assert not {"scope", "software_id", "jwks"} & set(registered)


@pytest.mark.parametrize(
    "metadata",
    [
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"token_endpoint_auth_method": ["none"]},
        {"grant_types": ["refresh_token"]},
        {"grant_types": ["implicit"]},
        {"grant_types": "authorization_code"},
        {"response_types": ["token"]},
        {"response_types": "code"},
        {"client_name": 5},
        {"client_name": {"en": "x"}},
    ],
)
def test_metadata_that_cannot_be_met_is_refused(metadata: dict[str, Any]) -> None:
    response = register(**metadata)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"[]", b'"a"', b"null", b"\xff\xfe", b"[" * 30_000, b'{"redirect_uris": [1,'],
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    response = Room().client.send("POST", REGISTER, content=body)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_client_metadata")


def test_a_name_that_would_deceive_is_cleaned() -> None:
    name = "Good\u202eknaB\u0000\n  App\u200b " + "x" * 100
    shown = register(client_name=name).json()["client_name"]
    assert shown == "GoodknaB App " + "x" * 46 + "…"


def test_a_client_without_a_name_says_so() -> None:
    assert register(client_name="\u200b ").json()["client_name"] == "An application without a name"


def test_secrets_are_not_in_the_store() -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method="client_secret_post")
    assert registered["client_secret"] not in "\n".join(room.server.store.db.iterdump())
