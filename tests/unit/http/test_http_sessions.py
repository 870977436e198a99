"""Does a stateful session serve anybody but the one it belongs to?"""

from __future__ import annotations

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from support.asgi import Exchange, Message, Receive, Scope, Send, exchange, http_scope
from support.callers import ISSUER, TOKEN, Desk, Tokens, person
from toolguard.http.middleware import GuardMiddleware

TOKENS = {
    TOKEN: person("alice", "read"),
    "refreshed": person("alice", "read", "write", expires_at=2e9),
    "bobs": person("bob"),
    "phone": person("alice", client_id="phone"),
    "elsewhere": person("alice", issuer="https://other.example"),
    "nobodys": person(None),
}
OTHERS = ["bobs", "phone", "elsewhere", "nobodys"]


class Server:
    """A stateful MCP server: opens a session for whoever brings none; counts what it serves.

    Args:
        delete_status: how it answers a DELETE.
    """

    def __init__(self, delete_status: int = 204) -> None:
        self.delete_status = delete_status
        self.opened = 0
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        session = dict(scope["headers"]).get(b"mcp-session-id")
        if session is None:
            self.opened += 1
            session = f"s{self.opened}".encode()
        status = self.delete_status if scope["method"] == "DELETE" else 200
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"mcp-session-id", session)],
        }
        await send(start)
        await send({"type": "http.response.body", "body": b"{}"})


class Site:
    """A guarded server, and whoever sends requests to it."""

    def __init__(self, *, admits_anonymous: bool = False, delete_status: int = 204) -> None:
        self.server = Server(delete_status)
        self.app = GuardMiddleware(
            self.server, Desk(Tokens(TOKENS)), admits_anonymous=lambda: admits_anonymous
        )

    def send(
        self, token: str | None = TOKEN, session: str | None = None, method: str = "POST"
    ) -> Exchange:
        return exchange(self.app, http_scope(method, token=token, session=session))

    def served(self, token: str | None = TOKEN, session: str | None = "s1") -> bool:
        """Return whether the server answered; hold that a refusal never reached it."""
        before = len(self.server.scopes)
        answer = self.send(token, session)
        reached = len(self.server.scopes) > before
        assert answer.status == (200 if reached else 401 if token is None else 404)
        return reached


def test_a_session_serves_the_principal_it_was_opened_for() -> None:
    site = Site()

    assert site.send().header("mcp-session-id") == "s1"
    assert site.served()
    assert site.served("refreshed")


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_session_of_somebody_else_looks_like_one_that_does_not_exist(
    other: str, method: str
) -> None:
    site = Site()
    site.send()

    foreign = site.send(other, "s1", method)
    unknown = site.send(other, "s99", method)

    assert foreign.messages == unknown.messages
    assert foreign.status == 404
    assert foreign.json == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {"code": -32600, "message": "Session not found"},
    }
    assert len(site.server.scopes) == 1


def test_trying_a_session_of_somebody_else_does_not_disturb_it() -> None:
    site = Site()
    site.send()
    for other in OTHERS:
        site.send(other, "s1")

    assert site.served()


def test_an_unknown_session_is_not_found_even_for_a_good_token() -> None:
    assert not Site().served(session="s1")
    assert not Site().served(session="")


def test_a_token_that_names_no_user_opens_no_session() -> None:
    answer = Site().send("nobodys")

    assert answer.status == 403
    assert answer.header("mcp-session-id") is None
    assert answer.refusal == {
        "error": "access_denied",
        "error_description": (
            "This token names no user, so it cannot own a session: use a stateless server"
        ),
    }


def test_a_session_that_nobody_can_own_is_ended_at_once() -> None:
    site = Site()
    site.send("nobodys")

    opened, ended = site.server.scopes
    assert (opened["method"], ended["method"]) == ("POST", "DELETE")
    assert dict(ended["headers"])[b"mcp-session-id"] == b"s1"


def test_a_stream_for_a_token_that_names_no_user_opens_no_session_either() -> None:
    assert Site().send("nobodys", method="GET").status == 403


# --- DELETE


def test_a_deleted_session_is_forgotten() -> None:
    site = Site()
    site.send()

    assert site.send(session="s1", method="DELETE").status == 204
    assert not site.served()


def test_a_session_whose_deletion_the_server_refused_goes_on() -> None:
    site = Site(delete_status=405)
    site.send()

    assert site.send(session="s1", method="DELETE").status == 405
    assert site.served()


# --- anonymous sessions


def test_an_anonymous_session_serves_anonymous_callers() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)

    assert site.served(None)
    assert site.served(None)


def test_an_anonymous_session_becomes_that_of_the_first_caller_who_signs_in() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)

    assert site.served(TOKEN)
    assert not site.served(None)
    assert not site.served("bobs")
    assert not site.served("phone")
    assert site.served("refreshed")


def test_a_token_without_user_does_not_take_an_anonymous_session() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)

    assert not site.served("nobodys")
    assert site.served(None)


def test_nobody_listens_on_an_anonymous_session() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)

    answer = site.send(None, "s1", "GET")

    assert answer.status == 405
    assert answer.header("allow") == "POST, DELETE"
    assert len(site.server.scopes) == 1


def test_whoever_signed_in_may_listen() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)
    site.send(TOKEN, "s1")

    assert site.send(TOKEN, "s1", "GET").status == 200
    assert site.send(None, "s1", "GET").status == 401


def test_an_anonymous_caller_may_end_an_anonymous_session_and_no_other() -> None:
    site = Site(admits_anonymous=True)
    site.send(None)
    site.send(TOKEN)

    assert site.send(None, "s1", "DELETE").status == 204
    assert site.send(None, "s2", "DELETE").status == 401
    assert site.served(TOKEN, "s2")


# --- what the SDK is told of the caller


def test_the_sdk_knows_the_caller_by_subject_and_issuer() -> None:
    site = Site()
    site.send()

    user = site.server.scopes[0]["user"]
    assert isinstance(user, AuthenticatedUser)
    token = user.access_token
    assert (token.subject, token.claims, token.client_id) == ("alice", {"iss": ISSUER}, "desktop")
    assert (token.scopes, token.expires_at) == (["read"], 1_000_060)


def test_a_user_that_the_framework_verified_is_given_the_verified_subject_and_issuer() -> None:
    site = Site()
    theirs = AuthenticatedUser(
        AccessToken(token="theirs", client_id="c", scopes=["s"], subject="mallory", claims={"a": 1})
    )
    scope = http_scope(token=TOKEN)
    scope["user"] = theirs
    exchange(site.app, scope)

    token = site.server.scopes[0]["user"].access_token
    assert (token.subject, token.claims) == ("alice", {"a": 1, "iss": ISSUER})
    assert (token.token, token.client_id, token.scopes) == ("theirs", "c", ["s"])
    assert theirs.access_token.subject == "mallory"


def test_anonymous_sessions_tell_the_sdk_of_no_later_user() -> None:
    # Its own check holds the session to whoever opened it, and that was nobody.
    site = Site(admits_anonymous=True)
    site.send(None)
    site.send(TOKEN, "s1")
    site.send(TOKEN)

    assert ["user" in scope for scope in site.server.scopes] == [False, False, True]
