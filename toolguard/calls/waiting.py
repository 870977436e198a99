"""Wait for a coroutine in synchronous code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from anyio.from_thread import start_blocking_portal

__all__ = ["wait_for"]

T = TypeVar("T")


def wait_for(make: Callable[[], Awaitable[T]]) -> T:
    """Run a coroutine in a new thread with its own event loop, and return its result."""
    with start_blocking_portal() as portal:
        return portal.call(make)
