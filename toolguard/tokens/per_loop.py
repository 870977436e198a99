"""One value for each event loop: TCP connections and tasks belong to the loop they began on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["PerLoop", "running_loop"]

ValueT = TypeVar("ValueT")


class PerLoop(Generic[ValueT]):
    """A value for each event loop, made when it is first used there.

    The values of closed loops are dropped. (Not a WeakKeyDictionary: a pool refers to its loop,
    so its entry would never be removed.)

    Args:
        make: makes the value of a loop.
    """

    def __init__(self, make: Callable[[], ValueT]) -> None:
        self._make = make
        self._values: dict[asyncio.AbstractEventLoop, ValueT] = {}

    def get(self) -> ValueT:
        """Return the value of the running loop."""
        loop = running_loop()
        if loop not in self._values:
            self._drop_closed()
            self._values[loop] = self._make()
        return self._values[loop]

    def pop(self) -> ValueT | None:
        """Remove the value of the running loop and return it, or None without one."""
        self._drop_closed()
        return self._values.pop(running_loop(), None)

    def __len__(self) -> int:
        return len(self._values)

    def _drop_closed(self) -> None:
        for loop in [loop for loop in list(self._values) if loop.is_closed()]:
            self._values.pop(loop, None)


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop."""
    import asyncio  # noqa: PLC0415 - takes long to import

    return asyncio.get_running_loop()
