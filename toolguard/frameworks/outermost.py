"""A chain of middleware in which one always stays outermost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["Outermost"]

MiddlewareT = TypeVar("MiddlewareT")


class Outermost(list[MiddlewareT]):
    """A chain of middleware in which one stays outermost, wherever others are inserted.

    Args:
        chain: the other middlewares, outermost first.
        outermost: the middleware around all of them.
    """

    def __init__(self, chain: Iterable[MiddlewareT], outermost: MiddlewareT) -> None:
        super().__init__(chain)
        self.outermost = outermost

    def __reversed__(self) -> Iterator[MiddlewareT]:
        """Return them from the inside out, as the frameworks compose the chain."""
        return iter((*super().__reversed__(), self.outermost))
