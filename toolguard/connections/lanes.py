"""A lane for each caller: so many requests at a time, whatever the other callers do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio

from toolguard.tokens.per_loop import PerLoop

if TYPE_CHECKING:
    from anyio import Semaphore

__all__ = ["Lanes"]


@dataclass
class _Lane:
    room: Semaphore
    users: int = field(default=0)


class Lanes:
    """Limits how much of one caller is under way at the same time, in each event loop.

    Args:
        width: how much; what is more waits in turn.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._lanes: PerLoop[dict[Hashable, _Lane]] = PerLoop(dict)

    @asynccontextmanager
    async def enter(self, caller: Hashable) -> AsyncIterator[None]:
        """Wait for room in the lane of ``caller``, and keep it for the block.

        Args:
            caller: what tells one caller from another.
        """
        lanes = self._lanes.get()
        lane = lanes.setdefault(caller, _Lane(anyio.Semaphore(self._width)))
        lane.users += 1
        try:
            async with lane.room:
                yield
        finally:
            lane.users -= 1
            if not lane.users:
                lanes.pop(caller, None)
