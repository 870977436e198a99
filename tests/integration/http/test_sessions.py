"""Whose session is it, and whose token counts on it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from support.calendar_server import calendar
from support.lines import LINES, STATEFUL_MODES, STATELESS_MODES, Guarding, Line, Mode, Serve
from support.wire import Caller, Connect, denied_with
from toolguard import InvalidTokenError, Principal
from toolguard.testing import LocalIssuer

stateful = pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
stateless = pytest.mark.parametrize("mode", STATELESS_MODES, ids=str)

READ = ["calendar.read"]
WRITE = ["calendar.read", "calendar.write", "contacts.read"]


def _on_session_of(owner: Caller, token: str | None) -> Caller:
    other = Caller(owner.http, owner.endpoint, owner.protocol, token=token)
    other.session = owner.session
    return other


def _statuses(caller: Caller) -> dict[str, int]:
    """Try everything that can be done with a session."""
    stream = {**caller.headers(), "accept": "text/event-stream"}
    with caller.http.stream("GET", caller.endpoint, headers=stream) as listening:
        get = listening.status_code
    return {
        "call": caller.call("whoami").status,
        "list": caller.send("tools/list").status,
        "notify": caller.send("notifications/initialized").status,
        "listen": get,
        "delete": caller.http.delete(caller.endpoint, headers=caller.headers()).status_code,
    }


NOT_FOUND = {"call": 404, "list": 404, "notify": 404, "listen": 404, "delete": 404}


@stateful
def test_each_call_is_judged_by_its_own_token(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint("alice", scopes=READ))
    seen = []
    for scopes in (READ, WRITE, READ, [], WRITE):
        alice.token = issuer.mint("alice", scopes=scopes)
        read = alice.call("list_events", {"day": "monday"})
        write = alice.call("create_event", {"title": "lunch"})
        seen.append((read.status, write.status))

    assert seen == [(200, 403), (200, 200), (200, 403), (403, 403), (200, 200)]


@stateful
def test_a_bad_token_does_not_end_the_session(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint("alice"))
    good = alice.token
    alice.token = issuer.mint("alice", expires_in=-600)

    assert alice.call("whoami").status == 401
    alice.token = good
    assert alice.call("whoami").value == "alice"


@stateful
def test_another_users_session_looks_like_none(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint("alice"))
    bob = _on_session_of(alice, issuer.mint("bob"))
    unknown = _on_session_of(alice, issuer.mint("bob"))
    unknown.session = "0123456789abcdef0123456789abcdef"

    assert _statuses(bob) == NOT_FOUND
    taken, missing = bob.call("whoami"), unknown.call("whoami")
    assert (taken.status, taken.content) == (missing.status, missing.content)
    assert taken.body["error"] == {"code": -32600, "message": "Session not found"}
    assert alice.call("whoami").value == "alice"


@stateful
def test_a_session_belongs_to_the_client_and_the_issuer_as_well(
    caller: Connect, issuer: LocalIssuer
) -> None:
    alice = caller(issuer.mint("alice"))

    assert _statuses(_on_session_of(alice, issuer.mint("alice", client_id="other"))) == NOT_FOUND
    assert alice.call("whoami").value == "alice"


@stateful
@pytest.mark.parametrize("other", [{"tenant": "t2"}, {}, {"tenant": "t1", "act": {"sub": "agent"}}])
def test_a_session_belongs_to_a_tenant_and_an_actor_as_well(
    caller: Connect, issuer: LocalIssuer, other: dict[str, Any]
) -> None:
    alice = caller(issuer.mint("alice", tenant="t1"))

    assert _statuses(_on_session_of(alice, issuer.mint("alice", **other))) == NOT_FOUND
    assert alice.call("whoami").value == "alice"


@stateful
def test_a_session_without_a_token_is_a_401(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint("alice"))
    nobody = _on_session_of(alice, None)

    assert set(_statuses(nobody).values()) == {401}
    assert alice.call("whoami").value == "alice"


@stateful
def test_the_owner_ends_a_session_for_good(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint("alice"))

    assert alice.http.delete(alice.endpoint, headers=alice.headers()).status_code in (200, 204)
    assert alice.call("whoami").status == 404


@stateful
def test_a_token_without_a_subject_cannot_own_a_session(
    mode: Mode, caller: Connect, issuer: LocalIssuer
) -> None:
    machine = caller(None)
    machine.token = issuer.mint(None, scopes=READ)
    reply = machine.open()

    assert reply.status == 403
    assert reply.challenge is None
    assert reply.body["error"] == "access_denied"
    assert machine.session is None


@pytest.mark.parametrize("line", [line for line in LINES if line.family == "sdk"], ids=str)
def test_a_refused_initialize_leaves_no_session_behind(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    room = {"max_sessions": 1}  # given to the server of mcp 1, to the app of mcp 2
    server: Any = guarding().protect(calendar(line, **({} if line.modern else room)))
    url = serve(server.streamable_http_app(**(room if line.modern else {}))) + "/mcp"

    assert Caller(http, url, token=issuer.mint(None)).open().status == 403
    # The session is ended behind the response, so the room may be free only a moment later.
    tries = (Caller(http, url, token=issuer.mint("alice")).open().status for _ in range(200))
    assert 200 in tries


@stateless
def test_a_token_without_a_subject_is_served_where_there_are_no_sessions(
    caller: Connect, issuer: LocalIssuer
) -> None:
    machine = caller(issuer.mint(None, scopes=READ))

    assert machine.call("describe").value == "none: None via test-client"
    refused = machine.call("list_events", {"day": "monday"})
    assert refused.status == denied_with(machine.protocol)
    assert refused.denial == {
        "error": "access_denied",
        "error_description": "This operation needs a user, and the token names no user",
    }


class _OpaqueTokens:
    """A verifier of one's own, for tokens that are names in a table."""

    def __init__(self, callers: Mapping[str, Mapping[str, Any]]) -> None:
        self._callers = callers

    async def verify(self, token: str) -> Principal:
        if token not in self._callers:
            raise InvalidTokenError("malformed", "Nobody knows this token")
        return Principal.from_claims({"exp": 4_000_000_000, **self._callers[token]})


