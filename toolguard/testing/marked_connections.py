"""Which connections does a guard hand out while its server is searched for leaks?

Tokens that no service accepts and that are like no other, so that each can be told from where it
turns up. The guard's own provider is not asked, and no cache stands before this one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from toolguard.connections.protocol import Connection, ConnectionProvider, ConnectionRequest
from toolguard.guard import ToolGuard
from toolguard.testing.markers import Markers

__all__ = ["marked_connections"]

_LIFETIME = 3_600


class _Handouts:
    """A provider that has every connection, for whom everybody looks whose markers it knows."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.lookouts: list[Markers] = []

    async def fetch(self, request: ConnectionRequest) -> Connection:
        token = secrets.token_urlsafe(48)
        for markers in tuple(self.lookouts):
            markers.add(f"token of connection {request.name}", token)
        expires_at = self._clock() + _LIFETIME
        return Connection(token, scopes=request.scopes, expires_at=expires_at)


_lock = threading.Lock()
#: What each guard fetched from before, and what it fetches from while somebody looks.
_replaced: WeakKeyDictionary[ToolGuard, tuple[ConnectionProvider, _Handouts]] = WeakKeyDictionary()


@contextmanager
def marked_connections(guard: ToolGuard, markers: Markers) -> Iterator[None]:
    """Let ``guard`` hand out tokens that ``markers`` knows; searches may overlap.

    A guard without connections goes on to have none.
    """
    with _lock:
        if guard.connections is not None and guard not in _replaced:
            _replaced[guard] = (guard.connections, _Handouts(guard.clock))
            guard.connections = _replaced[guard][1]
        handouts = _replaced[guard][1] if guard in _replaced else _Handouts(guard.clock)
        handouts.lookouts.append(markers)
    try:
        yield
    finally:
        with _lock:
            handouts.lookouts.remove(markers)
            if guard in _replaced and not handouts.lookouts:
                guard.connections = _replaced.pop(guard)[0]
