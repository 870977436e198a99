"""The load: callers with different rights, what each of their calls has to come to, and a tally.

An answer is wrong if it is neither what the caller's rights say nor an outage that says so: a call
served that should be refused, the answer of another user, or a refusal of a call that should be
served.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import httpx

__all__ = ["Answer", "Call", "Caller", "Tally", "calling", "observed"]

Answer: TypeAlias = Literal[
    "served",
    "missing_token",
    "invalid_token",
    "insufficient_scope",
    "not_connected",
    "outage of keys",
    "outage of the vault",
    "lost",
    "other",
]
"""What became of a call."""

_OUTAGES = ("outage of keys", "outage of the vault")
_TOOL_ERRORS: Mapping[str, Answer] = {
    "connection_required": "not_connected",
    "connection_unavailable": "outage of the vault",
}
# The answers that have a record, and whether it names the message.
_RECORDED: Mapping[Answer, bool] = {
    "served": True,
    "insufficient_scope": True,
    "not_connected": True,
    "outage of the vault": True,
    "missing_token": False,
    "invalid_token": False,
    "outage of keys": False,
}
_LATE = ("served", "invalid_token")
_EXPIRED = ("invalid_token", "not_connected")
_PAUSE = 0.02
_SHOWN = 300
# Seconds after the end of a worker in which the proxy may still choose a connection to it.
_NOTICE = 0.25
# Seconds for which records are in the memory of a worker only, on a busy machine.
_WRITTEN_AFTER = 1.0


@dataclass(frozen=True)
class Call:
    """A call that has ended.

    Attributes:
        id: the id of its message.
        phase: what was going on.
        answer: what became of it.
        started: when it was sent, by the monotonic clock.
        ended: when its answer was there.
        detail: the answer, if it is not what was expected.
    """

    id: str
    phase: str
    answer: Answer
    started: float
    ended: float
    detail: str = ""

    def spans(self, moments: list[float], before: float = 0.0, after: float = 0.0) -> bool:
        """Return whether one of these moments was within it."""
        return any(self.started - before <= each <= self.ended + after for each in moments)


@dataclass
class Caller:
    """Somebody who calls tools, and what they may do.

    Attributes:
        name: the subject of the token.
        token: returns the token to send now; None for none.
        expected: what each tool comes to.
    """

    name: str
    token: Callable[[], str | None]
    expected: Mapping[str, Answer]


@dataclass
class Tally:
    """What was counted.

    Attributes:
        phase: what is going on.
        calls: all calls.
        wrong: those whose answer is wrong.
        kills: when a worker was killed.
        moves: when the clock was moved, or tokens were replaced.
        turns: how often each connection has called all of its tools.
    """

    phase: str = ""
    calls: list[Call] = field(default_factory=list)
    wrong: list[Call] = field(default_factory=list)
    kills: list[float] = field(default_factory=list)
    moves: list[float] = field(default_factory=list)
    turns: Counter[str] = field(default_factory=Counter)

    def add(self, call: Call, expected: Answer) -> None:
        """Count a call."""
        self.calls.append(call)
        if call.answer in (expected, *_OUTAGES, "lost"):
            return
        # Whether the server read the clock before or after it was moved cannot be told, for the
        # caller's token and for that of the connection.
        is_either = call.answer in _EXPIRED or (call.answer, expected) == _LATE
        if not is_either or not call.spans(self.moves):
            self.wrong.append(call)

    @property
    def by_phase(self) -> dict[str, Counter[str]]:
        """How often each answer was given in each phase."""
        counted: dict[str, Counter[str]] = {}
        for call in self.calls:
            counted.setdefault(call.phase, Counter())[call.answer] += 1
        return counted

    def count(self, *answers: Answer) -> int:
        """Return how many calls had one of these answers."""
        return sum(call.answer in answers for call in self.calls)

    @property
    def lost_without_reason(self) -> list[Call]:
        """The calls that got no answer although they were not in flight at a killed worker."""
        lost = [call for call in self.calls if call.answer == "lost"]
        return [call for call in lost if not call.spans(self.kills, before=_NOTICE)]

    def unrecorded(self, lines: list[str]) -> tuple[int, int]:
        """Return how many answers have no record, and how many of these a killed worker had.

        Args:
            lines: the records, as JSON.
        """
        ids = Counter(json.loads(line).get("request_id") for line in lines)
        answered = [call for call in self.calls if call.answer in _RECORDED and call.id not in ids]
        missing = [call for call in answered if _RECORDED[call.answer]]
        # A request that is refused before its body is read has a record without an id.
        unnamed = [call for call in answered if not _RECORDED[call.answer]]
        late = [call.spans(self.kills, after=_WRITTEN_AFTER) for call in (*missing, *unnamed)]
        gone = len(missing) + max(0, len(unnamed) - ids[None])
        return gone, min(gone, sum(late))


async def calling(caller: Caller, url: str, trust: ssl.SSLContext, tally: Tally, name: str) -> None:
    """Call the caller's tools in turn until cancelled.

    Args:
        caller: the caller.
        url: the URL of the endpoint.
        trust: the certificates to trust.
        tally: where calls are counted.
        name: of the connection; begins the ids of the messages.
    """
    number = 0
    async with httpx.AsyncClient(verify=trust, timeout=30, trust_env=False) as client:
        while True:
            for tool, expected in caller.expected.items():
                number += 1
                tally.add(
                    await _once(client, url, caller, tool, f"{name}-{number}", tally), expected
                )
                await asyncio.sleep(_PAUSE)
            tally.turns[name] += 1


async def _once(
    client: httpx.AsyncClient,
    url: str,
    caller: Caller,
    tool: str,
    number: str,
    tally: Tally,
) -> Call:
    # The time first: a token that is replaced meanwhile is one of before.
    started, phase, token = time.monotonic(), tally.phase, caller.token()
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
        **({} if token is None else {"authorization": f"Bearer {token}"}),
    }
    params = {"name": tool, "arguments": {"tag": number}}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    try:
        response = await client.post(url, json=message, headers=headers)
    except httpx.TransportError as error:
        answer: Answer = "lost"
        detail = type(error).__name__
    else:
        answer = observed(response, caller.name, tool, number)
        detail = f"{response.status_code} {response.text[:_SHOWN]}"
    detail = "" if answer == caller.expected[tool] else f"{caller.name} {tool}: {detail}"
    return Call(number, phase, answer, started, time.monotonic(), detail)


def observed(response: httpx.Response, user: str, tool: str, tag: str) -> Answer:
    """Return what became of a call.

    Args:
        response: its response.
        user: the user it was made as.
        tool: the tool.
        tag: the argument.
    """
    status, challenge = response.status_code, response.headers.get("www-authenticate", "")
    if status in (502, 504):
        return "lost"
    if status == httpx.codes.SERVICE_UNAVAILABLE and "retry-after" in response.headers:
        return "outage of keys"
    if status == httpx.codes.UNAUTHORIZED:
        return "invalid_token" if 'error="invalid_token"' in challenge else "missing_token"
    if status == httpx.codes.FORBIDDEN and 'error="insufficient_scope"' in challenge:
        return "insufficient_scope"
    result = response.json().get("result") if status == httpx.codes.OK else None
    return "other" if result is None else _of_result(result, user, tool, tag)


def _of_result(result: dict[str, Any], user: str, tool: str, tag: str) -> Answer:
    text: str = result["content"][0]["text"]
    if result.get("isError"):
        try:
            return _TOOL_ERRORS.get(json.loads(text).get("error"), "other")
        except ValueError:
            return "other"
    words = text.split(" ")
    is_own = words[:2] == [user, tag] and len(words) == 2 + (tool == "mail")
    if tool == "mail":
        is_own = is_own and words[2].startswith(f"access-{user}-")
    return "served" if is_own else "other"