def test_a_verifier_of_ones_own_owns_sessions_just_the_same(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    verifier = _OpaqueTokens(
        {
            "a": {"iss": "https://one.test", "sub": "alice"},
            "b": {"iss": "https://one.test", "sub": "bob"},
            "a2": {"iss": "https://two.test", "sub": "alice"},
            "machine": {"iss": "https://one.test", "client_id": "cron"},
        }
    )
    url = serve(line.http_app(guarding(verifier=verifier).protect(calendar(line)))) + "/mcp"
    alice = Caller(http, url, token="a")

    assert alice.open().status == 200
    assert _statuses(_on_session_of(alice, "b")) == NOT_FOUND
    assert _statuses(_on_session_of(alice, "a2")) == NOT_FOUND
    assert alice.call("whoami").value == "alice"
    assert Caller(http, url, token="machine").open().status == 403
    assert _statuses(_on_session_of(alice, "nobody")) == dict.fromkeys(NOT_FOUND, 401)


class _User:
    """A user class of one's own, as login middleware installs it."""

    is_authenticated = True
    display_name = identity = "everybody"


class _OwnUsers:
    """Middleware that puts one and the same user on every request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["user"] = _User()
        await self.app(scope, receive, send)


@pytest.mark.parametrize("around", ["app", "stack"])
def test_a_user_class_of_ones_own_does_not_open_sessions_to_others(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    around: str,
) -> None:
    app = line.http_app(guarding().protect(calendar(line)))
    if around == "stack":
        app.user_middleware.insert(0, Middleware(_OwnUsers))
    url = serve(_OwnUsers(app) if around == "app" else app) + "/mcp"
    alice = Caller(http, url, token=issuer.mint("alice"))

    assert alice.open().status == 200
    assert _statuses(_on_session_of(alice, issuer.mint("bob"))) == NOT_FOUND
    assert alice.call("whoami").value == "alice"
