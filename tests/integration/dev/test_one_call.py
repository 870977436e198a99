"""One call with its challenges: ``toolguard call``, with servers of every line."""

from __future__ import annotations

import bz2
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from support.devrooms import FETCH, READ, WRITE
from support.lines import LINES, MODERN_PROTOCOL, Line
from toolguard import (
    ToolGuard,
    requires_auth,
    requires_permissions,
    requires_scopes,
    with_connection,
)
from toolguard.cli import main
from toolguard.descope import DescopeConnections
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.direct import PersonTokenRequest
from toolguard.dev.person_tokens import fetch_person_token
from toolguard.dev.services import APP, run_services
from toolguard.dev.store import Store
from toolguard.testing.loopback import Loopback

JSON = "{}"


@dataclass(frozen=True)
class Served:
    """A protected server of one line, and a revision of the protocol to speak with it."""

    line: Line
    issuer: str
    url: str
    revision: str


def served_by(line: Line, guard: ToolGuard) -> Any:
    server = line.server("notes")

    @server.tool()
    @requires_scopes(READ)
    async def read_note(name: str, *, user_id: str) -> dict[str, str]:
        return {"note": name, "for": user_id}

    @server.tool()
    @requires_scopes(WRITE)
    async def write_note(name: str) -> str:
        return f"wrote {name}\x1b[2J"

    @server.tool()
    @requires_auth
    @with_connection(APP)
    async def sync(*, connection_token: str) -> str:
        return f"synced with {len(connection_token)}"

    @server.tool()
    @requires_permissions("admin")
    async def drop_all() -> str:
        return "dropped"

    @server.tool()
    @requires_auth
    async def fail() -> str:
        raise ValueError("the disk is full")

    return guard.protect(server)


WAYS = [
    (line, as_json, revision)
    for line in LINES
    for as_json in (False, True)
    for revision in ("2025-11-25", *([MODERN_PROTOCOL] if line.modern else []))
]


@pytest.fixture(scope="module")
def all_served() -> Iterator[dict[tuple[str, bool], tuple[str, str]]]:
    """Return the issuer and the URL of a server of every line, with either form of answers."""
    keys = dict.fromkeys((line, as_json) for line, as_json, _ in WAYS)
    with ExitStack() as running:
        listeners = {key: running.enter_context(Loopback()) for key in keys}
        urls = {key: f"{listener.url}/mcp" for key, listener in listeners.items()}
        store = running.enter_context(Store())
        world = builtin_world().with_resources(*urls.values())
        on = running.enter_context(run_services(world, store))
        for (line, as_json), listener in listeners.items():
            guard = ToolGuard(
                well_known_url=on.server.well_known_url,
                audience=urls[line, as_json],
                connections=DescopeConnections(on.server.well_known_url),
            )
            listener.start(line.http_app(served_by(line, guard), json=as_json))
        yield {
            (line.name, as_json): (on.server.issuer, url) for (line, as_json), url in urls.items()
        }


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]}-{'json' if way[1] else 'sse'}-{way[2]}")
def served(
    request: pytest.FixtureRequest, all_served: dict[tuple[str, bool], tuple[str, str]]
) -> Served:
    line, as_json, revision = request.param
    issuer, url = all_served[line.name, as_json]
    return Served(line, issuer, url, revision)


@pytest.fixture
def one(all_served: dict[tuple[str, bool], tuple[str, str]]) -> Served:
    """Return one server, where the way of speaking makes no difference."""
    issuer, url = all_served[LINES[0].name, False]
    return Served(LINES[0], issuer, url, "2025-11-25")


