"""Is anybody ever served as somebody else, however their calls are interleaved?"""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import httpx
import pytest

from support.lines import LINES, MODERN_PROTOCOL, Guarding, Line, Mode, Serve, Server
from support.wire import Reply, message, request_headers
from toolguard import Principal, injected, requires_auth, requires_scopes
from toolguard.testing import LocalIssuer

USERS = ("alice", "bob", "carol", "dave", "erin")
CALLS = 60
AT_ONCE = 20

# Sessions and none, streams and none, the initialize handshake and none.
INTERLEAVED = [
    mode
    for line in LINES
    for mode in (
        Mode(line, "2025-11-25", stateless=False, json=False),
        Mode(line, "2025-06-18", stateless=True, json=True),
        *([Mode(line, MODERN_PROTOCOL, stateless=True, json=False)] if line.modern else ()),
    )
]


def _meeting(line: Line) -> Server:
    """Return a server whose tools wait for each other, so that calls of all users overlap."""
    server = line.server("meeting")
    waiting: list[anyio.Event] = []

    async def meet() -> None:
        mine = anyio.Event()
        waiting.append(mine)
        if len(waiting) == AT_ONCE:
            for each in waiting:
                each.set()
            waiting.clear()
        await mine.wait()

    @requires_scopes("meet")
    async def who_is_it(*, caller: Principal = injected) -> str:
        return f"{caller.user_id}"

    @requires_auth
    def who_is_it_in_a_thread(*, user_id: str = injected) -> str:
        return user_id

    @server.tool()
    @requires_scopes("meet")
    async def introduce(note: str, *, user_id: str) -> str:
        await meet()
        return f"{note} {user_id} {await who_is_it()} {await who_is_it_in_a_thread()}"

    return server


class _Meeting:
    """Many callers of one server at once, each call with a token of its own."""

    def __init__(self, http: httpx.AsyncClient, url: str, mode: Mode, issuer: LocalIssuer) -> None:
        self.http = http
        self.url = url
        self.mode = mode
        self.issuer = issuer
        self.sessions: dict[str, str | None] = {}

    async def send(self, user: str, method: str, params: dict[str, Any]) -> Reply:
        body = message(self.mode.protocol, method, params)
        token = self.issuer.mint(user, scopes=["meet"])  # refreshed for every single call
        session = self.sessions.get(user)
        headers = request_headers(self.mode.protocol, body, token=token, session=session)
        return Reply.of(await self.http.post(self.url, json=body, headers=headers))

    async def open(self, user: str) -> None:
        params = {
            "protocolVersion": self.mode.protocol,
            "capabilities": {},
            "clientInfo": {"name": user, "version": "1"},
        }
        reply = await self.send(user, "initialize", params)
        self.sessions[user] = reply.headers["mcp-session-id"]
        assert (await self.send(user, "notifications/initialized", {})).status == 202

    async def introduce(self, user: str, note: str) -> str:
        params = {"name": "introduce", "arguments": {"note": note}}
        return (await self.send(user, "tools/call", params)).value


@pytest.mark.parametrize("mode", INTERLEAVED, ids=str)
def test_nobody_is_ever_served_as_somebody_else(
    mode: Mode, guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    url = serve(mode.app(guarding().protect(_meeting(mode.line)))) + "/mcp"
    answers: dict[str, str] = {}

    async def main() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            meeting = _Meeting(http, url, mode, issuer)
            if mode.has_sessions:
                for user in USERS:
                    await meeting.open(user)

            async def introduce(user: str, note: str) -> None:
                answers[note] = await meeting.introduce(user, note)

            notes = zip(itertools.cycle(USERS), map(str, range(CALLS)))
            for _ in range(CALLS // AT_ONCE):
                async with anyio.create_task_group() as group:
                    for user, note in itertools.islice(notes, AT_ONCE):
                        group.start_soon(introduce, user, note)

    anyio.run(main)
    users = itertools.cycle(USERS)
    assert answers == {
        str(n): f"{n} {u} {u} {u}" for n, u in zip(range(CALLS), users, strict=False)
    }


@pytest.mark.parametrize("line", LINES, ids=str)
def test_somebody_elses_calls_on_a_busy_session_are_not_found(
    line: Line, guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    mode = Mode(line, "2025-11-25", stateless=False, json=False)
    url = serve(mode.app(guarding().protect(_meeting(line)))) + "/mcp"
    answers: list[str] = []
    statuses: list[int] = []

    async def main() -> None:
        async with httpx.AsyncClient(timeout=30) as http:
            meeting = _Meeting(http, url, mode, issuer)
            await meeting.open("alice")
            meeting.sessions["bob"] = meeting.sessions["alice"]

            async def alice(note: str) -> None:
                answers.append(await meeting.introduce("alice", note))

            async def bob() -> None:
                params = {"name": "introduce", "arguments": {"note": "mine"}}
                statuses.append((await meeting.send("bob", "tools/call", params)).status)

            async with anyio.create_task_group() as group:
                for n in range(AT_ONCE):
                    group.start_soon(alice, str(n))
                    group.start_soon(bob)

    anyio.run(main)
    assert statuses == [404] * AT_ONCE
    assert sorted(answers) == sorted(f"{n} alice alice alice" for n in range(AT_ONCE))
