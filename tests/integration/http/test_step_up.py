"""Does the official client understand a challenge, and can it step up by it?"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from mcp import ClientSession
from mcp.client.auth.utils import (
    extract_field_from_www_auth,
    extract_resource_metadata_from_www_auth,
    extract_scope_from_www_auth,
)
from mcp.client.streamable_http import streamable_http_client

from support.calendar_server import calendar
from support.lines import (
    FASTMCP_LINES,
    LEGACY_PROTOCOLS,
    MODERN_PROTOCOL,
    MODES,
    Guarding,
    Line,
    Mode,
    Serve,
)
from support.wire import Connect, asked_for
from toolguard import requires_auth, requires_roles
from toolguard.testing import LocalIssuer

METADATA_URL = "https://mcp.test/.well-known/oauth-protected-resource/mcp"


def _as_response(line: Line, status: int, header: str | None) -> Any:
    """Return a response of the HTTP library that the official client uses."""
    library = _library(line)
    return library.Response(status, headers={"www-authenticate": str(header)})


def _library(line: Line) -> Any:
    return importlib.import_module("httpx2" if line.modern else "httpx")


def test_the_official_client_reads_the_challenge_of_a_missing_scope(
    mode: Mode, caller: Connect, issuer: LocalIssuer
) -> None:
    reply = caller(issuer.mint(scopes=["calendar.read"])).call("create_event", {"title": "lunch"})
    response = _as_response(mode.line, reply.status, reply.challenge)

    assert extract_field_from_www_auth(response, "error") == "insufficient_scope"
    named = asked_for(mode.protocol, "calendar.write calendar.read contacts.read", "calendar.read")
    assert extract_scope_from_www_auth(response) == named
    assert extract_resource_metadata_from_www_auth(response) == METADATA_URL


def test_the_official_client_reads_the_challenge_of_a_missing_token(
    mode: Mode, caller: Connect
) -> None:
    reply = caller(None).call("create_event", {"title": "lunch"})
    response = _as_response(mode.line, reply.status, reply.challenge)

    assert extract_field_from_www_auth(response, "error") is None
    assert extract_scope_from_www_auth(response) == "calendar.read"
    assert extract_resource_metadata_from_www_auth(response) == METADATA_URL


def _step_up_auth(line: Line, grant: Callable[[list[str]], str], asked: list[str]) -> Any:
    """Return auth that begins with no token and asks for exactly what each challenge names."""

    class StepUp(_library(line).Auth):  # type: ignore[misc]
        token: str | None = None

        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            for _ in range(3):
                if self.token is not None:
                    request.headers["authorization"] = f"Bearer {self.token}"
                response = yield request
                scope = extract_scope_from_www_auth(response)
                if response.status_code not in (401, 403) or scope is None:
                    return
                asked.append(scope)
                self.token = grant(scope.split())

    return StepUp()


@asynccontextmanager
async def _session(mode: Mode, url: str, auth: Any) -> AsyncIterator[Any]:
    async with _library(mode.line).AsyncClient(auth=auth, timeout=10) as http:
        transport = streamable_http_client(url, http_client=http)
        if mode.protocol == MODERN_PROTOCOL:
            mcp: Any = importlib.import_module("mcp")
            async with mcp.Client(transport, mode=mode.protocol) as client:
                yield client
            return
        async with transport as streams, ClientSession(*streams[:2]) as session:
            await session.initialize()
            yield session


@pytest.mark.parametrize(
    "mode", [m for m in MODES if not m.json and m.protocol != "2025-06-18"], ids=str
)
def test_a_client_steps_up_from_nothing_to_reading_to_writing(
    mode: Mode, endpoint_of: Callable[[Mode], str], issuer: LocalIssuer
) -> None:
    asked: list[str] = []
    auth = _step_up_auth(mode.line, lambda scopes: issuer.mint("alice", scopes=scopes), asked)

    async def main() -> list[str]:
        async with _session(mode, endpoint_of(mode), auth) as client:
            results = [
                await client.call_tool("whoami", {}),
                await client.call_tool("list_events", {"day": "monday"}),
                await client.call_tool("create_event", {"title": "lunch"}),
            ]
        return [result.content[0].text for result in results]

    assert anyio.run(main) == [
        "alice",
        "monday of alice",
        "lunch by alice with google-calendar token of alice",
    ]
    every = "calendar.write calendar.read contacts.read"
    assert asked == ["calendar.read", asked_for(mode.protocol, every, "calendar.read")]


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_the_client_of_fastmcp_steps_up_just_the_same(
    line: Line, guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    client_of = importlib.import_module("fastmcp").Client
    url = serve(line.http_app(guarding().protect(calendar(line)))) + "/mcp"
    asked: list[str] = []
    auth = _step_up_auth(line, lambda scopes: issuer.mint("alice", scopes=scopes), asked)

    async def main() -> Any:
        async with client_of(url, auth=auth) as client:
            return await client.call_tool("create_event", {"title": "lunch"})

    result = anyio.run(main)
    assert result.content[0].text == "lunch by alice with google-calendar token of alice"
    # By default it speaks the newest revision that the line knows.
    newest = MODERN_PROTOCOL if line.modern else LEGACY_PROTOCOLS[-1]
    every = "calendar.write calendar.read contacts.read"
    assert asked == ["calendar.read", asked_for(newest, every, "calendar.read")]


def _office(line: Line) -> Any:
    server = line.server("office")

    @server.tool()
    @requires_roles("clerk")
    async def stamp() -> str:
        return "stamped"

    @server.tool()
    @requires_auth
    async def knock() -> str:
        return "come in"

    return server


def _error_of_requests() -> type[Exception]:
    mcp: Any = importlib.import_module("mcp")
    found: type[Exception] = getattr(mcp, "MCPError", None) or mcp.McpError
    assert issubclass(found, Exception)
    return found


@pytest.mark.parametrize("mode", [m for m in MODES if m.protocol != "2025-06-18"], ids=str)
def test_a_client_reads_a_denial_and_its_session_lives(
    mode: Mode, guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    url = serve(mode.app(guarding().protect(_office(mode.line)))) + "/mcp"
    auth = _step_up_auth(mode.line, lambda _: issuer.mint("alice"), [])
    auth.token = issuer.mint("alice")

    async def main() -> tuple[str, str]:
        async with _session(mode, url, auth) as client:
            try:
                denied = (await client.call_tool("stamp", {})).content[0].text
            except _error_of_requests() as error:
                denied = str(error)
            return denied, (await client.call_tool("knock", {})).content[0].text

    denied, knocked = anyio.run(main)
    assert "You are not allowed to do this" in denied
    assert knocked == "come in"
