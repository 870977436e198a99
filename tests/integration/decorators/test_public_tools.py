"""What may a caller without a token do, and what becomes of them once they sign in?"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.lines import STATEFUL_MODES, Guarding, Line, Mode, ServeOnce, Server
from support.wire import Caller, Connect
from toolguard import public, requires_auth, requires_scopes
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'

stateful = pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)


def _library(line: Line) -> Server:
    server = line.server("library")

    @server.tool()
    @public
    async def opening_hours(*, user_id: str | None) -> str:
        return f"nine to five, {user_id or 'stranger'}"

    @server.tool()
    @requires_scopes("loans.write", "loans.read")
    async def borrow(title: str, *, user_id: str) -> str:
        return f"{title} to {user_id}"

    @server.tool()
    @requires_scopes("loans.read")
    async def loans(*, user_id: str) -> str:
        return f"loans of {user_id}"

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        return user_id

    @server.tool()
    async def shelves() -> str:
        return "many"

    @server.resource("library://catalogue")
    def catalogue() -> str:
        return "all the books"

    @server.resource("library://shelf/{number}")
    def shelf(number: str) -> str:
        return f"shelf {number}"

    @server.prompt()
    def recommend() -> str:
        return "recommend a book"

    return server


@pytest.fixture
def visitor(
    mode: Mode,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
) -> Connect:
    """Make callers of the library; unlike elsewhere, they may open it without a token."""

    def connected(token: str | None) -> Caller:
        key = ("library", mode.line.name, mode.stateless, mode.json)
        url = serve_once(key, lambda: mode.app(guarding().protect(_library(mode.line)))) + "/mcp"
        made = Caller(http, url, mode.protocol, token=token)
        if mode.has_sessions:
            assert made.open().status == 200
        return made

    return connected


def test_a_stranger_lists_and_calls_what_is_public(visitor: Connect) -> None:
    stranger = visitor(None)

    assert {"opening_hours", "borrow", "shelves"} <= set(stranger.tools())
    assert stranger.call("opening_hours").value == "nine to five, stranger"
    for method in ("prompts/list", "resources/list", "resources/templates/list"):
        assert stranger.send(method).status == 200


def test_a_public_tool_knows_the_caller_who_signed_in(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    alice = visitor(issuer.mint("alice"))

    assert alice.call("opening_hours").value == "nine to five, alice"


def test_a_stranger_is_told_the_scopes_of_the_very_tool(visitor: Connect) -> None:
    stranger = visitor(None)
    borrow = stranger.call("borrow", {"title": "emma"})

    assert borrow.status == 401
    assert borrow.challenge == f'Bearer scope="loans.write loans.read", {METADATA}'
    assert stranger.call("loans").challenge == f'Bearer scope="loans.read", {METADATA}'
    assert stranger.call("opening_hours").status == 200


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "shelves", "arguments": {}}),
        ("tools/call", {"name": "no_such_tool", "arguments": {}}),
        ("resources/read", {"uri": "library://catalogue"}),
        ("resources/read", {"uri": "library://shelf/7"}),
        ("prompts/get", {"name": "recommend"}),
    ],
)
def test_what_is_not_marked_public_asks_a_stranger_for_a_token(
    visitor: Connect, issuer: LocalIssuer, method: str, params: dict[str, Any]
) -> None:
    reply = visitor(None).send(method, params)

    assert reply.status == 401
    assert reply.challenge == f'Bearer scope="loans.read", {METADATA}'
    assert visitor(issuer.mint()).send(method, params).status != 401


def test_a_bad_token_is_refused_even_where_none_is_needed(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    stranger = visitor(None)
    stranger.token = issuer.mint("alice", expires_in=-600)
    reply = stranger.call("opening_hours")

    assert reply.status == 401
    assert reply.body["error"] == "invalid_token"


def test_a_caller_with_too_few_scopes_gets_a_403(visitor: Connect, issuer: LocalIssuer) -> None:
    alice = visitor(issuer.mint("alice", scopes=["loans.read"]))

    assert alice.call("borrow", {"title": "emma"}).status == 403
    assert alice.call("loans").value == "loans of alice"


@stateful
def test_a_stranger_signs_in_on_the_session_they_have(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    visit = visitor(None)

    assert visit.call("loans").status == 401
    visit.token = issuer.mint("alice", scopes=["loans.read"])
    assert visit.call("loans").value == "loans of alice"
    assert visit.call("opening_hours").value == "nine to five, alice"


@stateful
def test_a_session_once_signed_in_on_is_nobody_elses(visitor: Connect, issuer: LocalIssuer) -> None:
    visit = visitor(None)
    visit.token = issuer.mint("alice")
    assert visit.call("whoami").value == "alice"

    visit.token = issuer.mint("bob")
    assert visit.call("whoami").status == 404
    visit.token = None
    assert visit.call("opening_hours").status == 401
    visit.token = issuer.mint("alice")
    assert visit.call("whoami").value == "alice"


@stateful
def test_a_refused_sign_in_does_not_take_a_session_over(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    visit = visitor(None)
    visit.token = issuer.mint("bob", expires_in=-600)
    assert visit.call("whoami").status == 401

    visit.token = issuer.mint("alice")
    assert visit.call("whoami").value == "alice"


@stateful
def test_a_token_without_a_subject_does_not_take_a_session_over(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    visit = visitor(None)
    visit.token = issuer.mint(None, scopes=["loans.read"])
    assert visit.call("opening_hours").status in (403, 404)

    visit.token = issuer.mint("alice")
    assert visit.call("whoami").value == "alice"


@stateful
def test_a_stranger_cannot_listen_on_a_session(visitor: Connect) -> None:
    stranger = visitor(None)
    response = stranger.http.get(stranger.endpoint, headers=stranger.headers())

    assert response.status_code == 405
    assert response.headers["allow"] == "POST, DELETE"


@stateful
def test_a_stranger_does_not_get_onto_the_session_of_a_user(
    visitor: Connect, issuer: LocalIssuer
) -> None:
    alice = visitor(issuer.mint("alice"))
    stranger = Caller(alice.http, alice.endpoint, alice.protocol)
    stranger.session = alice.session

    assert stranger.call("opening_hours").status == 401
    assert stranger.send("tools/list").status == 401


def test_without_a_public_tool_a_stranger_lists_nothing(caller: Connect) -> None:
    stranger = caller(None)

    assert stranger.send("tools/list").status == 401
    assert stranger.send("ping").status == 401
