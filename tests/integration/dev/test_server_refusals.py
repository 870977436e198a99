"""Where the development server answers, to whom, and what it will not even read."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from support.devrooms import ISSUER, MCP, ORIGIN, Room, Visitor, authorize_url
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store

POSTS = ["register", "token", "revoke", "introspect", "sign-in", "provider", "consent", "sign-out"]


# Only on this machine


@pytest.mark.parametrize(
    "origin",
    [
        "http://0.0.0.0:8800",
        "http://192.168.0.5:8800",
        "http://example.com",
        "https://auth.example.com",
        "http://127.0.0.1:8800/",
        "http://127.0.0.1:8800/x",
        "http://127.0.0.1.evil.example",
        "http://user@127.0.0.1",
        "127.0.0.1:8800",
        "",
    ],
)
def test_it_has_no_origin_but_on_this_machine(origin: str) -> None:
    with Store() as store, pytest.raises(ValueError, match="on this machine only"):
        DevServer(builtin_world(), store, origin=origin)


@pytest.mark.parametrize("origin", ["http://localhost:8800", "http://[::1]:8800", ORIGIN])
def test_it_may_have_any_name_of_this_machine(origin: str) -> None:
    with Store() as store:
        assert DevServer(builtin_world(), store, origin=origin).issuer == f"{origin}/P2dev"


def test_it_does_not_run_for_no_server() -> None:
    nobody = replace(builtin_world(), resources=())
    with Store() as store, pytest.raises(ValueError, match="no server is known"):
        DevServer(nobody, store, origin=ORIGIN)


def ask(server: DevServer, host: str | None, client: tuple[str, int] = ("127.0.0.1", 1)) -> int:
    async def send() -> int:
        transport = httpx.ASGITransport(server.app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as asking:
            headers = {} if host is None else {"host": host}
            response = await asking.get(f"{ISSUER}/jwks", headers=headers)
            return int(response.status_code)

    return asyncio.run(send())


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8800", "localhost:8800", "127.0.0.1", "127.0.0.1:8801", ""],
)
def test_a_request_for_another_host_is_misdirected(host: str) -> None:
    assert ask(Room().server, host) == 421


@pytest.mark.parametrize("client", ["192.168.0.5", "10.0.0.1", "::ffff:10.0.0.1", "testclient"])
def test_a_request_from_another_machine_is_misdirected(client: str) -> None:
    assert ask(Room().server, None, (client, 1)) == 421


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.8.8", "::1"])
def test_a_request_from_this_machine_is_served(client: str) -> None:
    assert ask(Room().server, None, (client, 1)) == 200


def test_it_says_at_start_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    app = Room().server.app

    async def start() -> None:
        async with app.router.lifespan_context(app):
            pass

    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        asyncio.run(start())
    assert "development authorization server at http://127.0.0.1:8800/P2dev" in caplog.text
    assert "never use it for anything real" in caplog.text


# What it says about itself


@pytest.mark.parametrize(
    "path",
    [
        "/.well-known/oauth-authorization-server/P2dev",
        "/.well-known/openid-configuration/P2dev",
        "/P2dev/.well-known/openid-configuration",
        "/P2dev/.well-known/oauth-authorization-server",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
    ],
)
def test_it_is_discovered_in_every_form(path: str) -> None:
    document = Room().client.get(path).json()
    assert document["issuer"] == "http://127.0.0.1:8800/P2dev"
    assert document["authorization_endpoint"] == "http://127.0.0.1:8800/P2dev/authorize"
    assert document["token_endpoint"] == "http://127.0.0.1:8800/P2dev/token"
    assert document["registration_endpoint"] == "http://127.0.0.1:8800/P2dev/register"
    assert document["jwks_uri"] == "http://127.0.0.1:8800/P2dev/jwks"
    assert document["code_challenge_methods_supported"] == ["S256"]
    assert document["token_endpoint_auth_methods_supported"] == [
        "none",
        "client_secret_basic",
        "client_secret_post",
    ]
    assert document["grant_types_supported"] == [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]
    assert document["response_types_supported"] == ["code"]
    assert document["client_id_metadata_document_supported"] is True
    assert document["authorization_response_iss_parameter_supported"] is True
    assert document["subject_types_supported"] == ["public"]
    assert "offline_access" not in document["scopes_supported"]


def test_every_endpoint_it_names_is_there() -> None:
    room = Room()
    document = room.client.get("/P2dev/.well-known/openid-configuration").json()
    for name, url in document.items():
        if name.endswith("_endpoint") or name == "jwks_uri":
            assert room.client.get(url).status_code in (200, 400, 405), name


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ".well-known/openid-configuration"),
        ("GET", "jwks"),
        ("POST", "register"),
        ("POST", "token"),
        ("POST", "revoke"),
    ],
)
def test_a_client_in_a_browser_may_ask(method: str, path: str) -> None:
    room = Room()
    preflight = room.client.send(
        "OPTIONS",
        f"{ISSUER}/{path}",
        headers={
            "origin": "http://localhost:6274",
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,content-type,mcp-protocol-version",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "*"
    headers = {"origin": "http://localhost:6274"}
    response = room.client.send(method, f"{ISSUER}/{path}", headers=headers)
    assert response.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize("path", ["authorize", "sign-in", "provider", "consent", "introspect"])
def test_a_script_from_elsewhere_may_not_read_the_rest(path: str) -> None:
    headers = {"origin": "http://localhost:6274"}
    response = Room().client.send("GET", f"{ISSUER}/{path}", headers=headers)
    assert "access-control-allow-origin" not in response.headers


# What it does not read


@pytest.mark.parametrize("path", POSTS)
def test_a_body_that_is_too_long_is_refused(path: str) -> None:
    content = b"a=" + b"x" * 70_000
    kind = {"content-type": "application/x-www-form-urlencoded"}
    response = Room().client.send("POST", f"{ISSUER}/{path}", content=content, headers=kind)
    assert response.status_code == 413


def test_a_body_of_unknown_length_is_refused_as_well() -> None:
    async def endless() -> Any:
        for _ in range(100):
            yield b"x" * 1_000

    response = Room().client.send("POST", f"{ISSUER}/register", content=endless())
    assert response.status_code == 413


@pytest.mark.parametrize("path", [path for path in POSTS if path != "register"])
@pytest.mark.parametrize("kind", [None, "application/json", "multipart/form-data; boundary=x"])
def test_a_body_that_is_no_form_is_refused(path: str, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    response = Room().client.send("POST", f"{ISSUER}/{path}", content=b"{}", headers=headers)
    assert response.status_code == 400


@pytest.mark.parametrize("body", [b"a=%ff", b"\xff=1", "&".join(["a=1"] * 200).encode()])
def test_a_form_that_cannot_be_read_is_refused(body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    response = Room().client.send("POST", f"{ISSUER}/token", content=body, headers=kind)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@pytest.mark.parametrize("name", ["grant_type", "code", "client_id", "code_verifier"])
def test_a_parameter_that_is_repeated_is_refused(name: str) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    form = [("grant_type", "authorization_code"), ("client_id", client_id)]
    form += [("code", "x"), ("code_verifier", "v" * 43), (name, "y")]
    response = room.client.post(f"{ISSUER}/token", form)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


@given(
    path=st.sampled_from(POSTS),
    body=st.one_of(
        st.binary(max_size=200),
        st.dictionaries(st.text(max_size=10), st.text(max_size=20), max_size=6).map(
            lambda value: json.dumps(value).encode()
        ),
        st.lists(
            st.sampled_from(["tx=x", "csrf=x", "client_id=x", "code=x", "token=x", "a=%00", "=&="]),
            max_size=8,
        ).map(lambda parts: "&".join(parts).encode()),
    ),
    kind=st.sampled_from(["application/x-www-form-urlencoded", "application/json", "text/plain"]),
)
@settings(max_examples=2 * settings().max_examples)
def test_any_body_gets_an_answer_and_never_an_accident(path: str, body: bytes, kind: str) -> None:
    headers = {"content-type": kind}
    response = ROOM.client.send("POST", f"{ISSUER}/{path}", content=body, headers=headers)
    assert response.status_code in (400, 401, 403)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="#"), max_size=60))
@settings(max_examples=2 * settings().max_examples)
def test_any_query_gets_an_answer_and_no_redirect(query: str) -> None:
    for path in ("authorize", "sign-in", "provider", "consent", "callback"):
        response = ROOM.client.get(f"{ISSUER}/{path}", params={"client_id": query, "tx": query})
        assert response.status_code == 400
        assert "location" not in response.headers


ROOM = Room()


# How it is put together


async def hello(request: Request) -> Response:
    user = request.app.state.dev_server.sign_in_user(request)
    return PlainTextResponse("nobody" if user is None else user.id)


def test_other_routes_see_who_is_signed_in() -> None:
    room = Room()
    room.server.extend(extra_routes=[Route("/hello", hello)])
    browser = room.visitor()
    assert browser.get("/hello").text == "nobody"
    room.consent_at(browser, room.register()["client_id"])
    assert browser.get("/hello").text == "alice"
    assert room.visitor().get("/hello").text == "nobody"


def test_other_routes_never_take_the_place_of_its_own() -> None:
    room = Room()
    room.server.extend(extra_routes=[Route("/P2dev/jwks", hello)])
    assert "keys" in room.client.get(f"{ISSUER}/jwks").json()


def test_an_app_in_use_is_not_extended() -> None:
    room = Room()
    room.client.get(f"{ISSUER}/jwks")
    with pytest.raises(RuntimeError, match="before its app is used"):
        room.server.extend(extra_routes=[])


def test_it_can_be_had_as_an_app() -> None:
    with Store() as store:
        server = DevServer(builtin_world(), store, origin=ORIGIN)
        server.extend(extra_routes=[Route("/hello", hello)])
        assert server.app.state.dev_server is server
        assert Visitor(server).get("/hello").text == "nobody"
        assert (server.origin, server.project_id) == (ORIGIN, "P2dev")
        assert server.well_known_url == f"{ISSUER}/.well-known/openid-configuration"
        assert repr(server) == "<DevServer: http://127.0.0.1:8800/P2dev>"


def test_credentials_are_made_for_servers_that_have_none() -> None:
    one, other = Room().server, Room().server
    assert one.credentials(MCP)[0] == "calendar-server"
    assert one.credentials(MCP)[1] != other.credentials(MCP)[1]
    with pytest.raises(ValueError, match="not a resource of the world"):
        one.credentials("http://127.0.0.1:1/x")


# What it remembers


def test_a_state_file_keeps_clients_tokens_and_keys(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    with Store(path) as store:
        room = Room(store=store)
        client_id = room.register()["client_id"]
        tokens = room.tokens(client_id)
    with Store(path) as store:
        again = Room(store=store)
        principal = asyncio.run(again.server.verifier().verify(tokens["access_token"]))
        assert principal.user_id == "alice"
        assert again.refresh(client_id, tokens["refresh_token"]).status_code == 200


@pytest.mark.parametrize("is_there", [False, True])
def test_a_state_file_is_its_owners_alone(tmp_path: Path, *, is_there: bool) -> None:
    path = tmp_path / "state.db"
    if is_there:
        path.touch(0o644)
    with Store(str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    with pytest.raises(sqlite3.DatabaseError):
        Store(str(path))
    assert path.read_text().startswith("Dear reader")


def test_what_has_ended_is_forgotten() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    room.tokens(client_id)
    room.clock.advance(90_000)
    room.client.get(authorize_url(client_id))
    counts = {
        table: room.server.store.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("session", "sign_in", "grant_", "code", "refresh_token", "access_token")
    }
    assert counts == {
        "session": 1,
        "sign_in": 1,
        "grant_": 0,
        "code": 0,
        "refresh_token": 0,
        "access_token": 0,
    }


def test_an_exception_in_a_transaction_undoes_it() -> None:
    def fail(store: Store) -> None:
        with store.transaction() as db:
            db.execute("INSERT INTO session VALUES ('a', NULL, 1)")
            raise KeyError

    with Store() as store:
        with pytest.raises(KeyError):
            fail(store)
        assert store.db.execute("SELECT count(*) FROM session").fetchone() == (0,)


def test_no_secret_is_in_a_representation_or_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        room = Room()
        registered = room.register(token_endpoint_auth_method="client_secret_basic")
        public = room.register()["client_id"]
        tokens = room.tokens(public)
        room.refresh(public, tokens["refresh_token"])
        room.refresh(public, tokens["refresh_token"])
    said = caplog.text + repr(room.server) + repr(room.server._context)
    for secret in (
        registered["client_secret"],
        tokens["access_token"],
        tokens["refresh_token"],
        room.server.credentials(MCP)[1],
    ):
        assert secret not in said
