"""Does the example guard a server that knows nothing of it, and get in nobody's way?"""

from __future__ import annotations

import functools
import importlib.util
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from support.lines import MODES, Line, Mode, Serve, Server
from support.wire import Caller, message
from toolguard.testing import LocalIssuer, Loopback

PROXY = Path(__file__).parents[3] / "examples" / "reverse_proxy" / "proxy.py"
WAIT = 10


@dataclass(frozen=True)
class Front:
    """The proxy, as its clients know it."""

    url: str
    issuer: LocalIssuer

    @property
    def headers(self) -> dict[str, str]:
        """What a caller sends."""
        return {"authorization": f"Bearer {self.issuer.mint('alice')}"}


Behind = Callable[..., Front]
"""Serves an application, and the proxy in front of it."""


def proxy_app(*, with_rules: bool) -> Any:
    """Load the example anew: its guard and its client belong to one server."""
    spec = importlib.util.spec_from_file_location("reverse_proxy", PROXY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # Without rules, what the proxy itself does with all that HTTP can bring.
    return module.app if with_rules else module.guard.asgi(module.proxy)


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A client of this test's own: it keeps cookies."""
    with httpx.Client(timeout=WAIT) as client:
        yield client


@pytest.fixture
def behind(
    serve: Serve, stop: Callable[[Loopback], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Behind]:
    with ExitStack() as stack:

        def proxied(app: Any, *, with_rules: bool = False) -> Front:
            front, authority = Loopback(), Loopback()
            for each in (front, authority):
                stack.callback(stop, each)
            issuer = LocalIssuer(authority.url, audience=f"{front.url}/mcp", algorithm="ES256")
            authority.start(issuer.app)
            monkeypatch.setenv("TOOLGUARD_ISSUER", issuer.issuer)
            monkeypatch.setenv("MCP_SERVER_URL", issuer.audience)
            monkeypatch.setenv("UPSTREAM_URL", serve(app) if app is not None else NOBODY)
            front.start(proxy_app(with_rules=with_rules))
            return Front(front.url, issuer)

        yield proxied


#: Where nobody listens: a port that needs privileges nobody here has.
NOBODY = "http://127.0.0.1:1"


class Recorder:
    """Notes the headers of every request that reaches an application."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.scopes.append({**scope, "headers": list(scope["headers"])})
        await self.app(scope, receive, send)

    @property
    def names(self) -> set[str]:
        """The names of all headers that came."""
        return {name.decode() for scope in self.scopes for name, _ in scope["headers"]}


# --- in front of the servers of every framework line


def notes(line: Line, heard: threading.Event) -> Server:
    """Return an unguarded server."""
    server = line.server("notes")

    async def summarize(ctx: Any) -> str:
        await ctx.report_progress(1, 2)
        assert await anyio.to_thread.run_sync(heard.wait, WAIT), "nobody has heard of it"
        return "done"

    summarize.__annotations__["ctx"] = line.context
    server.tool()(summarize)

    @server.tool()
    def greet(name: str) -> str:
        return f"hello {name}"

    @server.tool()
    def delete_note(note_id: str) -> str:
        return f"deleted {note_id}"

    return server


def caller_of(front: Front, mode: Mode, http: httpx.Client) -> Caller:
    caller = Caller(http, f"{front.url}/mcp", mode.protocol, token=front.issuer.mint("alice"))
    if mode.has_sessions:
        assert caller.open().status == 200
    return caller


def test_a_server_is_guarded_that_knows_nothing_of_it(
    mode: Mode, behind: Behind, http: httpx.Client
) -> None:
    server = Recorder(mode.app(notes(mode.line, threading.Event())))
    front = behind(server)

    stranger = Caller(http, f"{front.url}/mcp", mode.protocol)
    refused = stranger.call("greet", {"name": "Bob"})
    assert (refused.status, server.scopes) == (401, [])
    assert refused.challenge is not None
    assert f'resource_metadata="{front.url}/.well-known/' in refused.challenge

    alice = caller_of(front, mode, http)
    assert alice.call("greet", {"name": "Alice"}).value == "hello Alice"
    assert {*alice.tools()} == {"greet", "summarize", "delete_note"}
    assert len(server.scopes) >= 2
    assert "authorization" not in server.names


def test_the_rules_by_name_are_decided_before_the_server_hears_of_a_call(
    mode: Mode, behind: Behind, http: httpx.Client
) -> None:
    server = Recorder(mode.app(notes(mode.line, threading.Event())))
    front = behind(server, with_rules=True)
    alice = caller_of(front, mode, http)
    heard = len(server.scopes)

    refused = alice.call("delete_note", {"note_id": "1"})
    assert (refused.status, len(server.scopes)) == (403, heard)
    assert 'error="insufficient_scope", scope="notes.write"' in str(refused.challenge)
    assert alice.call("greet", {"name": "Alice"}).value == "hello Alice"

    alice.token = front.issuer.mint("alice", scopes=["notes.write"])
    assert alice.call("delete_note", {"note_id": "1"}).value == "deleted 1"


@pytest.mark.parametrize("mode", [m for m in MODES if not m.json], ids=str)
def test_progress_arrives_before_the_tool_has_finished(
    mode: Mode, behind: Behind, http: httpx.Client
) -> None:
    heard = threading.Event()
    front = behind(mode.app(notes(mode.line, heard)), with_rules=True)
    caller = caller_of(front, mode, http)
    params = {"name": "summarize", "arguments": {}, "_meta": {"progressToken": "p"}}
    body = message(caller.protocol, "tools/call", params)
    events = []

    with http.stream("POST", caller.endpoint, json=body, headers=caller.headers(body)) as response:
        for row in response.iter_lines():
            if row.startswith("data:") and row[5:].strip():
                events.append(json.loads(row[5:]))
                heard.set()

    assert [event.get("method") for event in events] == ["notifications/progress", None]
    assert events[1]["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize("mode", [m for m in MODES if m.has_sessions and m.json], ids=str)
def test_a_session_belongs_to_who_opened_it(mode: Mode, behind: Behind, http: httpx.Client) -> None:
    front = behind(mode.app(notes(mode.line, threading.Event())))
    alice = caller_of(front, mode, http)

    bob = Caller(http, alice.endpoint, mode.protocol, token=front.issuer.mint("bob"))
    bob.session = alice.session

    assert bob.call("greet", {"name": "Bob"}).status == 404
    assert alice.call("greet", {"name": "Alice"}).value == "hello Alice"


# --- in front of a server that shows what it gets


async def say(send: Send, content: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class Echo:
    """Answers with what it got: method, target, headers and body."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            got: Message = await receive()
            body += got.get("body", b"")
            more = got.get("more_body", False)
        shown = {
            "method": scope["method"],
            "target": (scope["raw_path"] + b"?" + scope["query_string"]).decode(),
            "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
            "body": body.decode(),
        }
        await say(send, json.dumps(shown).encode(), *ANSWERED)


ANSWERED = (
    (b"content-type", b"application/json"),
    (b"set-cookie", b"upstream=alice"),
    (b"set-cookie", b"another=one"),
    (b"mcp-session-id", b"s-1"),
    (b"connection", b"keep-alive, X-Hop"),
    (b"keep-alive", b"timeout=5"),
    (b"x-hop", b"secret"),
    (b"x-accel-buffering", b"no"),
)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
def test_the_callers_token_stays_here(method: str, behind: Behind, http: httpx.Client) -> None:
    front = behind(Echo())
    sent = {**front.headers, "proxy-authorization": "Basic YTpi", "mcp-session-id": "s-1"}
    http.post(front.url + "/mcp", headers=front.headers)  # which opens the session

    answer = http.request(method, front.url + "/mcp", headers=sent)

    assert (answer.status_code, answer.json()["method"]) == (200, method)
    assert not {name for name, _ in answer.json()["headers"]} & {
        "authorization",
        "proxy-authorization",
    }
    assert front.headers["authorization"][:30] not in answer.text


def test_headers_about_one_connection_end_with_it(behind: Behind, http: httpx.Client) -> None:
    front = behind(Echo())
    sent = {
        **front.headers,
        "connection": "keep-alive, X-Mine , x-other",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "x-mine": "1",
        "x-other": "2",
        "mcp-method": "tools/list",
        "mcp-protocol-version": "2026-07-28",
        "accept-encoding": "identity",
        "user-agent": "a client",
    }

    answer = http.post(front.url + "/mcp", headers=sent, content=b"{}")

    got = dict(answer.json()["headers"])
    host = got.pop("host")
    assert host != front.url.removeprefix("http://")
    assert got == {
        "accept": "*/*",
        "accept-encoding": "identity",
        "content-length": "2",
        "mcp-method": "tools/list",
        "mcp-protocol-version": "2026-07-28",
        "user-agent": "a client",
    }
    assert answer.headers.get_list("set-cookie") == ["upstream=alice", "another=one"]
    assert answer.headers["mcp-session-id"] == "s-1"
    assert answer.headers["x-accel-buffering"] == "no"
    assert not {"x-hop", "keep-alive"} & {*answer.headers}
    assert len(answer.headers.get_list("date")) == 1


def test_what_was_asked_for_arrives_as_it_was_sent(behind: Behind, http: httpx.Client) -> None:
    front = behind(Echo())
    target = "/mcp/a%2Fb/%C3%A9?q=a%26b&q=2"

    answer = http.post(front.url + target, headers=front.headers, content="caf\u00e9".encode())

    assert answer.json()["target"] == target
    assert answer.json()["body"] == "caf\u00e9"


def test_a_method_without_a_body_gets_none(behind: Behind, http: httpx.Client) -> None:
    front = behind(Echo())

    answer = http.request("DELETE", front.url + "/mcp", headers=front.headers, content=b"hidden")

    assert answer.json()["body"] == ""
    assert "content-length" not in dict(answer.json()["headers"])


def test_one_callers_cookies_are_not_anothers(behind: Behind, http: httpx.Client) -> None:
    front = behind(Echo())

    for _ in range(2):
        answer = http.post(front.url + "/mcp", headers=front.headers)
        assert "cookie" not in dict(answer.json()["headers"])
        http.cookies.clear()


def test_where_no_server_answers_the_client_is_told(behind: Behind, http: httpx.Client) -> None:
    front = behind(None)

    answer = http.post(front.url + "/mcp", headers=front.headers, content=b"{}")

    assert (answer.status_code, answer.json()) == (502, {"error": "bad_gateway"})


def test_what_the_server_says_no_to_is_said_to_the_client(
    behind: Behind, http: httpx.Client
) -> None:
    async def grumpy(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await say(send, b"no", (b"content-type", b"text/plain"), status=405)

    front = behind(grumpy)
    answer = http.get(front.url + "/mcp", headers=front.headers)

    assert (answer.status_code, answer.text) == (405, "no")


def test_a_body_is_passed_on_while_it_is_being_sent(behind: Behind, http: httpx.Client) -> None:
    arrived = threading.Event()

    async def hearing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            body, more = b"", True
            while more:
                got = await receive()
                body += got["body"]
                more = got["more_body"]
                arrived.set()
            await say(send, body)

    def pieces() -> Iterator[bytes]:
        yield b"first "
        assert arrived.wait(WAIT), "the first piece was kept until the last"
        yield b"second"

    front = behind(hearing)
    answer = http.post(front.url + "/mcp", headers=front.headers, content=pieces())

    assert answer.text == "first second"


class Endless:
    """Says something, or nothing, and waits for its client to go away."""

    def __init__(self, *, silent: bool) -> None:
        self.silent = silent
        self.begun = threading.Event()
        self.asked = threading.Event()
        self.left = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/event-stream")]
        if not self.silent:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            first = {"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True}
            await send(first)
        while (got := await receive())["type"] != "http.disconnect":
            self.begun.set()
            if not got.get("more_body", False):
                self.asked.set()
        self.left.set()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_leaves_a_stream_leaves_the_server(
    method: str, behind: Behind, http: httpx.Client
) -> None:
    server = Endless(silent=False)
    front = behind(server)

    with http.stream(method, front.url + "/mcp", headers=front.headers) as answer:
        lines = answer.iter_lines()  # which closes the stream when nobody knows it any more
        assert next(lines) == "data: 1"
        assert not server.left.is_set()

    assert server.left.wait(WAIT)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_does_not_wait_for_an_answer_leaves_the_server(
    method: str, behind: Behind
) -> None:
    server = Endless(silent=True)
    front = behind(server)

    async def ask_and_leave() -> None:
        async with httpx.AsyncClient(timeout=WAIT) as http, anyio.create_task_group() as group:
            ask = functools.partial(http.request, headers=front.headers)
            group.start_soon(ask, method, front.url + "/mcp")
            assert await anyio.to_thread.run_sync(server.asked.wait, WAIT)
            group.cancel_scope.cancel()

    anyio.run(ask_and_leave)

    assert server.left.wait(WAIT)


def test_half_a_body_does_not_become_a_whole_one(behind: Behind) -> None:
    server = Endless(silent=True)
    front = behind(server)

    async def half() -> AsyncIterator[bytes]:
        yield b'{"jsonrpc": "2.0"}'
        await anyio.sleep_forever()

    async def begin_and_leave() -> None:
        async with httpx.AsyncClient(timeout=WAIT) as http, anyio.create_task_group() as group:
            ask = functools.partial(http.post, headers=front.headers, content=half())
            group.start_soon(ask, front.url + "/mcp")
            assert await anyio.to_thread.run_sync(server.begun.wait, WAIT)
            group.cancel_scope.cancel()

    anyio.run(begin_and_leave)

    assert server.left.wait(WAIT)
    assert not server.asked.is_set()
