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
from toolguard.testing.leaks.needles import Needles
from toolguard.testing.wiring import Wiring

__all__ = ["marked_connections"]

_LIFETIME = 3_600


class _Handouts:
    """A provider that has every connection, and adds the tokens it returns to ``needles``."""

    def __init__(self, clock: Callable[[], float], needles: Needles) -> None:
        self._clock = clock
        self._needles = needles

    async def fetch(self, request: ConnectionRequest) -> Connection:
        token = secrets.token_urlsafe(48)
        self._needles.add(f"token of connection {request.name}", token)
        expires_at = self._clock() + _LIFETIME
        return Connection(token, scopes=request.scopes, expires_at=expires_at)


def marked_connections(guard: ToolGuard, needles: Needles) -> AbstractContextManager[None]:
    """Have ``guard`` use connections whose tokens are in ``needles``, in this context.

    A guard without connections is not changed.
    """
    if guard.connections is None:
        return nullcontext()
    return Wiring(guard, connections=_Handouts(guard.clock, needles)).used()
