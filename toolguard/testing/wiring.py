"""Replace the verifier, connections and clock of a guard in the context of a test.

The replacement is bound to the context of the test (``contextvars``), until it ends. Other uses of
the guard in the process, above all serving it, are not affected. A wiring that has ended has no
effect, even in copies of the context that outlive it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from toolguard.guard import ToolGuard

__all__ = ["Wiring", "current_wirings", "enter", "wired_with"]

_PARTS = ("verifier", "connections", "clock", "leeway")

_wirings: ContextVar[tuple[Wiring, ...]] = ContextVar("toolguard_wirings", default=())


class Wiring:
    """Parts of one guard, from now on until the wiring ends.

    Args:
        guard: the guard.
        parts: the replacements: ``verifier``, ``connections``, ``clock``, ``leeway``.
    """

    def __init__(self, guard: ToolGuard, **parts: Any) -> None:
        self.guard = guard
        self.parts: Mapping[str, Any] = parts
        #: Whether it is over, in whichever contexts it has been entered.
        self.ended = False
        # The guard reads its parts from the context, for good. Its class changes once and its
        # attributes never do: there is nothing to restore, and nothing that two tests or threads
        # could restore in the wrong order.
        kind = type(guard)
        if not isinstance(vars(kind).get("verifier"), _Part):
            reading = {name: _Part(name) for name in _PARTS}
            guard.__class__ = type(kind.__name__, (kind,), reading)

    def replaces(self, guard: ToolGuard, part: str) -> bool:
        """Return whether it has such a part for ``guard``, and has not ended."""
        return self.guard is guard and part in self.parts and not self.ended

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use it in this context, and end it afterwards."""
        with wired_with([self]):
            try:
                yield
            finally:
                self.ended = True


def current_wirings() -> tuple[Wiring, ...]:
    """Return the wirings of this context, the latest last."""
    return _wirings.get()


@contextmanager
def wired_with(wirings: Iterable[Wiring]) -> Iterator[None]:
    """Use wirings in this context; that does not end them."""
    before = _wirings.get()
    _wirings.set((*before, *wirings))
    try:
        yield
    finally:
        _wirings.set(before)


def enter(wiring: Wiring) -> None:
    """Use a wiring in this context until it ends."""
    _wirings.set((*(each for each in _wirings.get() if not each.ended), wiring))


class _Part:
    """An attribute of a guard that a wiring of the current context may replace."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, guard: ToolGuard, _: type[ToolGuard] | None = None) -> Any:
        for each in reversed(_wirings.get()):
            if each.replaces(guard, self._name):
                return each.parts[self._name]
        return vars(guard)[self._name]

    def __set__(self, guard: ToolGuard, value: Any) -> None:
        vars(guard)[self._name] = value
