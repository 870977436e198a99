"""Warm up and close the parts of a guard: each may have the coroutine methods for that, or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

__all__ = ["close", "warm_up"]


async def warm_up(*parts: object) -> None:
    """Await ``warm_up()`` of those parts that have it, in their order; raise what one raises."""
    await _await_all("warm_up", parts)


async def close(*parts: object) -> None:
    """Await ``aclose()`` of those parts that have it, in their order; raise what one raises."""
    await _await_all("aclose", parts)


async def _await_all(name: str, parts: tuple[object, ...]) -> None:
    for part in parts:
        method: Callable[[], Awaitable[None]] | None = getattr(part, name, None)
        if method is not None:
            await method()
