"""Does the guard hold on the HTTP+SSE transport, where no call can be answered with a 403?"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client

from support.calendar_server import calendar
from support.lines import Guarding, Line, ServeOnce
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'


@pytest.fixture
def url(line: Line, guarding: Guarding, serve_once: ServeOnce) -> str:
    """Serve the calendar over HTTP+SSE."""
    app = lambda: line.sse_app(guarding().protect(calendar(line)))  # noqa: E731 - built once
    return serve_once(("sse", line.name), app)


class _Stream:
    """An event stream and the address to post to, by hand."""

    def __init__(self, http: httpx.AsyncClient, events: AsyncIterator[str], address: str) -> None:
        self._http = http
        self._events = events
        self.address = address

    async def post(self, token: str | None, method: str, params: dict[str, Any]) -> int:
        """Send a message with its own token; return the HTTP status."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        body: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
        if not method.startswith("notifications/"):
            body["id"] = 1
        return (await self._http.post(self.address, json=body, headers=headers)).status_code

    async def answer(self) -> Any:
        """Return the next message on the stream."""
        return json.loads(await anext(self._events))

    async def call(self, token: str, tool: str, arguments: dict[str, Any]) -> Any:
        """Call a tool; return the result."""
        params = {"name": tool, "arguments": arguments}
        assert await self.post(token, "tools/call", params) == 202
        return (await self.answer())["result"]


@asynccontextmanager
async def _listening(url: str, token: str) -> AsyncIterator[_Stream]:
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(timeout=10) as http,
        http.stream("GET", f"{url}/sse", headers=headers) as response,
    ):
        assert response.status_code == 200
        events = _data(response)
        stream = _Stream(http, events, url + await anext(events))
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "wire", "version": "1"},
        }
        assert await stream.post(token, "initialize", hello) == 202
        await stream.answer()
        assert await stream.post(token, "notifications/initialized", {}) == 202
        yield stream


async def _data(response: httpx.Response) -> AsyncIterator[str]:
    async for row in response.aiter_lines():
        if row.startswith("data:"):
            yield row[5:].strip()


def test_the_stream_and_the_messages_need_a_token(
    url: str, http: httpx.Client, issuer: LocalIssuer
) -> None:
    for sent in (http.get(f"{url}/sse"), http.post(f"{url}/messages/?session_id={'0' * 32}")):
        assert sent.status_code == 401
        assert sent.headers["www-authenticate"] == f'Bearer scope="calendar.read", {METADATA}'
    expired = {"authorization": f"Bearer {issuer.mint(expires_in=-600)}"}
    assert http.get(f"{url}/sse", headers=expired).json()["error"] == "invalid_token"
    document = http.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()
    assert document["resource"] == "https://mcp.test/mcp"


def test_a_token_without_a_subject_opens_no_stream(
    url: str, http: httpx.Client, issuer: LocalIssuer
) -> None:
    headers = {"authorization": f"Bearer {issuer.mint(None)}"}

    with http.stream("GET", f"{url}/sse", headers=headers) as response:
        assert response.status_code == 403
        assert json.loads(response.read())["error"] == "access_denied"


Scenario = Callable[[_Stream], Awaitable[None]]


def _run(url: str, token: str, scenario: Scenario) -> None:
    async def main() -> None:
        async with _listening(url, token) as stream:
            await scenario(stream)

    anyio.run(main)


def test_each_message_is_judged_by_its_own_token(url: str, issuer: LocalIssuer) -> None:
    reader = issuer.mint("alice", scopes=["calendar.read"])
    nothing = issuer.mint("alice")

    async def scenario(stream: _Stream) -> None:
        for _ in range(2):
            allowed = await stream.call(reader, "list_events", {"day": "monday"})
            refused = await stream.call(nothing, "list_events", {"day": "monday"})
            assert allowed["content"][0]["text"] == "monday of alice"
            assert allowed.get("isError", False) is False
            assert refused["isError"] is True
            assert json.loads(refused["content"][0]["text"]) == {
                "error": "insufficient_scope",
                "scope": "calendar.read",
                "error_description": "Token missing required scopes: calendar.read",
                "missing_scopes": ["calendar.read"],
                "token_scopes": [],
                "required_scopes": ["calendar.read"],
            }
            (challenge,) = refused["_meta"]["mcp/www_authenticate"]
            assert challenge == (
                f'Bearer error="insufficient_scope", scope="calendar.read", {METADATA}, '
                'error_description="Token missing required scopes: calendar.read"'
            )

    _run(url, nothing, scenario)


def test_a_message_without_a_good_token_is_a_401(url: str, issuer: LocalIssuer) -> None:
    alice = issuer.mint("alice")

    async def scenario(stream: _Stream) -> None:
        params = {"name": "whoami", "arguments": {}}
        assert await stream.post(None, "tools/call", params) == 401
        assert await stream.post(issuer.mint(expires_in=-600), "tools/call", params) == 401
        mine = await stream.call(alice, "whoami", {})
        assert mine["content"][0]["text"] == "alice"

    _run(url, alice, scenario)


def test_nobody_else_can_post_to_a_stream(url: str, issuer: LocalIssuer) -> None:
    alice = issuer.mint("alice")

    async def scenario(stream: _Stream) -> None:
        params = {"name": "whoami", "arguments": {}}
        assert await stream.post(issuer.mint("bob"), "tools/call", params) in (403, 404)
        mine = await stream.call(alice, "whoami", {})
        assert mine["content"][0]["text"] == "alice"

    _run(url, alice, scenario)


def test_the_official_client_is_served(line: Line, url: str, issuer: LocalIssuer) -> None:
    headers = {"authorization": f"Bearer {issuer.mint('alice')}"}

    async def main() -> str:
        async with (
            sse_client(f"{url}/sse", headers=headers) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            result = await session.call_tool("whoami", {})
            return str(result.content[0].model_dump()["text"])

    assert anyio.run(main) == "alice"
