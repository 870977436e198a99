"""Can tools keep the decisions of others waiting, by taking every thread there is?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
import pytest

from support.callers import NOW, person
from toolguard import OperationCall, Principal
from toolguard.http.jsonrpc import parse_message, spelled_out
from toolguard.parts.threads import in_own_thread
from toolguard.policies.formulas import Attempt
from toolguard.policies.requirements import Check

CALL = OperationCall("tool", "note" * 100)


def check(principal: Principal, call: OperationCall) -> bool:
    return threading.current_thread() is not threading.main_thread()


async def decides() -> object:
    return await Check(check).holds(Attempt(person(), frozenset(), CALL, NOW, 0.0))


async def reads() -> object:
    body = b'{"jsonrpc": "2.0", "method": "ping", "params": {"a": "' + b"x" * 70_000 + b'"}}'
    return (await parse_message(body, ())).method == "ping"


async def spells() -> object:
    return await spelled_out(CALL) == (CALL.name,)


async def runs() -> object:
    return await in_own_thread(check, None, None)


@pytest.mark.parametrize("work", [decides, reads, spells, runs])
def test_tools_that_take_all_threads_hold_no_decision_up(
    work: Callable[[], Awaitable[Any]],
) -> None:
    async def main() -> object:
        threads = anyio.to_thread.current_default_thread_limiter()
        for tool in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(tool)
        return await work()

    assert asyncio.run(main()) is True


def test_each_event_loop_has_threads_of_its_own() -> None:
    async def twice() -> list[bool]:
        return [await in_own_thread(check, None, None) for _ in range(2)]

    for _ in range(2):
        assert asyncio.run(twice()) == [True, True]