def call(
    served: Served, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    code = main(["call", served.url, *arguments, "--revision", served.revision])
    shown = capsys.readouterr()
    assert not re.search(r"eyJ[\w-]+\.", shown.out + shown.err), "a token is shown"
    return code, shown.out, shown.err


def test_a_call_shows_challenge_step_up_and_answer(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    name = json.dumps({"name": "a"})
    code, out, told = call(served, capsys, "write_note", name, "--as", "alice", "--scope", READ)

    assert code == 0
    assert out.startswith("wrote a") or json.loads(out) == {"result": "wrote a\x1b[2J"}
    assert "\x1b" not in out
    assert told.splitlines()[0].startswith("signed in: alice@tenant-a.example at ")
    about = f"POST {served.url}  tools/call write_note, with a token of alice@tenant-a.example"
    assert told.count(about) == 2
    assert "  403 Forbidden\n  WWW-Authenticate: Bearer error=" in told
    assert f"insufficient scope: it asks for a token with {READ}" in told or WRITE in told
    assert re.search(rf"step-up: alice@tenant-a.example at .*{WRITE}", told)
    assert told.index("403") < told.index("step-up") < told.index("200 OK")


def test_without_scopes_the_first_challenge_signs_in(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    name = json.dumps({"name": "b"})
    code, out, told = call(served, capsys, "read_note", name, "--as", "carol")

    assert (code, json.loads(out)) == (0, {"note": "b", "for": "carol"})
    assert "with no token\n  401 Unauthorized\n  WWW-Authenticate: Bearer " in told
    assert "it asks for a token" in told
    assert told.index("401") < told.index("signed in: carol") < told.index("200 OK")


def test_a_connection_that_is_required_shows_its_link(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = call(served, capsys, "sync", JSON, "--as", "alice", "--scope", READ)

    assert code == 1
    origin = served.issuer.rpartition("/")[0]
    assert f"an account has to be connected first: open {origin}/connections/" in told


def test_a_check_that_says_no_ends_the_call(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = call(served, capsys, "drop_all", "--as", "alice", "--scope", READ)

    assert code == 1
    assert "You are not allowed to do this" in told
    assert "step-up" not in told


def test_the_error_of_a_tool_is_its_answer(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(served, capsys, "fail", "--as", "alice", "--scope", READ)

    assert code == 1
    assert "tool" in out


def test_a_policy_that_refuses_ends_the_call(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    name = json.dumps({"name": "a"})
    code, out, told = call(one, capsys, "write_note", name, "--as", "bob", "--scope", READ)

    assert (code, out) == (1, "")
    last = told.splitlines()[-1]
    assert last.startswith("toolguard call: the policy 'Read-Only Access for All Others' decides")


def test_a_token_from_elsewhere_gets_advice(
    one: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = PersonTokenRequest("alice", (READ,), one.url)
    found = anyio.run(fetch_person_token, one.issuer, asked)
    monkeypatch.setenv("TOOLGUARD_CALL_TOKEN", found.token)

    served = call(one, capsys, "read_note", '{"name": "a"}')
    refused = call(one, capsys, "write_note", '{"name": "a"}')

    assert served[0] == 0
    assert refused[0] == 1
    assert "with a token of yours" in refused[2]
    assert re.search(f"  get a token with .*{WRITE} from the issuer", refused[2])


def test_without_person_and_token_both_are_offered(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = call(one, capsys, "read_note", '{"name": "a"}')

    assert code == 1
    assert "call with --as PERSON to sign in at toolguard dev, or with a token" in told


def test_a_token_that_is_not_accepted_is_explained(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, told = call(one, capsys, "read_note", "--token", "no-token")

    assert code == 1
    assert "invalid_token: " in told


def test_arguments_of_the_tool_may_stand_behind_an_option(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    code, answer, _ = call(one, capsys, "read_note", "--as", "alice", '{"name": "a"}')

    assert code == 0
    assert json.loads(answer)["note"] == "a"


def test_an_unknown_tool_is_refused(one: Served, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = call(one, capsys, "fly", "--as", "alice", "--scope", READ)

    assert code == 1
    assert told


def test_a_wrong_path_is_named(one: Served, capsys: pytest.CaptureFixture[str]) -> None:
    other = Served(one.line, one.issuer, one.url.removesuffix("/mcp") + "/other", one.revision)

    code, _, told = call(other, capsys, "read_note")

    assert code == 1
    assert "404 Not Found\n  no MCP endpoint is there: write its path, such as /mcp" in told


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (520, "{}"),
        (200, "[" * 100_000),
        (200, '{"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "2025\\r\\nx: y"}}'),
        (200, '{"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "\u00e9"}}'),
        (200, '{"jsonrpc": "2.0", "id": 1, "result": {"inputRequests": [1]}}'),
        (200, '{"error": {"code": -32042, "data": {"elicitations": [5]}}}'),
        (200, '{"error": {"code": -32042, "data": {"elicitations": {"a": 5}}}}'),
        (200, '{"id": 1, "result": {"isError": true, "content": [5, {"text": 5}]}}'),
        (200, '{"id": 1, "error": {"code": 1, "message": "\\u001b[2J"}}'),
    ],
)
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_a_hostile_answer_is_told_without_control_of_the_terminal(
    status: int, body: str, revision: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = Response(body, status, media_type="application/json")
    app = Starlette(routes=[Route("/mcp", lambda _: sent, methods=["POST", "DELETE"])])
    with Loopback(app) as loopback:
        main(["call", f"{loopback.url}/mcp", "read_note", "--revision", revision])

    shown = capsys.readouterr()
    assert "POST" in shown.err
    assert "\x1b" not in shown.err + shown.out


async def endless(chunk: bytes) -> AsyncIterator[bytes]:
    """Yield 64 MiB, four times what a client may read."""
    for _ in range(64):
        yield chunk * (1024 * 1024 // len(chunk))


CHALLENGE = 'Bearer resource_metadata="{}/.well-known/oauth-protected-resource/mcp"'


@pytest.mark.parametrize(
    ("path", "media_type", "chunk"),
    [
        ("/mcp", "text/event-stream", b": ping\n\n"),
        ("/mcp", "text/event-stream", b"data: {}\n\n"),
        ("/mcp", "text/event-stream", b"data: "),
        ("/mcp", "application/json", b" "),
        ("/.well-known/oauth-protected-resource/mcp", "application/json", b" "),
    ],
    ids=["comments", "events", "one line", "an answer", "metadata"],
)
def test_an_answer_without_an_end_ends_the_call(
    path: str, media_type: str, chunk: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(request: Request) -> Response:
        header = CHALLENGE.format(str(request.base_url).rstrip("/"))
        return Response(status_code=401, headers={"www-authenticate": header})

    def answer(_: Request) -> Response:
        return StreamingResponse(endless(chunk), media_type=media_type)

    routes = [Route(path, answer, methods=["GET", "POST"]), Route("/mcp", refuse, methods=["POST"])]
    with Loopback(Starlette(routes=routes)) as loopback:
        code = main(["call", f"{loopback.url}/mcp", "read_note", "--as", "alice"])
        said = f"{loopback.url}{path} has sent more than 16 MiB without an end: correct the URL"

    assert code == 2
    assert said in capsys.readouterr().err


async def dripping() -> AsyncIterator[bytes]:
    """Yield single bytes until the reader stops."""
    while True:
        yield b" "
        await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("media_type", ["application/json", "text/event-stream"])
def test_an_answer_that_takes_too_long_ends_the_call(
    media_type: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolguard.dev.one_call.command._MOST_SECONDS", 0.2)

    def answer(_: Request) -> Response:
        return StreamingResponse(dripping(), media_type=media_type)

    app = Starlette(routes=[Route("/mcp", answer, methods=["POST"])])
    with Loopback(app) as loopback:
        code = main(["call", f"{loopback.url}/mcp", "read_note"])
        said = f"{loopback.url}/mcp has not come to an end within 0.2 s: correct the URL, or ask"

    assert code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_a_charset_that_decompresses_is_not_taken(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "grown"}}
    lines = f"data: {json.dumps(message)}\n\n" if "stream" in kind else json.dumps(message)

    def answer(_: Request) -> Response:
        headers = {"content-type": f"{kind}; charset=bz2"}
        return Response(bz2.compress(lines.encode()), headers=headers)

    app = Starlette(routes=[Route("/mcp", answer, methods=["POST"])])
    with Loopback(app) as loopback:
        code = main(["call", f"{loopback.url}/mcp", "read_note"])

    assert code == 1
    assert "grown" not in capsys.readouterr().err


def test_an_answer_that_would_grow_is_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    bomb = gzip.compress(b" " * 64 * 1024 * 1024)

    def answer(_: Request) -> Response:
        return Response(bomb, headers={"content-encoding": "gzip"}, media_type="application/json")

    app = Starlette(routes=[Route("/mcp", answer, methods=["POST"])])
    with Loopback(app) as loopback:
        code = main(["call", f"{loopback.url}/mcp", "read_note"])

    assert code == 2
    assert "sends a compressed answer, which was not accepted" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with Loopback() as loopback:
        url = f"{loopback.url}/mcp"

    code = main(["call", url, "read_note"])

    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"toolguard call: {url} does not answer (")
    assert said.endswith("): start the server, or correct the URL\n")


def test_the_scopes_of_a_connection_come_along(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, told = call(one, capsys, "read_note", '{"name": "a"}', "--as", "alice")

    assert f"{READ} {FETCH}" in told


def test_a_server_that_names_another_path_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as running:
        listener = running.enter_context(Loopback())
        world = builtin_world().with_resources(listener.url)
        on = running.enter_context(run_services(world, running.enter_context(Store())))
        well_known_url = on.server.well_known_url
        guard = ToolGuard(
            well_known_url=well_known_url,
            audience=listener.url,
            connections=DescopeConnections(well_known_url),
        )
        listener.start(LINES[0].http_app(served_by(LINES[0], guard)))
        origin, url = listener.url, f"{listener.url}/mcp"

        main(["call", url, "read_note", '{"name": "a"}', "--as", "alice"])

    told = f"the server says that it is {origin}: set its MCP_SERVER_URL to {url}"
    assert told in capsys.readouterr().err


def test_another_name_of_the_server_is_corrected(
    one: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Served(one.line, one.issuer, one.url.replace("127.0.0.1", "localhost"), one.revision)

    code, _, told = call(other, capsys, "read_note", "--as", "alice")

    assert code == 2
    assert "which is another server: call it at the URL that its guard has" in told
