"""What becomes of a refusal once the tool has said something?"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import httpx
import pytest
from lines import (
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
from wire import Caller, message

from toolguard import AccessDeniedError, InsufficientScopeError, requires_auth
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
    """Keeps nothing, but makes the server number its events and begin streams with one."""

    def __init__(self) -> None:
        self._ids = map(str, itertools.count())

    async def store_event(self, stream_id: str, message: Any) -> str:
        return next(self._ids)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        return None


def _resumable(line: Line, server: Any) -> Any:
    if line.family == "fastmcp":
        return server.http_app("/mcp", event_store=_Events())
    if line.modern:
        return server.streamable_http_app(event_store=_Events())
    server._event_store = _Events()
    return server.streamable_http_app()


@pytest.mark.parametrize("protocol", LEGACY_PROTOCOLS)
def test_on_a_resumable_stream_the_challenge_arrives_one_way_or_the_other(
    line: Line,
    protocol: str,
    heard: threading.Event,
    guarding: Guarding,
    opened: Callable[[Any, str], Caller],
) -> None:
    app = _resumable(line, guarding().protect(_drive(line, heard)))
    reply = opened(app, protocol).call("refuse_at_once")

    # Since 2025-11-25 such a stream begins with an empty event: too late for a 403.
    told = [reply.challenge] if reply.status == 403 else reply.meta_challenges
    assert told == [CHALLENGE]
