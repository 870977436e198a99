"""How does code outside of an event loop get what a coroutine returns?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

__all__ = ["wait_for"]

T = TypeVar("T")


def wait_for(make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in an event loop and a thread of its own, whatever runs in this one."""
    with start_blocking_portal() as portal:
        return portal.call(make)
