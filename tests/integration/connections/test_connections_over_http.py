"""What does a client get when a connection cannot be had, and the tool when it can?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import anyio
import httpx
import pytest

from support.calendar_server import calendar
from support.lines import (
    LEGACY_PROTOCOLS,
    MODERN_PROTOCOL,
    MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
)
from support.wire import Caller, Reply
from toolguard import (
    Connection,
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequest,
    ConnectionRequiredError,
    ConnectionUnavailableError,
    requires_scopes,
    with_connection,
)
from toolguard.testing import LocalIssuer, Loopback

CONNECT_URL = "https://vault.test/connect/alice"
SECRET = "ya29.secret"

# For each connection that fails: what the provider raises, and what the client is told.
FAILURES: Mapping[str, tuple[Exception, dict[str, Any]]] = {
    "unconnected": (
        ConnectionRequiredError(
            "Connect your calendar first", connection="unconnected", connect_url=CONNECT_URL
        ),
        {
            "error": "connection_required",
            "error_description": "Connect your calendar first",
            "connection": "unconnected",
            "connect_url": CONNECT_URL,
        },
    ),
    "unreachable": (
        ConnectionUnavailableError("Try again in a moment", connection="unreachable"),
        {
            "error": "connection_unavailable",
            "error_description": "Try again in a moment",
            "connection": "unreachable",
        },
    ),
    "denied": (
        ConnectionDeniedError("Ask your administrator", connection="denied"),
        {
            "error": "connection_denied",
            "error_description": "Ask your administrator",
            "connection": "denied",
        },
    ),
    "limited": (
        ConnectionRateLimitedError("Too many calls", connection="limited", retry_after=30),
        {
            "error": "connection_rate_limited",
            "error_description": "Too many calls",
            "connection": "limited",
            "retry_after": 30,
        },
    ),
    "broken": (
        RuntimeError(f"cannot decode {SECRET}"),
        {
            "error": "connection_response",
            "error_description": "The provider of broken failed",
            "connection": "broken",
        },
    ),
}


class _Vault:
    """A provider that fails by name, and keeps who asked for what."""

    def __init__(self) -> None:
        self.requests: list[ConnectionRequest] = []
        self.calendar_asked = anyio.Event()
        self.mail_asked = anyio.Event()

    async def fetch(self, request: ConnectionRequest) -> Connection:
        self.requests.append(request)
        if request.name in FAILURES:
            raise FAILURES[request.name][0]
        # Each of the two waits until the other has been asked for: one after the other never ends.
        mine, other = self.calendar_asked, self.mail_asked
        if request.name == "mail":
            mine, other = other, mine
        mine.set()
        with anyio.fail_after(10):
            await other.wait()
        return Connection(f"{request.name} of {request.principal.user_id}")


class _Desk:
    """A server with a tool for every failure, and one for two connections at once."""

    def __init__(self, line: Line) -> None:
        self.vault = _Vault()
        self.ran: list[str] = []
        self.server = line.server("desk")
        for name in FAILURES:
            self._add_failing(name)

        @self.server.tool()
        @requires_scopes("desk")
        @with_connection("calendar", scopes=["events"], as_="calendar_token")
        @with_connection("mail", as_="mail")
        async def merge(*, calendar_token: str, mail: Connection) -> str:
            return f"{calendar_token}, {mail.token}"

    def _add_failing(self, name: str) -> None:
        @self.server.tool(name=name)
        @requires_scopes("desk")
        @with_connection(name)
        async def failing(*, connection_token: str) -> str:
            self.ran.append(connection_token)
            return "ran"


@pytest.fixture(scope="module")
def desks() -> dict[str, _Desk]:
    """The desks that are being served."""
    return {}


@pytest.fixture
def desk(mode: Mode, desks: dict[str, _Desk]) -> _Desk:
    """One desk for each mode."""
    return desks.setdefault(str(mode), _Desk(mode.line))


@pytest.fixture
def clerk(
    mode: Mode,
    desk: _Desk,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> Caller:
    """Call the desk, with every scope."""

    def app() -> Any:
        return mode.app(guarding(connections=desk.vault).protect(desk.server))

    url = serve_once(("desk", str(mode)), app) + "/mcp"
    return Caller(http, url, mode.protocol, token=issuer.mint("alice", scopes=["desk"]))


def _opened(mode: Mode, clerk: Caller) -> Caller:
    if mode.has_sessions:
        assert clerk.open().status == 200
    return clerk


@pytest.mark.parametrize("connection", FAILURES)
def test_a_missing_connection_is_a_tool_error_for_the_model(
    mode: Mode, desk: _Desk, clerk: Caller, connection: str
) -> None:
    reply = _opened(mode, clerk).call(connection)

    assert json.loads(reply.tool_error) == FAILURES[connection][1]
    assert (reply.challenge, reply.meta_challenges) == (None, [])
    assert SECRET not in reply.content
    assert desk.ran == []


def test_connections_are_asked_for_only_once_the_call_is_allowed(
    mode: Mode, desk: _Desk, clerk: Caller, issuer: LocalIssuer
) -> None:
    clerk.token = issuer.mint("alice")
    desk.vault.requests.clear()

    assert _opened(mode, clerk).call("unconnected").status == 403
    assert desk.vault.requests == []


def test_two_connections_are_fetched_at_once_for_the_caller(
    mode: Mode, desk: _Desk, clerk: Caller
) -> None:
    desk.vault.requests.clear()
    reply = _opened(mode, clerk).call("merge")

    assert reply.value == "calendar of alice, mail of alice"
    asked = sorted(desk.vault.requests, key=lambda request: request.name)
    assert [(each.name, each.scopes) for each in asked] == [("calendar", ("events",)), ("mail", ())]
    assert {each.access_token for each in asked} == {clerk.token}
    assert {each.principal.user_id for each in asked} == {"alice"}


ASKED_IN_A_SESSION = [m for m in MODES if m.has_sessions and m.protocol == LEGACY_PROTOCOLS[-1]]
ASKED_IN_A_RESULT = [m for m in MODES if m.protocol == MODERN_PROTOCOL]
CAN_OPEN_URLS: Mapping[str, Any] = {"elicitation": {"url": {}}}


def _ask(mode: Mode, clerk: Caller) -> Reply:
    clerk.capabilities = dict(CAN_OPEN_URLS)
    return _opened(mode, clerk).call("unconnected")


@pytest.mark.parametrize("mode", ASKED_IN_A_SESSION, ids=str)
def test_a_client_that_can_open_urls_is_asked_to_by_an_error(
    mode: Mode, desk: _Desk, clerk: Caller
) -> None:
    error = _ask(mode, clerk).body["error"]

    assert error["code"] == -32042
    (question,) = error["data"]["elicitations"]
    assert (question["mode"], question["url"]) == ("url", CONNECT_URL)
    assert question["message"] == "Connect your calendar first"
    assert question["elicitationId"]
    assert desk.ran == []


@pytest.mark.parametrize("mode", ASKED_IN_A_RESULT, ids=str)
def test_a_client_that_can_open_urls_is_asked_to_by_an_input_request(
    mode: Mode, desk: _Desk, clerk: Caller
) -> None:
    result = _ask(mode, clerk).result

    assert result["resultType"] == "input_required"
    (question,) = result["inputRequests"].values()
    assert question["method"] == "elicitation/create"
    assert question["params"]["url"] == CONNECT_URL
    assert question["params"]["mode"] == "url"
    assert desk.ran == []


@pytest.mark.parametrize("action", ["decline", "cancel", "accept"])
@pytest.mark.parametrize("mode", ASKED_IN_A_RESULT, ids=str)
def test_who_has_answered_and_is_not_connected_is_told_instead_of_asked_again(
    mode: Mode, desk: _Desk, clerk: Caller, action: str
) -> None:
    (key,) = _ask(mode, clerk).result["inputRequests"]
    answer = {"name": "unconnected", "arguments": {}, "inputResponses": {key: {"action": action}}}
    reply = clerk.send("tools/call", answer)

    assert json.loads(reply.tool_error)["connect_url"] == CONNECT_URL
    assert desk.ran == []


def test_who_connects_and_tries_again_is_served_at_once(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    connected: list[str] = []

    async def vault(request: ConnectionRequest) -> Connection:
        if request.principal.user_id not in connected:
            raise ConnectionRequiredError("Connect it", connection=request.name)
        return Connection("token")

    server = line.server("desk")

    @server.tool()
    @with_connection("mail")
    async def send(*, user_id: str, connection_token: str) -> str:
        return f"{user_id} sent with {connection_token}"

    app = line.http_app(guarding(connections=vault).protect(server), stateless=True)
    url = serve(app) + "/mcp"
    alice, bob = (Caller(http, url, token=issuer.mint(user)) for user in ("alice", "bob"))
    assert "Connect it" in alice.call("send").tool_error
    connected.append("alice")

    assert alice.call("send").value == "alice sent with token"
    assert "Connect it" in bob.call("send").tool_error


def test_what_a_provider_keeps_open_is_closed_with_the_application(
    line: Line, guarding: Guarding
) -> None:
    closed: list[str] = []

    class Pool:
        async def fetch(self, _: ConnectionRequest) -> Connection:
            return Connection("token")

        async def aclose(self) -> None:
            closed.append("pool")

    app = line.http_app(guarding(connections=Pool()).protect(calendar(line)), stateless=True)
    with Loopback(app):
        assert closed == []

    assert closed == ["pool"]
