"""Is a call that lacks a scope refused before the framework works, and as it would be there?"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import httpx
import pytest

from support.lines import LINES, MODERN_PROTOCOL, Guarding
from toolguard import Refusals, requires_scopes, requires_tenant
from toolguard.telemetry import DecisionRecord
from toolguard.testing import LocalIssuer

# Only the SDK's server of this line is asked before the framework.
EARLY = [line for line in LINES if line.family == "sdk" and line.modern]
pytestmark = pytest.mark.skipif(not EARLY, reason="mcp 2 is not installed")

CALL = {"jsonrpc": "2.0", "id": 7, "method": "tools/call"}
PARAMS = {"name": "erase", "arguments": {"path": "/"}}
ERASE = json.dumps({**CALL, "params": PARAMS})
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN_PROTOCOL,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN_ERASE = json.dumps({**CALL, "params": {**PARAMS, "_meta": META}})
MODERN = {"mcp-protocol-version": MODERN_PROTOCOL, "mcp-method": "tools/call", "mcp-name": "erase"}

REQUESTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "plain": (ERASE, {}),
    "modern": (MODERN_ERASE, MODERN),
    "another name in the header": (MODERN_ERASE, {**MODERN, "mcp-name": "look"}),
    "no name in the header": (
        MODERN_ERASE,
        {name: value for name, value in MODERN.items() if name != "mcp-name"},
    ),
    "arguments that do not fit": (json.dumps({**CALL, "params": {"name": "erase"}}), {}),
    "unknown tool": (json.dumps({**CALL, "params": {"name": "none"}}), {}),
    "permitted tool": (json.dumps({**CALL, "params": {"name": "look", "arguments": {}}}), {}),
    "denied tool": (json.dumps({**CALL, "params": {"name": "inside", "arguments": {}}}), {}),
    "no id": (json.dumps({"jsonrpc": "2.0", "method": "tools/call", "params": PARAMS}), {}),
    "id of another kind": (json.dumps({**CALL, "id": 1.5, "params": PARAMS}), {}),
    "no version": (json.dumps({"id": 7, "method": "tools/call", "params": PARAMS}), {}),
    "name twice": (ERASE.replace('"name"', '"name": "look", "name"'), {}),
    "name that is a list": (json.dumps({**CALL, "params": {"name": ["erase"]}}), {}),
    "batch": (f"[{ERASE}]", {}),
    "other method": (json.dumps({**CALL, "method": "tools/list"}), {}),
    "not JSON": (ERASE[:-1], {}),
    "nested too deeply": ("[" * 10_000, {}),
    "large": (json.dumps({**CALL, "params": {**PARAMS, "arguments": {"path": "/" * 20_000}}}), {}),
}


class Server:
    """One guarded server, with the records of its decisions."""

    def __init__(
        self, guarding: Guarding, *, has_middleware: bool = False, **settings: Any
    ) -> None:
        self.records: list[DecisionRecord] = []
        (line,) = EARLY
        self.server: Any = line.server("files")
        self.ran: list[str] = []
        guard = guarding(on_decision=self.records.append, **settings)

        @self.server.tool()
        @requires_scopes("files.erase")
        async def erase(path: str) -> str:
            self.ran.append(path)
            return path

        @self.server.tool()
        @requires_scopes("files.read")
        async def look() -> str:
            return "seen"

        @self.server.tool()
        @requires_tenant("acme")
        async def inside() -> str:
            return "inside"

        guard.protect(self.server)
        if has_middleware:

            async def passing(context: Any, call_next: Any) -> Any:
                return await call_next(context)

            server: Any = self.server
            server.middleware.append(passing)
        self.guard = guard
        self.app = line.http_app(self.server, stateless=True, json=True)
        self.files: set[str] = set()

    def answers(
        self, token: str | None, requests: Sequence[tuple[str, Mapping[str, str]]]
    ) -> list[tuple[int, dict[str, str], str]]:
        """Return status, headers and body of each answer."""
        return asyncio.run(self._answers(token, requests))

    async def _answers(
        self, token: str | None, requests: Sequence[tuple[str, Mapping[str, str]]]
    ) -> list[tuple[int, dict[str, str], str]]:
        always = {
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            **({} if token is None else {"authorization": f"Bearer {token}"}),
        }
        found = []
        transport = httpx.ASGITransport(self.app)
        async with (
            self.app.router.lifespan_context(self.app),
            httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            sys.setprofile(self._note)
            try:
                for body, headers in requests:
                    reply = await client.post("/mcp", content=body, headers={**always, **headers})
                    found.append((reply.status_code, dict(reply.headers), reply.text))
            finally:
                sys.setprofile(None)
        self.guard.recorder.flush()
        return found

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self.files.add(frame.f_code.co_filename)

    def was_entered(self) -> bool:
        """Return whether the SDK worked on a request."""
        return any(name.endswith("streamable_http.py") for name in self.files)


def facts(records: Sequence[DecisionRecord]) -> list[DecisionRecord]:
    """Return records without the times."""
    return [replace(each, time=0.0, duration=0.0, verification=None) for each in records]


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("scopes", [(), ("files.read",)])
@pytest.mark.parametrize("who", ["bob", "a stranger"])
def test_an_early_refusal_is_the_one_of_the_framework(
    guarding: Guarding, issuer: LocalIssuer, name: str, scopes: Sequence[str], who: str
) -> None:
    token = issuer.mint("bob", scopes=scopes) if who == "bob" else None
    early, late = Server(guarding), Server(guarding, has_middleware=True)

    assert early.answers(token, [REQUESTS[name]]) == late.answers(token, [REQUESTS[name]])
    assert facts(early.records) == facts(late.records)
    assert early.ran == late.ran == []


@pytest.mark.parametrize("name", ["plain", "modern"])
def test_a_missing_scope_is_refused_before_the_framework_works(
    guarding: Guarding, issuer: LocalIssuer, name: str
) -> None:
    server = Server(guarding)
    ((status, headers, body),) = server.answers(issuer.mint("bob"), [REQUESTS[name]])

    assert status == 403
    assert 'scope="files.erase"' in headers["www-authenticate"]
    assert json.loads(body)["id"] == 7
    assert len(server.records) == 1
    assert not server.was_entered()


def test_a_server_that_hides_tools_refuses_none_early(
    guarding: Guarding, issuer: LocalIssuer
) -> None:
    server = Server(guarding, refusals=Refusals(unauthorized_tools="hide"))
    server.answers(issuer.mint("bob"), [REQUESTS["plain"]])

    assert server.was_entered()


def test_a_caller_with_every_scope_is_served_by_the_framework(
    guarding: Guarding, issuer: LocalIssuer
) -> None:
    server = Server(guarding)
    token = issuer.mint("alice", scopes=["files.erase", "files.read"])
    ((status, _, _),) = server.answers(token, [REQUESTS["plain"]])

    assert status == 200
    assert server.ran == ["/"]
