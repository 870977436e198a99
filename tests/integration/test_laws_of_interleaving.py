"""Law 2: no decision of one operation, message or caller changes that of another.

Several calls are in the server at once. Each of them waits at every point where code of the user's
runs (a check, a decorator, a body, a guarded helper), and hypothesis says who goes on next.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio import wait_all_tasks_blocked
from hypothesis import given, settings
from hypothesis import strategies as st

from support.lines import Guarding, Line
from toolguard import (
    InsufficientScopeError,
    OperationCall,
    Principal,
    all_of,
    current_principal,
    injected,
    requires,
    requires_auth,
    requires_scopes,
)
from toolguard.testing import AsyncGuardedClient, ServerAnswer

OWNERS = ("ann", "ben")
# What each of the callers holds; two of them hold the same.
CALLERS = {
    "alice": {"notes.ann", "notes.ben"},
    "bob": {"notes.ann"},
    "carol": {"notes.ben"},
    "dave": set[str](),
    "erin": {"notes.ann"},
}


@dataclass
class Turns:
    """Where the calls stand, and who goes on next.

    Attributes:
        order: which of those that wait goes on, each time; the first once there is no more.
        waiting: those that wait.
        left: how many calls have not ended.
        changed: set when one begins to wait, or ends.
    """

    order: list[int]
    waiting: list[anyio.Event] = field(default_factory=list)
    left: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    async def wait(self) -> None:
        """Let others go on."""
        mine = anyio.Event()
        self.waiting.append(mine)
        self.changed.set()
        await mine.wait()

    def end(self) -> None:
        """Note that a call has ended."""
        self.left -= 1
        self.changed.set()

    async def take(self, calls: int) -> None:
        """Let one after the other go on until all calls have ended."""
        self.left += calls
        while self.left:
            await wait_all_tasks_blocked()
            if self.waiting:
                at = self.order.pop() % len(self.waiting) if self.order else 0
                self.waiting.pop(at).set()
            elif self.left:  # a callback or a thread is yet to resume one
                self.changed = anyio.Event()
                await self.changed.wait()


class Office:
    """A server whose operations wait for their turn wherever they can."""

    def __init__(self, line: Line) -> None:
        self.turns = Turns([])
        self.server = line.server("office")
        by_owner, slowly = requires_scopes("notes.{owner}"), requires(self._has_waited)
        self.helper = all_of(slowly, by_owner)(self._help)
        guarded = by_owner(slowly(self._plain))
        functions: dict[str, Callable[..., Awaitable[str]]] = {
            "plain": guarded,
            "helped": by_owner(self._helped),
            "asking": requires_auth(self._asking),
            "after_a_helper": self._asking_first(guarded, answers=False),
            "instead_of_it": self._asking_first(guarded, answers=True),
            "sandwiched": slowly(self._asking_first(guarded, answers=False)),
        }
        for name, function in functions.items():
            self.server.tool(name)(function)

    async def _has_waited(self, caller: Principal, _: OperationCall) -> bool:
        await self.turns.wait()
        return current_principal().user_id == caller.user_id

    async def _help(self, owner: str, *, caller: Principal = injected) -> str:
        await self.turns.wait()
        return f"{caller.user_id} {owner}"

    async def _plain(self, owner: str, *, caller: Principal) -> str:
        await self.turns.wait()
        return f"{caller.user_id} {owner} {current_principal().user_id}"

    async def _helped(self, owner: str, *, caller: Principal) -> str:
        first = await self.helper("ann")
        await self.turns.wait()
        return f"{caller.user_id} {owner} with {first}"

    async def _asking(self, owner: str) -> str:
        found: list[str] = []

        async def ask(each: str) -> None:
            try:
                found.append(await self.helper(each))
            except InsufficientScopeError as refusal:
                found.append(f"not {' '.join(refusal.missing_scopes)}")

        async with anyio.create_task_group() as group:
            for each in (owner, *OWNERS):
                group.start_soon(ask, each)
        return ", ".join(sorted(found))

    def _asking_first(
        self, function: Callable[..., Awaitable[str]], *, answers: bool
    ) -> Callable[..., Awaitable[str]]:
        """Decorate a guarded function: ask the helper first, and then perhaps nothing else."""

        @functools.wraps(function)
        async def asking_first(owner: str) -> str:
            await self.turns.wait()
            first = await self.helper("ann")
            return "an answer of its own" if answers else f"{await function(owner)} {first}"

        return asking_first


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        user: who calls.
        tool: what.
        owner: about whose notes.
    """

    user: str
    tool: str
    owner: str

    def expected(self) -> str | None:
        """Return what it comes to by itself; None for a refusal."""
        user, owner, held = self.user, self.owner, CALLERS[self.user]
        may, may_help = f"notes.{owner}" in held, "notes.ann" in held
        if self.tool == "asking":
            return ", ".join(
                sorted(
                    f"{user} {each}" if f"notes.{each}" in held else f"not notes.{each}"
                    for each in (owner, *OWNERS)
                )
            )
        if self.tool == "instead_of_it" or not may:
            return None  # its own wrapper never decides on it
        plain = f"{user} {owner} {user}"
        if self.tool == "plain":
            return plain
        if not may_help:
            return None
        return f"{user} {owner} with {user} ann" if self.tool == "helped" else f"{plain} {user} ann"


CALLS = st.builds(
    Call,
    st.sampled_from(sorted(CALLERS)),
    st.sampled_from(["plain", "helped", "asking", "after_a_helper", "instead_of_it", "sandwiched"]),
    st.sampled_from(OWNERS),
)


async def _answers(office: Office, calls: Sequence[Call]) -> list[ServerAnswer]:
    answers: dict[int, ServerAnswer] = {}

    async def ask(at: int, call: Call) -> None:
        client: Any = AsyncGuardedClient(
            office.server, user=call.user, scopes=sorted(CALLERS[call.user])
        )
        answers[at] = await client.call(call.tool, {"owner": call.owner})
        office.turns.end()

    async with anyio.create_task_group() as group:
        for at, call in enumerate(calls):
            group.start_soon(ask, at, call)
        await office.turns.take(len(calls))
    return [answers[at] for at in range(len(calls))]


def test_law_2_no_decision_changes_another(line: Line, guarding: Guarding) -> None:
    """However calls overlap, each comes to what it comes to by itself, for its own caller."""
    office = Office(line)
    guarding().protect(office.server)

    @settings(max_examples=40)
    @given(st.lists(CALLS, min_size=2, max_size=5), st.lists(st.integers(0, 60), max_size=40))
    def holds(calls: list[Call], order: list[int]) -> None:
        office.turns = Turns(order)
        for call, answer in zip(calls, anyio.run(_answers, office, calls), strict=True):
            expected = call.expected()
            assert answer.ok == (expected is not None), (call, answer)
            if expected is not None:
                assert answer.text == expected, call
            else:
                assert answer.error in ("insufficient_scope", "access_denied"), (call, answer)

    holds()
