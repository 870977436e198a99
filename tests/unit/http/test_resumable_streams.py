"""What becomes of streams that a client can resume: of their first event, and of their ids?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asgi import Exchange, Message, Receive, Scope, Send, exchange, http_scope
from support.callers import TOKEN, Desk, Tokens, person
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import AccessDeniedError, InsufficientScopeError, ToolGuardError
from toolguard.http.middleware import GuardMiddleware

PRIMING = b"id: e7\r\ndata: \r\n\r\n"
DATA = b'id: e8\r\ndata: {"id": 1}\r\n\r\n'
REFUSED = InsufficientScopeError(["write"], token_scopes=["read"])
START: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"content-length", b"9")],
}


def chunk(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


Step = Message | ToolGuardError | Callable[[RequestAuth], None]


class Wire:
    """A guarded endpoint that takes steps; how much has gone out after each one is noted."""

    def __init__(self, *steps: Step, settle: bool = True) -> None:
        self.steps = steps
        self.settle = settle
        self.sent: list[Message] = []
        self.after: list[int] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: RequestAuth = scope[SCOPE_KEY]
        for step in self.steps:
            if isinstance(step, ToolGuardError):
                state.refusal = step
            elif callable(step):
                step(state)
            else:
                await send(step)
            if self.settle:
                for _ in range(3):  # what was let go is sent by a task of its own
                    await asyncio.sleep(0)
            self.after.append(len(self.sent))

    def run(self, method: str = "POST") -> Wire:
        async def send(message: Message) -> None:
            self.sent.append(message)

        async def receive() -> Message:
            return {"type": "http.request"}

        guard = GuardMiddleware(self.app, Desk(Tokens({TOKEN: person("alice", "read")})))
        asyncio.run(guard(http_scope(method, token=TOKEN), receive, send))
        return self

    @property
    def answer(self) -> Exchange:
        return Exchange(self.sent)


def permit(state: RequestAuth) -> None:
    state.permit()


def permit_in_a_thread(state: RequestAuth) -> None:
    thread = threading.Thread(target=state.permit)
    thread.start()
    thread.join()


def test_a_refusal_behind_a_priming_event_is_a_real_403() -> None:
    wire = Wire(START, chunk(PRIMING), REFUSED, chunk(DATA), chunk(b"", more=False)).run()

    assert wire.answer.status == 403
    assert wire.answer.refusal == REFUSED.to_dict()
    assert wire.after[:3] == [0, 0, 0]


def test_a_priming_event_waits_for_the_first_data() -> None:
    wire = Wire(START, chunk(PRIMING), chunk(b": ping\n\n"), chunk(DATA)).run()

    assert wire.after == [0, 0, 0, 4]
    assert wire.answer.body.count(b"id: e") == 2


@pytest.mark.parametrize("permits", [permit, permit_in_a_thread])
def test_a_priming_event_leaves_at_once_when_permitted(
    permits: Callable[[RequestAuth], None],
) -> None:
    wire = Wire(START, chunk(PRIMING), permits, chunk(DATA), chunk(b"", more=False)).run()

    assert wire.after[:3] == [0, 0, 2]
    assert len(wire.sent) == 4


def test_a_priming_event_after_the_permit_does_not_wait() -> None:
    assert Wire(permit, START, chunk(PRIMING), chunk(DATA)).run().after == [0, 0, 2, 3]


def test_what_was_let_go_keeps_its_order() -> None:
    wire = Wire(
        START, chunk(PRIMING), permit, chunk(DATA), chunk(b"", more=False), settle=False
    ).run()

    assert [m["type"] for m in wire.sent] == ["http.response.start"] + ["http.response.body"] * 3
    assert wire.answer.body.index(b"e7") < wire.answer.body.index(b"e8")


def test_a_nested_refusal_after_the_permit_leaves_the_stream_alone() -> None:
    wire = Wire(START, chunk(PRIMING), permit, REFUSED, chunk(DATA, more=False)).run()

    assert wire.answer.status == 200
    assert b'{"id": 1}' in wire.answer.body


def test_a_denial_of_an_older_client_is_what_the_framework_says() -> None:
    wire = Wire(START, chunk(PRIMING), AccessDeniedError(), chunk(DATA, more=False)).run()

    assert wire.answer.status == 200
    assert b'{"id": 1}' in wire.answer.body


def test_a_stream_that_ends_without_data_is_sent() -> None:
    wire = Wire(START, chunk(PRIMING), chunk(b"", more=False)).run()

    assert (wire.answer.status, len(wire.sent)) == (200, 3)


def test_no_more_than_some_bytes_are_held() -> None:
    wire = Wire(START, chunk(b": " + b"x" * 4_000 + b"\n"), chunk(b":\n" * 40_000)).run()

    assert wire.after == [0, 0, 3]


def test_a_stream_of_a_get_is_not_held() -> None:
    assert Wire(START, chunk(PRIMING), chunk(DATA)).run("GET").after == [1, 2, 3]


def test_a_stream_says_no_length_as_its_ids_grow() -> None:
    assert Wire(START, chunk(DATA, more=False)).run().answer.header("content-length") is None


@given(st.lists(st.integers(1, 60), max_size=6))
def test_a_refusal_wins_however_the_stream_is_cut(cuts: Sequence[int]) -> None:
    whole = PRIMING + DATA
    places = sorted({0, *(c for c in cuts if c < len(PRIMING)), len(PRIMING)})
    primed = [chunk(whole[a:b]) for a, b in pairwise(places)]
    wire = Wire(START, *primed, REFUSED, chunk(DATA), chunk(b"", more=False), settle=False).run()

    assert wire.answer.status == 403


# --- ids


class Resumable:
    """A server with an event store; it notes what it is asked to go on from."""

    def __init__(self) -> None:
        self.asked: list[list[bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append([value for name, value in scope["headers"] if name == b"last-event-id"])
        session = dict(scope["headers"]).get(b"mcp-session-id", f"s{len(self.asked)}".encode())
        headers = [(b"content-type", b"text/event-stream"), (b"mcp-session-id", session)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(chunk(DATA, more=False))


class Site:
    """A guarded server with an event store, and its callers."""

    def __init__(self) -> None:
        self.server = Resumable()
        people = {TOKEN: person("alice"), "bobs": person("bob")}
        self.app = GuardMiddleware(self.server, Desk(Tokens(people)))

    def send(
        self, token: str, session: str | None, *event_ids: bytes, method: str = "GET", **names: Any
    ) -> Exchange:
        name = names.get("name", b"last-event-id")
        headers = [(name, event_id) for event_id in event_ids]
        return exchange(self.app, http_scope(method, token=token, session=session, headers=headers))

    def opened(self, token: str) -> tuple[str, bytes]:
        """Open a session; return it, and the id of its first event."""
        answer = self.send(token, None, method="POST")
        (line,) = [row for row in answer.body.splitlines() if row.startswith(b"id: ")]
        return str(answer.header("mcp-session-id")), line[4:]


def test_the_owner_resumes_from_the_id_that_the_store_knows() -> None:
    site = Site()
    session, event_id = site.opened(TOKEN)

    assert event_id.startswith(b"e8.")
    assert site.send(TOKEN, session, event_id).status == 200
    assert site.server.asked[-1] == [b"e8"]


def test_an_event_of_another_caller_is_not_found_before_the_server() -> None:
    site = Site()
    _, event_id = site.opened(TOKEN)
    bobs_session, _ = site.opened("bobs")
    reached = len(site.server.asked)

    foreign = site.send("bobs", bobs_session, event_id)
    unknown = site.send("bobs", bobs_session, b"no such event")

    assert (foreign.status, foreign.messages) == (404, unknown.messages)
    assert len(site.server.asked) == reached


def test_an_event_of_another_session_of_the_caller_is_not_found() -> None:
    site = Site()
    _, event_id = site.opened(TOKEN)
    other, _ = site.opened(TOKEN)

    assert site.send(TOKEN, other, event_id).status == 404


@pytest.mark.parametrize("name", [b"last-event-id", b"last_event_id", b"Last-Event-Id"])
def test_an_unsealed_id_is_not_found_however_it_is_spelled(name: bytes) -> None:
    site = Site()
    session, event_id = site.opened(TOKEN)

    assert site.send(TOKEN, session, b"e8", name=name).status == 404
    assert site.send(TOKEN, session, event_id, b"e8", name=name).status == 404


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_an_id_reaches_the_server_in_no_other_request(method: str) -> None:
    site = Site()
    session, event_id = site.opened(TOKEN)

    assert site.send(TOKEN, session, event_id, method=method).status == 200
    assert site.server.asked[-1] == []
