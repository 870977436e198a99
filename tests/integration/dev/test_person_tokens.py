"""Access tokens of people from a running development server: ``toolguard token``."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from support.devrooms import FETCH, MCP, READ, WRITE
from toolguard.cli import main
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.direct import PERSON_TOKEN_PATH, PersonTokenRequest
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.person_tokens import NoServerError, fetch_person_token
from toolguard.dev.store import Store
from toolguard.testing.loopback import Loopback

READERS = "Read-Only Access for All Others"
OTHER = "http://127.0.0.1:8100/mcp"


@pytest.fixture(scope="module")
def server() -> Iterator[DevServer]:
    """Return a running server of the built-in world, for two MCP servers."""
    with Loopback() as loopback, Store() as store:
        server = DevServer(builtin_world().with_resources(OTHER), store, origin=loopback.url)
        loopback.start(server.app)
        yield server


def run_token(
    server: DevServer, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    code = main(["token", *arguments, "--issuer", server.issuer])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def claims_of(token: str) -> dict[str, Any]:
    claims: dict[str, Any] = jwt.decode(token.strip(), options={"verify_signature": False})
    return claims


def ask(server: DevServer, **settings: Any) -> httpx.Response:
    """Ask the endpoint itself; the body is JSON if it is a dictionary."""
    url = server.origin + PERSON_TOKEN_PATH
    return httpx.post(url, trust_env=False, timeout=10, **settings)


def test_only_the_token_goes_to_standard_output(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, said = run_token(server, capsys, "alice", "--scope", WRITE)

    assert code == 0
    claims = claims_of(out)
    assert (claims["sub"], claims["aud"], claims["client_id"]) == ("alice", MCP, "toolguard-cli")
    assert claims["scope"] == f"{WRITE} {FETCH}"
    assert out.strip() not in said
    assert said == f"alice@tenant-a.example, {WRITE} {FETCH}, for {MCP}, 300 seconds\n"


def test_a_protected_server_accepts_the_token(server: DevServer) -> None:
    found = asyncio.run(fetch_person_token(server.origin, PersonTokenRequest("carol", (READ,))))

    principal = asyncio.run(server.verifier(MCP).verify(found.token))

    assert (principal.user_id, principal.tenant_id) == ("carol", "tenant-b")


def test_scopes_may_be_repeated_or_in_one_argument(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    once = run_token(server, capsys, "alice", "--scope", f"{READ} {WRITE}")
    twice = run_token(server, capsys, "alice", "--scope", READ, "--scope", WRITE)

    assert claims_of(once[1])["scope"] == claims_of(twice[1])["scope"] == f"{READ} {WRITE} {FETCH}"


def test_client_and_resource_can_be_named(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run_token(server, capsys, "bob", "--client", "my-app", "--audience", OTHER)

    claims = claims_of(out)
    assert (claims["aud"], claims["client_id"], claims["scope"]) == (
        OTHER,
        "my-app",
        f"{READ} {FETCH}",
    )


def test_without_a_person_the_first_one_signs_in(
    server: DevServer, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run_token(server, capsys, "--scope", "")

    claims = claims_of(out)
    assert (claims["sub"], claims["scope"]) == ("alice", "")


GOOD = {
    "access_token": "eyJ.e30.c2ln",
    "person": "alice@example.com",
    "scope": "notes.read",
    "resource": "http://127.0.0.1:8000/mcp",
    "expires_in": 60,
    "issuer": "http://127.0.0.1:8800",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"access_token": "a\r\nX-Injected: 1"},
        {"access_token": "a; rm -rf ~"},
        {"access_token": "\x1b[2J"},
        {"access_token": None},
        {"scope": 5},
        {"expires_in": "soon"},
    ],
)
def test_an_answer_that_holds_no_token_prints_none(
    changed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback(answering(200, GOOD | changed)) as loopback:
        code = main(["token", "--issuer", loopback.url])

    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert "is not toolguard dev" in shown.err


@pytest.mark.parametrize(
    ("status", "answer"),
    [(200, {"person": "\x1b[2J"}), (400, {"error_description": "\x1b[2J \u202e"})],
)
def test_what_another_server_says_controls_no_terminal(
    status: int, answer: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback(answering(status, GOOD | answer)) as loopback:
        main(["token", "--issuer", loopback.url])

    shown = capsys.readouterr().err
    assert "\\x1b[2J" in shown
    assert "\x1b" not in shown
    assert "\u202e" not in shown


def test_an_answer_without_an_end_holds_no_token(capsys: pytest.CaptureFixture[str]) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b" " * 1024 * 1024

    def answer(_: Request) -> StreamingResponse:
        return StreamingResponse(endless(), media_type="application/json")

    app = Starlette(routes=[Route(PERSON_TOKEN_PATH, answer, methods=["POST"])])
    with Loopback(app) as loopback:
        code = main(["token", "--issuer", loopback.url])

    shown = capsys.readouterr()
    assert (code, shown.out) == (2, "")
    assert "has sent more than 16 MiB without an end" in shown.err


def test_an_answer_that_takes_too_long_is_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolguard.dev.person_tokens._TIMEOUT", 0.2)

    async def dripping() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0)

    def answer(_: Request) -> StreamingResponse:
        return StreamingResponse(dripping(), media_type="application/json")

    app = Starlette(routes=[Route(PERSON_TOKEN_PATH, answer, methods=["POST"])])
    with Loopback(app) as loopback:
        code = main(["token", "--issuer", loopback.url])

    assert code == 2
    assert "no development server answers at" in capsys.readouterr().err


def answering(status: int, answer: dict[str, Any]) -> Starlette:
    """Return what answers every request alike."""
    path = PERSON_TOKEN_PATH
    return Starlette(routes=[Route(path, lambda _: JSONResponse(answer, status), methods=["POST"])])


@pytest.mark.parametrize("person", ["dora", "DORA", "Dora@tenant-a.example", "Dora Draper"])
def test_a_person_is_named_by_id_address_or_name(
    server: DevServer, capsys: pytest.CaptureFixture[str], person: str
) -> None:
    _, out, _ = run_token(server, capsys, person)

    assert claims_of(out)["sub"] == "dora"


REFUSED = [
    (["eve"], "there is no person 'eve' in this world: write alice, bob, carol, dora"),
    (
        ["bob", "--scope", "mail.read"],
        f"there is no scope 'mail.read' in this world: write {READ}, ",
    ),
    (
        ["bob", "--scope", WRITE],
        f"the policy '{READERS}' decides for bob@tenant-a.example, and does not grant {WRITE}",
    ),
    (
        ["bob", "--resource", "http://127.0.0.1:9/mcp"],
        f"this world has no server at 'http://127.0.0.1:9/mcp': write {MCP}, {OTHER}",
    ),
    (["bob", "--client", "two words"], "client_id must be 1 to 200 visible ASCII characters"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_a_refusal_is_one_sentence_and_no_token(
    server: DevServer, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    code, out, said = run_token(server, capsys, *arguments)

    assert (code, out) == (1, "")
    assert said.startswith(f"toolguard token: {sentence}")
    assert said.count("\n") == 1


def test_something_else_that_answers_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    async def other(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b"nothing here"})
        else:
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return

    with Loopback(other) as loopback:
        code = main(["token", "--issuer", loopback.url])

    assert code == 2
    assert "(404) is not toolguard dev: write --issuer" in capsys.readouterr().err


def test_a_free_port_is_said_to_have_no_server() -> None:
    with Loopback() as loopback:
        origin = loopback.url

    with pytest.raises(NoServerError, match="start toolguard dev in another terminal"):
        asyncio.run(fetch_person_token(origin, PersonTokenRequest()))


BROWSERS = [
    {"json": {}, "headers": {"origin": "http://127.0.0.1:8800"}},
    {"json": {}, "headers": {"sec-fetch-site": "same-origin"}},
    {"json": {}, "headers": {"host": "rebound.example"}},
    {"data": {"person": "alice"}},
    {"content": "{}", "headers": {"content-type": "text/plain"}},
]


@pytest.mark.parametrize("sent", BROWSERS)
def test_what_a_browser_can_send_gets_no_token(server: DevServer, sent: dict[str, Any]) -> None:
    response = ask(server, **sent)

    assert response.status_code in {403, 415, 421}
    assert "access_token" not in response.text
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("body", [b"", b"{", b"[]", json.dumps({"scope": ["a"]}).encode()])
def test_what_is_not_a_request_is_refused(server: DevServer, body: bytes) -> None:
    response = ask(server, content=body, headers={"content-type": "application/json"})

    assert response.status_code == 400
    assert response.json()["error"] == "invalid_request"
