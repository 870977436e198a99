"""Which connections does a guard hand out while its server is searched for leaks?

Tokens that no service accepts and that are like no other, so that each can be told from where it
turns up. The guard's own provider is not asked, and no cache stands before this one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.guard import ToolGuard
from toolguard.testing.markers import Markers
from toolguard.testing.wiring import Wiring

__all__ = ["marked_connections"]

_LIFETIME = 3_600


class _Handouts:
    """A provider that has every connection, and tells ``markers`` which tokens it gave."""

    def __init__(self, clock: Callable[[], float], markers: Markers) -> None:
        self._clock = clock
        self._markers = markers

    async def fetch(self, request: ConnectionRequest) -> Connection:
        token = secrets.token_urlsafe(48)
        self._markers.add(f"token of connection {request.name}", token)
        expires_at = self._clock() + _LIFETIME
        return Connection(token, scopes=request.scopes, expires_at=expires_at)


def marked_connections(guard: ToolGuard, markers: Markers) -> AbstractContextManager[None]:
    """Let ``guard`` hand out tokens that ``markers`` knows, in this context.

    A guard without connections goes on to have none.
    """
    if guard.connections is None:
        return nullcontext()
    return Wiring(guard, connections=_Handouts(guard.clock, markers)).used()
