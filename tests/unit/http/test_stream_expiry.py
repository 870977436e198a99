"""How long is a stream of notifications open?"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from support.asgi import Exchange, Message, Receive, Scope, Send, http_scope
from support.callers import TOKEN, Desk, Tokens, person
from support.virtual_time import run_in_virtual_time
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import InvalidTokenError
from toolguard.frameworks.serving import Incoming, serve
from toolguard.http.middleware import GuardMiddleware

EVENT = b'data: {"jsonrpc": "2.0", "method": "notifications/message"}\n\n'
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


def _requested(app: GuardMiddleware, method: str, session: str | None) -> tuple[Exchange, float]:
    """Send a request; return the answer, and after how many seconds it has ended."""
    sent: list[Message] = []

    async def main() -> None:
        pending = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> Message:
            if not pending:
                await anyio.sleep_forever()
            return pending.pop()

        async def send(message: Message) -> None:
            sent.append(message)

        with anyio.move_on_after(10 * LIFETIME):
            await app(http_scope(method, token=TOKEN, session=session), receive, send)

    _, seconds = run_in_virtual_time(main())
    return Exchange(sent), seconds


def test_the_stream_of_a_session_ends_with_its_token() -> None:
    server = Streaming()
    app = GuardMiddleware(server, Desk(Tokens({TOKEN: person()}), leeway=LEEWAY))
    _requested(app, "POST", None)

    answer, seconds = _requested(app, "GET", "s1")

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

    answer, seconds = _requested(app, "GET", "s1")

    assert answer.messages == []
    assert seconds == pytest.approx(LIFETIME + LEEWAY)


def test_a_stream_that_also_answers_calls_stays_open() -> None:
    server = Streaming()
    app = GuardMiddleware(server, Desk(Tokens({TOKEN: person()}), leeway=LEEWAY))

    _, seconds = _requested(app, "GET", None)  # HTTP+SSE

    assert not server.disconnected
    assert seconds == pytest.approx(10 * LIFETIME)


def _listening(auth: RequestAuth, guard: Any) -> tuple[object, float]:
    incoming = Incoming(
        SimpleNamespace(scope={SCOPE_KEY: auth}),
        "subscriptions/listen",
        {"notifications": {"toolsListChanged": True}},
        anyio.sleep_forever,
        is_error=bool,
        to_json=dict,
        from_json=lambda result, _: result,
    )

    async def main() -> object:
        with anyio.move_on_after(10 * LIFETIME):
            return await serve(SimpleNamespace(), guard, incoming)  # type: ignore[arg-type]
        return None

    return run_in_virtual_time(main())


class Listened(Desk):
    """A guard, as the adapters need one."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.running: set[object] = set()


def test_a_subscription_ends_with_its_token() -> None:
    guard = Listened(leeway=LEEWAY)
    refusal, seconds = _listening(RequestAuth(TOKEN, person(), guard), guard)

    assert isinstance(refusal, InvalidTokenError)
    assert refusal.reason == "expired"
    assert seconds == pytest.approx(LIFETIME + LEEWAY)


def test_a_public_subscription_stays_open() -> None:
    guard = Listened(default="public")
    facts: Mapping[str, Any] = {"token": None, "principal": None, "guard": guard}

    result, seconds = _listening(RequestAuth(**facts), guard)
    assert result is None
    assert seconds == pytest.approx(10 * LIFETIME)
