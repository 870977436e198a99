"""How long is a stream of notifications open?"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from support.asgi import Exchange, Message, Receive, Scope, Send, http_scope
from support.callers import TOKEN, Desk, Tokens, person
from support.virtual_time import run_in_virtual_time
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import InvalidTokenError, ToolGuardError
from toolguard.frameworks.serving import Incoming, serve
from toolguard.http.middleware import GuardMiddleware
from toolguard.http.proxy import ProxyGuard
from toolguard.policies.by_name import PoliciesByName

EVENT = b'data: {"jsonrpc": "2.0", "method": "notifications/message"}\n\n'
LISTENING = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "subscriptions/listen",
        "params": {"notifications": {"toolsListChanged": True}},
    }
).encode()
LIFETIME, LEEWAY = 60, 5


class Streaming:
    """A server that opens sessions, and streams until its client disconnects."""

    def __init__(self) -> None:
        self.disconnected = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        media_type = b"text/event-stream" if scope["method"] == "GET" else b"application/json"
        headers = [(b"mcp-session-id", b"s1"), (b"content-type", media_type)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["method"] != "GET":
            await send({"type": "http.response.body", "body": b"{}"})
            return
        await send({"type": "http.response.body", "body": EVENT, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True


def _requested(
    app: GuardMiddleware, method: str, session: str | None, body: bytes = b""
) -> tuple[Exchange, float] | Exception:
    """Send a request; return the answer, and after how many seconds it has ended."""
    sent: list[Message] = []

    async def main() -> None:
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if not pending:
                await anyio.sleep_forever()
            return pending.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        typed = [(b"content-type", b"application/json")]
        scope = http_scope(method, token=TOKEN, session=session, headers=typed)
        with anyio.move_on_after(10 * LIFETIME):
            await app(scope, receive, send)

    failure, seconds = run_in_virtual_time(main())
    return failure or (Exchange(sent), seconds)


def _answer_of(app: GuardMiddleware, *request: Any) -> Exchange:
    answered = _requested(app, *request)
    assert isinstance(answered, tuple)
    return answered[0]


def _seconds_of(app: GuardMiddleware, *request: Any) -> float:
    answered = _requested(app, *request)
    assert isinstance(answered, tuple)
    return answered[1]


def test_the_stream_of_a_session_ends_with_its_token() -> None:
    server = Streaming()
    app = GuardMiddleware(server, Desk(Tokens({TOKEN: person()}), leeway=LEEWAY))
    _requested(app, "POST", None)

    answered = _requested(app, "GET", "s1")

    assert isinstance(answered, tuple)
    answer, seconds = answered
    assert server.disconnected
    assert seconds == pytest.approx(LIFETIME + LEEWAY)
    assert answer.body == EVENT
    assert answer.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_server_that_has_not_answered_by_then_is_left_to_answer() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    app = GuardMiddleware(silent, Desk(Tokens({TOKEN: person()}), leeway=LEEWAY))
    app.sessions.open("s1", person())

    assert _answer_of(app, "GET", "s1").messages == []


@pytest.mark.parametrize("fault", [ConnectionResetError("upstream"), LookupError("x")])
def test_a_server_that_fails_before_then_fails(fault: Exception) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise fault

    app = GuardMiddleware(failing, Desk(Tokens({TOKEN: person()})))
    app.sessions.open("s1", person())

    assert _requested(app, "GET", "s1") == fault


class Relaying:
    """A server that does not notice when its client has disconnected."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        while True:
            await send({"type": "http.response.body", "body": EVENT, "more_body": True})
            await anyio.sleep(LIFETIME - 10)


def _front(app: Any) -> GuardMiddleware:
    """Return the door of ``guard.asgi(app, rules=...)``."""
    guard = Desk(Tokens({TOKEN: person()}))
    return GuardMiddleware(ProxyGuard(app, guard, PoliciesByName({})), guard)


@pytest.mark.parametrize(
    ("method", "body"), [("GET", b""), ("POST", LISTENING)], ids=["stream", "subscription"]
)
def test_no_event_of_a_server_behind_arrives_after_that(method: str, body: bytes) -> None:
    app = _front(Relaying())
    app.sessions.open("s1", person())

    answer = _answer_of(app, method, "s1", body)

    assert answer.body == EVENT * 2
    assert answer.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_a_call_of_a_server_behind_is_answered_after_that() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await anyio.sleep(2 * LIFETIME)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    call = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "slow"}}'

    assert _answer_of(_front(slow), "POST", None, call).body == b"{}"


def test_a_stream_that_also_answers_calls_stays_open() -> None:
    server = Streaming()
    app = GuardMiddleware(server, Desk(Tokens({TOKEN: person()}), leeway=LEEWAY))

    seconds = _seconds_of(app, "GET", None)  # HTTP+SSE

    assert not server.disconnected
    assert seconds == pytest.approx(10 * LIFETIME)


class Listened(Desk):
    """A guard, as the adapters need one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.running: set[object] = set()

    async def listen(self, auth: RequestAuth | None = None) -> None:
        """Serve a subscription of a caller, for as long as it may be open."""
        incoming = Incoming(
            SimpleNamespace(scope={SCOPE_KEY: auth or RequestAuth(TOKEN, person(), self)}),
            "subscriptions/listen",
            {"notifications": {"toolsListChanged": True}},
            anyio.sleep_forever,
            is_error=bool,
            to_json=dict,
            from_json=lambda result, _: result,
        )
        adapter: Any = SimpleNamespace(required_guard=self)
        guard: Any = self
        with anyio.move_on_after(10 * LIFETIME):
            await serve(adapter, guard, incoming)


def test_a_subscription_ends_with_its_token() -> None:
    refusal, seconds = run_in_virtual_time(Listened(leeway=LEEWAY).listen())

    assert isinstance(refusal, InvalidTokenError)
    assert refusal.reason == "expired"
    assert seconds == pytest.approx(LIFETIME + LEEWAY)


def test_a_public_subscription_stays_open() -> None:
    guard = Listened(default="public")

    result, seconds = run_in_virtual_time(guard.listen(RequestAuth(None, None, guard)))

    assert result is None
    assert seconds == pytest.approx(10 * LIFETIME)


def test_one_caller_does_not_take_up_the_subscriptions_of_all() -> None:
    guard, ended = Listened(), list[str]()

    async def listen(user: str) -> None:
        try:
            await guard.listen(RequestAuth(TOKEN, person(user), guard))
        except ToolGuardError as refusal:
            ended.append(f"{user}: {refusal.error}")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for user in ["alice"] * 101 + ["bob"]:
                group.start_soon(listen, user)
            await anyio.sleep(1)
            assert ended == ["alice: temporarily_unavailable"]
            group.cancel_scope.cancel()

    failure, _ = run_in_virtual_time(main())
    assert failure is None
