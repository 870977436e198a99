"""What a client may ask for, and whether it is told on its own address or on a page."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from support.devrooms import (
    CALLBACK,
    CHALLENGE,
    ISSUER,
    MCP,
    READ,
    WRITE,
    Room,
    answer_of,
    authorize_url,
)
from toolguard.dev.oauth.config import builtin_world

# Requests that are answered to the client


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "s256"}, "invalid_request"),
        ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
        ({"code_challenge": CHALLENGE + "="}, "invalid_request"),
        ({"code_challenge": [CHALLENGE, "A" * 43]}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"response_type": ["code", "token"]}, "invalid_request"),
        ({"response_mode": "form_post"}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"request": "eyJ"}, "invalid_request"),
        ({"request_uri": "https://evil.example/r"}, "invalid_request"),
        ({"resource": "https://evil.example/mcp"}, "invalid_target"),
        ({"resource": f"{MCP}/admin"}, "invalid_target"),
        ({"resource": f"{MCP}#x"}, "invalid_target"),
        ({"resource": [MCP, "https://evil.example/mcp"]}, "invalid_target"),
        ({"resource": "x"}, "invalid_target"),
        ({"scope": f"{READ}  {WRITE}"}, "invalid_scope"),
        ({"scope": f"{READ}\t{WRITE}"}, "invalid_scope"),
        ({"scope": 'a"b'}, "invalid_scope"),
        ({"scope": " ".join(f"s{number}" for number in range(51))}, "invalid_scope"),
        ({"scope": [READ, WRITE]}, "invalid_request"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_to_the_client(
    changed: dict[str, Any], error: str
) -> None:
    room = Room()
    response = room.client.get(authorize_url(room.register()["client_id"], **changed))
    assert response.status_code == 302
    assert response.headers["location"].startswith(f"{CALLBACK}?error=")
    answer = answer_of(response)
    assert answer.pop("error_description")
    assert answer == {"error": error, "state": "st4te", "iss": ISSUER}


@pytest.mark.parametrize("state", ["\u00e9", "a\nb", "x" * 4_097, ["one", "two"]])
def test_a_state_that_is_none_is_not_repeated(state: Any) -> None:
    room = Room()
    response = room.client.get(authorize_url(room.register()["client_id"], state=state))
    answer = answer_of(response)
    assert answer["error"] == "invalid_request"
    assert "state" not in answer


def test_an_error_repeats_nothing_that_was_sent_but_the_state() -> None:
    room = Room()
    url = authorize_url(room.register()["client_id"], resource="https://evil.example/m4rker")
    assert "m4rker" not in room.client.get(url).headers["location"]


def test_two_known_resources_at_once_are_refused() -> None:
    room = Room(builtin_world().with_resources("http://127.0.0.1:9000/mcp"))
    client_id = room.register()["client_id"]
    for resource in ([MCP, "http://127.0.0.1:9000/mcp"], None):
        response = room.client.get(authorize_url(client_id, resource=resource))
        assert answer_of(response)["error"] == "invalid_target"


# Requests that are answered on a page, because nothing can be trusted


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://evil.example/callback",
        "http://127.0.0.1:3000/other",
        "http://127.0.0.1:3000/callback/",
        "http://127.0.0.1:3000/callback?x=1",
        "http://127.0.0.1:3000/callback#x",
        "https://127.0.0.1:3000/callback",
        "http://localhost:3000/callback",
        "http://127.0.0.1:3000@evil.example/callback",
        "http://evil.example@127.0.0.1:3000/callback",
        "http://127.0.0.1:3000/callback\\@evil.example",
        "http://127.0.0.1:3000/x/../callback",
        "http://127.0.0.1.evil.example:3000/callback",
        "//evil.example/callback",
        "javascript:alert(1)",
        "",
        ["http://127.0.0.1:3000/callback", "https://evil.example/"],
    ],
)
def test_nothing_is_redirected_to_an_unregistered_address(redirect_uri: Any) -> None:
    room = Room()
    client_id = room.register(redirect_uris=[CALLBACK, "claude://oauth-callback/x"])["client_id"]
    response = room.client.get(authorize_url(client_id, redirect_uri=redirect_uri))
    assert response.status_code == 400
    assert "location" not in response.headers
    assert "refresh" not in response.headers
    assert "This cannot go on" in response.text


def test_a_registered_web_address_counts_with_its_port() -> None:
    room = Room()
    registered = "https://chat.openai.com/oauth/callback/x"
    client_id = room.register(redirect_uris=[registered])["client_id"]
    asked = "https://chat.openai.com:8443/oauth/callback/x"
    response = room.client.get(authorize_url(client_id, redirect_uri=asked))
    assert response.status_code == 400
    assert "location" not in response.headers


def test_a_local_client_may_come_back_on_another_port() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    asked = "http://127.0.0.1:49152/callback"
    code = room.code(client_id, redirect_uri=asked)
    assert room.redeem(client_id, code, redirect_uri=asked).status_code == 200


def test_an_unregistered_address_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        room.client.get(authorize_url(client_id, redirect_uri="https://evil.example/"))
    assert "unregistered redirect URI" in caplog.text


@pytest.mark.parametrize("client_id", [None, "", "client-unknown", ["a", "b"], "'; DROP TABLE--"])
def test_an_unknown_client_is_told_on_a_page(client_id: Any) -> None:
    response = Room().client.get(authorize_url(client_id))
    assert response.status_code == 400
    assert "location" not in response.headers


def test_a_query_that_cannot_be_read_is_told_on_a_page() -> None:
    response = Room().client.get(f"{ISSUER}/authorize?client_id=%ff")
    assert response.status_code == 400
    many = "&".join(f"a{number}=1" for number in range(200))
    assert Room().client.get(f"{ISSUER}/authorize?{many}").status_code == 400
