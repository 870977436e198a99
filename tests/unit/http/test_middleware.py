"""What becomes of a request on its way in, and of a response on its way out?"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import pytest

from support.asgi import App, Message, Receive, Scope, Send, exchange, http_scope
from support.callers import METADATA, TOKEN, Desk, Tokens, person
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    InsufficientScopeError,
    InvalidTokenError,
    KeysUnavailableError,
    ToolGuardError,
)
from toolguard.http.door import Door, Refusals
from toolguard.http.event_ids import EventIds
from toolguard.http.middleware import GuardMiddleware
from toolguard.principal import Principal

START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}
OK: Message = {"type": "http.response.body", "body": b"data: {}", "more_body": False}


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def state_of(scope: Scope) -> RequestAuth:
    state = scope[SCOPE_KEY]
    assert isinstance(state, RequestAuth)
    return state


class Endpoint:
    """An MCP endpoint that sends the given messages, and may refuse on the way.

    Args:
        messages: what it sends; a refusal among them is recorded instead of being sent.
    """

    def __init__(self, *messages: Message | ToolGuardError) -> None:
        self.messages: Sequence[Message | ToolGuardError] = messages or (START, OK)
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        for message in self.messages:
            if isinstance(message, ToolGuardError):
                state_of(scope).refusal = message
            else:
                await send(message)


def guarded(app: App, *, admits_anonymous: bool = False, **settings: Any) -> GuardMiddleware:
    tokens = Tokens({TOKEN: person("alice", "read"), "bobs": person("bob")})
    desk = Desk(tokens, **settings)
    return GuardMiddleware(app, desk, admits_anonymous=lambda: admits_anonymous)


MODERN = [(b"mcp-protocol-version", b"2026-07-28")]


# --- who is let in


def test_a_good_token_is_let_in_and_the_request_knows_its_caller() -> None:
    endpoint = Endpoint()
    app = guarded(endpoint)

    answer = exchange(app, http_scope(token=TOKEN))

    assert answer.messages == [START, OK]
    (scope,) = endpoint.scopes
    state = state_of(scope)
    assert (state.principal, state.token, state.guard) == (
        person("alice", "read"),
        TOKEN,
        app.guard,
    )


def test_without_a_token_the_answer_is_401_and_names_what_to_ask_for() -> None:
    endpoint = Endpoint()

    answer = exchange(guarded(endpoint), http_scope())

    assert answer.status == 401
    assert answer.header("www-authenticate") == (
        f'Bearer scope="profile", resource_metadata="{METADATA}"'
    )
    assert answer.json == {
        "jsonrpc": "2.0",
        "id": None,
        "error": {
            "code": -32003,
            "message": "This operation needs an access token",
            "data": {
                "error": "missing_token",
                "error_description": "This operation needs an access token",
            },
        },
    }
    assert endpoint.scopes == []


def test_a_bad_token_is_401_invalid_token() -> None:
    endpoint = Endpoint()

    answer = exchange(guarded(endpoint), http_scope(token="forged"))

    assert answer.status == 401
    assert answer.header("www-authenticate") == (
        f'Bearer error="invalid_token", scope="profile", resource_metadata="{METADATA}", '
        'error_description="The signature of the token is wrong"'
    )
    assert endpoint.scopes == []


def test_a_token_bound_to_a_key_is_no_bearer_token() -> None:
    endpoint = Endpoint()
    desk = Desk(Tokens({TOKEN: person("alice", jkt="thumbprint")}))

    answer = exchange(
        GuardMiddleware(endpoint, desk, admits_anonymous=lambda: True), http_scope(token=TOKEN)
    )

    assert answer.status == 401
    assert endpoint.scopes == []


@pytest.mark.parametrize(
    "outcome", [{"method": "notifications/initialized"}, {"id": 1, "result": {}}]
)
def test_an_outage_cannot_be_a_tool_error_for_what_is_no_call(outcome: dict[str, Any]) -> None:
    class Outage:
        async def verify(self, token: str) -> Principal:
            raise KeysUnavailableError("The signing keys cannot be fetched")

    endpoint = Endpoint()
    desk = Desk(Outage(), door=Door(Refusals(outages="tool-error"), EventIds("of every replica")))
    body = json.dumps({"jsonrpc": "2.0", **outcome}).encode()

    answer = exchange(
        GuardMiddleware(endpoint, desk, admits_anonymous=lambda: False),
        http_scope("POST", token=TOKEN),
        body=body,
    )

    assert answer.status == 503
    assert endpoint.scopes == []


def test_two_authorization_headers_are_400_invalid_request() -> None:
    scope = http_scope(token=TOKEN, headers=[(b"authorization", b"Basic YTpi")])

    answer = exchange(guarded(Endpoint()), scope)

    assert answer.status == 400
    assert answer.header("www-authenticate") == (
        f'Bearer error="invalid_request", resource_metadata="{METADATA}", '
        'error_description="Send exactly one Authorization header"'
    )


def test_a_token_in_the_query_is_ignored() -> None:
    scope = http_scope()
    scope["query_string"] = f"access_token={TOKEN}".encode()

    assert exchange(guarded(Endpoint()), scope).status == 401


@pytest.mark.parametrize("retry_after", [1, 30])
def test_while_nobody_can_be_verified_the_answer_is_503_with_retry_after(retry_after: int) -> None:
    class Down:
        async def verify(self, token: str) -> Principal:
            raise KeysUnavailableError("The issuer cannot be reached", retry_after=retry_after)

    answer = exchange(GuardMiddleware(Endpoint(), Desk(Down())), http_scope(token=TOKEN))

    assert answer.status == 503
    assert answer.header("retry-after") == str(retry_after)
    assert answer.header("www-authenticate") is None
    assert answer.refusal["error"] == "temporarily_unavailable"


def test_every_request_of_a_session_needs_its_own_token() -> None:
    app = guarded(Endpoint({**START, "headers": [(b"mcp-session-id", b"s1")]}, OK))
    assert exchange(app, http_scope(token=TOKEN)).status == 200

    assert exchange(app, http_scope(session="s1")).status == 401
    assert exchange(app, http_scope(session="s1", token="forged")).status == 401


def test_where_something_is_public_nobody_is_let_in_as_nobody() -> None:
    endpoint = Endpoint()

    answer = exchange(guarded(endpoint, admits_anonymous=True), http_scope())

    assert answer.status == 200
    assert (state_of(endpoint.scopes[0]).token, state_of(endpoint.scopes[0]).principal) == (
        None,
        None,
    )
    assert "user" not in endpoint.scopes[0]


def test_where_something_is_public_a_token_that_is_sent_must_be_good() -> None:
    app = guarded(Endpoint(), admits_anonymous=True)

    assert exchange(app, http_scope(token="forged")).status == 401
    assert exchange(app, http_scope(headers=[(b"authorization", b"Bearer")])).status == 400


def test_a_verifier_of_ones_own_may_say_that_a_token_never_expires() -> None:
    endpoint = Endpoint()
    tokens = Tokens({TOKEN: person(expires_at=math.inf)})

    assert exchange(GuardMiddleware(endpoint, Desk(tokens)), http_scope(token=TOKEN)).status == 200
    assert endpoint.scopes[0]["user"].access_token.expires_at is None


def test_a_request_state_that_comes_from_outside_is_replaced() -> None:
    endpoint = Endpoint()
    app = guarded(endpoint)
    scope = http_scope(token="bobs")
    scope[SCOPE_KEY] = RequestAuth(TOKEN, person("alice", "admin"), app.guard)

    exchange(app, scope)

    assert state_of(endpoint.scopes[0]).principal == person("bob")


# --- what is no guarded request

PREFLIGHT = {
    **http_scope("OPTIONS"),
    "headers": [(b"origin", b"https://a.example"), (b"access-control-request-method", b"POST")],
}


def test_another_options_request_needs_a_token_like_any_other() -> None:
    endpoint = Endpoint(START, OK)

    assert exchange(guarded(endpoint), http_scope("OPTIONS")).status == 401
    assert endpoint.scopes == []


def test_the_lifespan_passes() -> None:
    endpoint = Endpoint(START, OK)

    assert exchange(guarded(endpoint), {"type": "lifespan"}).messages == [START, OK]
    assert SCOPE_KEY not in endpoint.scopes[0]


@pytest.mark.parametrize("admits_anonymous", [True, False])
def test_a_preflight_is_answered_at_the_guard_and_granted_nothing(admits_anonymous: bool) -> None:
    endpoint = Endpoint(START, OK)

    answer = exchange(guarded(endpoint, admits_anonymous=admits_anonymous), PREFLIGHT)

    assert (answer.status, answer.starts[0]["headers"], answer.body) == (204, [], b"")
    assert endpoint.scopes == []


def test_a_preflight_with_credentials_is_a_request_like_any_other() -> None:
    endpoint = Endpoint()
    forged = [*PREFLIGHT["headers"], (b"authorization", b"Bearer forged")]

    assert exchange(guarded(endpoint), {**PREFLIGHT, "headers": forged}).status == 401
    assert endpoint.scopes == []


def test_a_public_operation_of_another_server_opens_no_door() -> None:
    endpoint = Endpoint()
    desk = Desk(Tokens(), admits_anonymous=True)

    assert exchange(GuardMiddleware(endpoint, desk), http_scope()).status == 401
    assert endpoint.scopes == []


@pytest.mark.parametrize("kind", ["websocket", "something new"])
def test_what_cannot_be_guarded_is_closed(kind: str) -> None:
    endpoint = Endpoint()
    scope = {**http_scope(token=TOKEN), "type": kind}

    answer = exchange(guarded(endpoint), scope)

    assert answer.messages == [{"type": "websocket.close", "code": 1008}]
    assert endpoint.scopes == []


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "options"])
def test_every_other_method_needs_a_token(method: str) -> None:
    endpoint = Endpoint()

    assert exchange(guarded(endpoint), http_scope(method)).status == 401
    assert endpoint.scopes == []


# --- the response


class Wire:
    """Records what has gone out at each step of the application."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.steps: list[int] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def mark(self) -> None:
        self.steps.append(len(self.sent))


