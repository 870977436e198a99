"""Run what decides on calls in threads of its own, so that no tool keeps a decision waiting.

The frameworks, and the guard for synchronous tools, share the threads of one event loop: as many
slow tools as there are threads would hold up every decision of everybody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

__all__ = ["in_own_thread"]

ResultT = TypeVar("ResultT")

_MAX_THREADS = 40

_limiter: RunVar[anyio.CapacityLimiter] = RunVar("toolguard_threads")


async def in_own_thread(
    function: Callable[..., ResultT], *args: object, abandon: bool = False
) -> ResultT:
    """Call ``function`` in a thread that no tool uses, and return its result.

    Args:
        function: the function.
        args: its arguments.
        abandon: whether a cancelled call leaves the thread alone, instead of waiting for it.
    """
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_MAX_THREADS)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(
        function, *args, abandon_on_cancel=abandon, limiter=limiter
    )
