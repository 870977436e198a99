"""How do tests wait for a deadline without waiting?"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_in_virtual_time"]

T = TypeVar("T")


class _Skipping(selectors.DefaultSelector):
    """Wait for no time, but add it up."""

    waited = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select()
        self.waited += max(timeout, 0)
        return super().select(0)


def run_in_virtual_time(main: Coroutine[Any, Any, T]) -> tuple[T | Exception, float]:
    """Run to the end what waits for nothing but time; return how it ended, and after how long.

    Args:
        main: what is run.

    Returns:
        What it returned or raised, and the seconds that passed for it.
    """
    selector = _Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.waited  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(main), selector.waited
    except Exception as error:  # noqa: BLE001 - handed on
        return error, selector.waited
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