def steps(method: str, *messages: Message) -> list[int]:
    """Return how many messages have gone out after each one that the application sends."""
    wire = Wire()

    async def endpoint(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
            wire.mark()

    async def receive() -> Message:
        return {"type": "http.request"}

    asyncio.run(guarded(endpoint)(http_scope(method, token=TOKEN), receive, wire.send))
    assert wire.sent == [message for message in messages if message != chunk(b"")]
    return wire.steps


def test_the_start_of_a_post_is_held_until_the_first_byte() -> None:
    assert steps("POST", START, chunk(b"a"), chunk(b"b", more=False)) == [0, 2, 3]


def test_empty_chunks_before_the_first_byte_say_nothing() -> None:
    assert steps("POST", START, chunk(b""), chunk(b""), chunk(b"a", more=False)) == [0, 0, 0, 2]


def test_an_empty_answer_is_sent_when_it_is_complete() -> None:
    assert steps("POST", START, chunk(b"", more=False)) == [0, 2]


def test_empty_chunks_after_the_first_byte_are_passed_on() -> None:
    late = {"type": "http.response.body", "more_body": True}

    assert steps("POST", START, chunk(b"a"), late, chunk(b"b", more=False)) == [0, 2, 3, 4]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_start_of_a_stream_that_no_call_answers_is_not_held(method: str) -> None:
    assert steps(method, START, chunk(b"a"), chunk(b"", more=False)) == [1, 2, 3]


REFUSALS = [
    (InsufficientScopeError(["write"], token_scopes=["read"]), 403, True),
    (InvalidTokenError("expired", "The access token has expired"), 401, True),
    (AccessDeniedError(), 403, False),
    (GuardNotConfiguredError("No guard"), 500, False),
]


@pytest.mark.parametrize(("refusal", "status", "is_challenged"), REFUSALS)
@pytest.mark.parametrize("early", [True, False])
def test_a_refusal_before_the_first_byte_replaces_the_whole_answer(
    refusal: ToolGuardError, status: int, is_challenged: bool, early: bool
) -> None:
    sent = (refusal, START) if early else (START, chunk(b""), refusal)

    app = guarded(Endpoint(*sent, chunk(b"a"), OK))
    answer = exchange(app, http_scope(token=TOKEN, headers=MODERN))

    assert answer.status == status
    assert answer.refusal == refusal.to_dict()
    assert answer.json["id"] is None
    assert (answer.header("www-authenticate") is not None) is is_challenged
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("cache-control") == "no-store"
    assert len(answer.messages) == 2


def test_a_challenge_can_be_read_by_a_client_in_a_browser() -> None:
    answer = exchange(guarded(Endpoint()), http_scope())

    assert answer.header("access-control-expose-headers") == "WWW-Authenticate"


def test_missing_scopes_become_a_403_that_names_them() -> None:
    refusal = InsufficientScopeError(["read", "write"], token_scopes=["read"])

    answer = exchange(guarded(Endpoint(START, refusal, OK)), http_scope(token=TOKEN))
    assert answer.header("www-authenticate") == (
        f'Bearer error="insufficient_scope", scope="read write", resource_metadata="{METADATA}", '
        'error_description="Token missing required scopes: write"'
    )


def test_a_refusal_after_the_first_byte_comes_too_late_for_the_answer() -> None:
    first, last = chunk(b"progress"), chunk(b"refused", more=False)
    endpoint = Endpoint(START, first, AccessDeniedError(), last)

    assert exchange(guarded(endpoint), http_scope(token=TOKEN)).messages == [START, first, last]


def test_a_refusal_that_belongs_to_the_result_leaves_the_answer_alone() -> None:
    refusal = ConnectionRequiredError("Connect mail", connection="mail")

    answer = exchange(guarded(Endpoint(START, refusal, OK)), http_scope(token=TOKEN))

    assert answer.messages == [START, OK]


def test_an_exception_of_the_application_is_its_own() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        raise LookupError("broken")

    with pytest.raises(LookupError, match="broken"):
        exchange(guarded(broken), http_scope(token=TOKEN))


# --- no secrets


@pytest.mark.parametrize(
    "scope",
    [
        http_scope(token="s3cr3t-t0k3n"),
        http_scope(headers=[(b"authorization", b"Bearer s3cr3t-t0k3n x")]),
        http_scope(token="s3cr3t-t0k3n", headers=[(b"authorization", b"Bearer s3cr3t-t0k3n")]),
        http_scope(token=TOKEN, session="s3cr3t-t0k3n"),
    ],
    ids=["forged", "malformed", "twice", "as session"],
)
def test_no_token_is_in_any_answer_or_log(scope: Scope, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = exchange(guarded(Endpoint()), scope)

    assert answer.status in (400, 401, 404)
    for shown in (str(answer.messages), caplog.text):
        assert "s3cr3t-t0k3n" not in shown
        assert TOKEN not in shown


def test_whoever_reads_the_scope_does_not_find_the_token() -> None:
    endpoint = Endpoint()
    exchange(guarded(endpoint), http_scope(token=TOKEN))
    (scope,) = endpoint.scopes

    added = {name: value for name, value in scope.items() if name != "headers"}
    assert TOKEN not in repr(added)
    # What stands for it tells users apart, for caches of the framework.
    digest = sha256(TOKEN.encode()).hexdigest()
    assert scope["user"].access_token.token == f"sha256:{digest}"
