"""What becomes of a refusal once the tool has said something?"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest

from support.lines import (
    LEGACY_PROTOCOLS,
    MODERN_PROTOCOL,
    MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
    Server,
)
from support.wire import Caller, message
from toolguard import AccessDeniedError, InsufficientScopeError, requires_auth, requires_scopes
from toolguard.testing import LocalIssuer

BODY = {
    "error": "insufficient_scope",
    "scope": "drive.read drive.file",
    "error_description": "Token missing required scopes: drive.file",
    "missing_scopes": ["drive.file"],
    "token_scopes": ["drive.read"],
    "required_scopes": ["drive.read", "drive.file"],
}
CHALLENGE = (
    'Bearer error="insufficient_scope", scope="drive.read drive.file", '
    'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp", '
    'error_description="Token missing required scopes: drive.file"'
)


def _drive(line: Line, heard: threading.Event) -> Server:
    """Return a server whose tools refuse from their bodies, some after they were heard."""
    server = line.server("drive")

    def tool(function: Any) -> None:
        function.__annotations__["ctx"] = line.context
        server.tool()(requires_auth(function))

    async def refuse_at_once(ctx: Any) -> str:
        raise InsufficientScopeError(["drive.read", "drive.file"], token_scopes=["drive.read"])

    async def refuse_after_progress(ctx: Any) -> str:
        await ctx.report_progress(1, 2)
        await anyio.to_thread.run_sync(heard.wait, 10)
        raise InsufficientScopeError(["drive.read", "drive.file"], token_scopes=["drive.read"])

    async def refuse_after_log(ctx: Any) -> str:
        await ctx.info("half way")
        await anyio.to_thread.run_sync(heard.wait, 10)
        raise InsufficientScopeError(["drive.read", "drive.file"], token_scopes=["drive.read"])

    async def deny_after_progress(ctx: Any) -> str:
        await ctx.report_progress(1, 2)
        await anyio.to_thread.run_sync(heard.wait, 10)
        raise AccessDeniedError("This file is locked")

    async def succeed_after_progress(ctx: Any) -> str:
        await ctx.report_progress(1, 2)
        await anyio.to_thread.run_sync(heard.wait, 10)
        return "done"

    for function in (
        refuse_at_once,
        refuse_after_progress,
        refuse_after_log,
        deny_after_progress,
        succeed_after_progress,
    ):
        tool(function)
    return server


class _Listener:
    """A caller that tells the tool when the first event has arrived."""

    def __init__(self, caller: Caller, heard: threading.Event) -> None:
        self.caller = caller
        self.heard = heard

    def call(self, tool: str) -> tuple[int, list[dict[str, Any]]]:
        params = {"name": tool, "arguments": {}, "_meta": {"progressToken": "p"}}
        body = message(self.caller.protocol, "tools/call", params)
        headers = self.caller.headers(body)
        events = []
        with self.caller.http.stream(
            "POST", self.caller.endpoint, json=body, headers=headers
        ) as response:
            for row in response.iter_lines():
                if row.startswith("data:") and row[5:].strip():
                    events.append(json.loads(row[5:]))
                    self.heard.set()
        return response.status_code, events


@pytest.fixture(scope="module")
def heard() -> threading.Event:
    """Set when the caller has got the first event."""
    return threading.Event()


@pytest.fixture
def listener(
    mode: Mode,
    heard: threading.Event,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> _Listener:
    heard.clear()
    key = ("drive", mode.line.name, mode.stateless, mode.json)
    url = serve_once(key, lambda: mode.app(guarding().protect(_drive(mode.line, heard)))) + "/mcp"
    caller = Caller(http, url, mode.protocol, token=issuer.mint("alice"))
    if mode.has_sessions:
        assert caller.open().status == 200
    return _Listener(caller, heard)


streaming = pytest.mark.parametrize("mode", [m for m in MODES if not m.json], ids=str)
silent = pytest.mark.parametrize("mode", [m for m in MODES if m.json], ids=str)


@streaming
def test_after_progress_a_missing_scope_is_a_tool_error_with_the_challenge(
    listener: _Listener,
) -> None:
    status, (progress, answer) = listener.call("refuse_after_progress")

    assert status == 200
    assert progress["method"] == "notifications/progress"
    assert answer["result"]["isError"] is True
    assert json.loads(answer["result"]["content"][0]["text"]) == BODY
    assert answer["result"]["_meta"]["mcp/www_authenticate"] == [CHALLENGE]


# mcp 2 warns about ctx.info(), whatever the revision of the client: SEP-2577.
@pytest.mark.filterwarnings("ignore:The logging capability is deprecated as of 2026-07-28")
@pytest.mark.parametrize(
    "mode", [m for m in MODES if not m.json and m.protocol != MODERN_PROTOCOL], ids=str
)
def test_after_a_log_message_a_missing_scope_is_a_tool_error(listener: _Listener) -> None:
    status, (log, answer) = listener.call("refuse_after_log")

    assert (status, log["method"]) == (200, "notifications/message")
    assert json.loads(answer["result"]["content"][0]["text"]) == BODY
    assert answer["result"]["_meta"]["mcp/www_authenticate"] == [CHALLENGE]


@streaming
def test_after_progress_a_denial_is_a_tool_error_without_a_challenge(listener: _Listener) -> None:
    status, (_, answer) = listener.call("deny_after_progress")

    assert status == 200
    assert json.loads(answer["result"]["content"][0]["text"]) == {
        "error": "access_denied",
        "error_description": "This file is locked",
    }
    assert "mcp/www_authenticate" not in answer["result"].get("_meta", {})


@streaming
def test_progress_streams_while_the_tool_runs(listener: _Listener) -> None:
    status, (progress, answer) = listener.call("succeed_after_progress")

    assert (status, progress["method"]) == (200, "notifications/progress")
    assert answer["result"]["content"][0]["text"] == "done"


@streaming
def test_the_same_refusal_before_anything_was_sent_is_a_403(listener: _Listener) -> None:
    reply = listener.caller.call("refuse_at_once")

    assert (reply.status, reply.challenge, reply.body) == (403, CHALLENGE, BODY)


@silent
def test_where_nothing_is_streamed_the_refusal_is_always_a_403(listener: _Listener) -> None:
    listener.heard.set()
    reply = listener.caller.call("refuse_after_progress", progressToken="p")

    assert (reply.status, reply.challenge, reply.body) == (403, CHALLENGE, BODY)


@pytest.fixture
def opened(serve: Serve, http: httpx.Client, issuer: LocalIssuer) -> Callable[[Any, str], Caller]:
    """Serve an application and open a session on it."""

    def open_session(app: Any, protocol: str) -> Caller:
        caller = Caller(http, serve(app) + "/mcp", protocol, token=issuer.mint("alice"))
        assert caller.open().status == 200
        return caller

    return open_session


class _Events:
    """Keeps the events of each stream in the order in which they came."""

    def __init__(self) -> None:
        self._kept: list[tuple[str, str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        event_id = f"event-{len(self._kept)}"
        self._kept.append((stream_id, event_id, message))
        return event_id

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        known = {event_id: (stream, at) for at, (stream, event_id, _) in enumerate(self._kept)}
        if last_event_id not in known:
            return None
        stream, at = known[last_event_id]
        for other, event_id, kept in self._kept[at + 1 :]:
            if other == stream and kept is not None:
                await send_callback(self._event(kept, event_id))
        return stream

    @staticmethod
    def _event(message: Any, event_id: str) -> Any:
        module = importlib.import_module("mcp.server.streamable_http")
        return module.EventMessage(message, event_id)


def _resumable(line: Line, server: Any) -> Any:
    if line.family == "fastmcp":
        return server.http_app("/mcp", event_store=_Events())
    if line.modern:
        return server.streamable_http_app(event_store=_Events())
    server._event_store = _Events()
    return server.streamable_http_app()


@pytest.mark.parametrize("protocol", LEGACY_PROTOCOLS)
def test_on_a_resumable_stream_a_refusal_is_a_403_too(
    line: Line,
    protocol: str,
    heard: threading.Event,
    guarding: Guarding,
    opened: Callable[[Any, str], Caller],
) -> None:
    app = _resumable(line, guarding().protect(_gated(line, heard)))
    alice = opened(app, protocol)

    # Since 2025-11-25 such a stream begins with an event without data.
    reply = alice.call("gated")

    assert (reply.status, reply.body["missing_scopes"]) == (403, ["drive.file"])
    assert alice.call("open_to_all").value == "open"


def _gated(line: Line, heard: threading.Event) -> Server:
    server = line.server("gated")

    @server.tool()
    @requires_scopes("drive.file")
    async def gated() -> str:
        return "gated"

    @server.tool()
    @requires_auth
    async def open_to_all() -> str:
        return "open"

    @server.tool()
    @requires_auth
    async def slow() -> str:
        await anyio.to_thread.run_sync(heard.wait, 10)
        return "Alice's answer"

    return server


def _ids_of(response: httpx.Response) -> list[str]:
    """Return the ids of the events of a stream up to its first one."""
    for row in response.iter_lines():
        if row.startswith("id:"):
            return [row[3:].strip()]
    return []


@pytest.mark.parametrize("protocol", LEGACY_PROTOCOLS[-1:])
def test_a_stream_is_resumed_by_its_owner_alone(
    line: Line,
    protocol: str,
    heard: threading.Event,
    guarding: Guarding,
    opened: Callable[[Any, str], Caller],
    issuer: LocalIssuer,
) -> None:
    heard.clear()
    alice = opened(_resumable(line, guarding().protect(_gated(line, heard))), protocol)
    bob = Caller(alice.http, alice.endpoint, protocol, token=issuer.mint("bob"))
    assert bob.open().status == 200
    body = message(protocol, "tools/call", {"name": "slow", "arguments": {}})

    with alice.http.stream(
        "POST", alice.endpoint, json=body, headers=alice.headers(body)
    ) as response:
        (first,) = _ids_of(response)  # at once, as the call is permitted
    heard.set()

    def resumed(caller: Caller, event_id: str) -> tuple[int, str]:
        headers = {**caller.headers(), "last-event-id": event_id}
        with caller.http.stream("GET", caller.endpoint, headers=headers) as response:
            rows = response.iter_lines()
            text = next((row for row in rows if "answer" in row or "found" in row), "")
            return response.status_code, text

    assert first.startswith("event-") or len(first) > 40
    assert resumed(bob, first)[0] == 404
    assert resumed(bob, first.rpartition(".")[0])[0] == 404
    assert resumed(alice, first.rpartition(".")[0])[0] == 404
    status, text = resumed(alice, first)
    assert (status, "Alice's answer" in text) == (200, True)
