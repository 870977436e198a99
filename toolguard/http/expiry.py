"""End a stream of events with the token that opened it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio

__all__ = ["UntilExpiry"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class UntilExpiry:
    """What a client sends until its token expires; it then counts as disconnected.

    Args:
        receive: the ASGI ``receive``.
        seconds: the time until then.

    Attributes:
        has_expired: whether the application was told that the client has disconnected.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self.has_expired = False
        self._receive = receive
        self._deadline = anyio.current_time() + seconds

    async def __call__(self) -> Message:
        """Return the next event from the client (ASGI)."""
        with anyio.CancelScope(deadline=self._deadline):
            return await self._receive()
        self.has_expired = True
        return {"type": "http.disconnect"}
