"""How a client proves at the token endpoint that it is the one."""

from __future__ import annotations

from typing import Any

import pytest

from support.devrooms import CALLBACK, ISSUER, VERIFIER, Room


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
@pytest.mark.parametrize("way", ["basic", "post"])
def test_a_client_with_a_secret_shows_it_either_way(method: str, way: str) -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method=method)
    client_id, secret = registered["client_id"], registered["client_secret"]
    form = {
        "grant_type": "authorization_code",
        "code": room.code(client_id),
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    if way == "basic":
        response = room.client.post(f"{ISSUER}/token", form, auth=(client_id, secret))
    else:
        form |= {"client_id": client_id, "client_secret": secret}
        response = room.client.post(f"{ISSUER}/token", form)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "wrong",
    ["nothing", "wrong secret", "empty secret", "basic wrong", "bearer", "no base64", "no colon"],
)
def test_a_client_with_a_secret_that_does_not_show_it_is_refused(wrong: str) -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method="client_secret_basic")
    client_id, code = registered["client_id"], room.code(registered["client_id"])
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    form |= {"redirect_uri": CALLBACK, "client_id": client_id}
    settings: dict[str, Any] = {}
    if wrong in ("wrong secret", "empty secret"):
        form["client_secret"] = "x" if wrong == "wrong secret" else ""
    elif wrong == "basic wrong":
        settings["auth"] = (client_id, "x")
    elif wrong != "nothing":
        sent = {"bearer": "Bearer x", "no base64": "Basic ?", "no colon": "Basic eA=="}[wrong]
        settings["headers"] = {"authorization": sent}
    response = room.client.post(f"{ISSUER}/token", form, **settings)
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == 'Basic realm="toolguard dev"'


def test_a_secret_is_shown_in_one_way_only() -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method="client_secret_basic")
    client_id, secret = registered["client_id"], registered["client_secret"]
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_secret": secret}
    response = room.client.post(f"{ISSUER}/token", form, auth=(client_id, secret))
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_header_and_body_cannot_name_different_clients() -> None:
    room = Room()
    registered = room.register(token_endpoint_auth_method="client_secret_basic")
    form = {"grant_type": "refresh_token", "refresh_token": "x", "client_id": "another"}
    response = room.client.post(
        f"{ISSUER}/token", form, auth=(registered["client_id"], registered["client_secret"])
    )
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


def test_a_public_client_with_a_secret_is_refused() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    response = room.redeem(client_id, room.code(client_id), client_secret="x")
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


def test_an_unknown_client_is_refused() -> None:
    for client_id in ("client-unknown", ""):
        response = Room().redeem(client_id, "x")
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
