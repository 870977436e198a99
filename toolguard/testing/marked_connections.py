"""The connections of a guard during a search for leaks.

Their tokens are unique, and no service accepts them. The guard's own provider is not used, and
nothing is cached.
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
    """A provider that has every connection, and adds the tokens it returns to ``markers``."""

    def __init__(self, clock: Callable[[], float], markers: Markers) -> None:
        self._clock = clock
        self._markers = markers

    async def fetch(self, request: ConnectionRequest) -> Connection:
        token = secrets.token_urlsafe(48)
        self._markers.add(f"token of connection {request.name}", token)
        expires_at = self._clock() + _LIFETIME
        return Connection(token, scopes=request.scopes, expires_at=expires_at)


def marked_connections(guard: ToolGuard, markers: Markers) -> AbstractContextManager[None]:
    """Have ``guard`` use connections whose tokens are in ``markers``, in this context.

    A guard without connections is not changed.
    """
    if guard.connections is None:
        return nullcontext()
    return Wiring(guard, connections=_Handouts(guard.clock, markers)).used()
