"""The DPoP proofs that were accepted, on a Redis: for several processes and machines."""

from __future__ import annotations

import time
from collections.abc import Callable

from toolguard.connections.redis_client import RedisClient
from toolguard.errors import KeysUnavailableError

__all__ = ["RedisReplays"]


class RedisReplays:
    """The proofs that any of the processes with this Redis has accepted (RFC 9449 §11.1).

    Redis learns a digest for each proof, which it deletes when the proof is too old. While Redis
    is unavailable, no bound token is accepted: such requests are answered with 503.

    Args:
        url: the URL of Redis: ``"rediss://user:password@host:6379/0"``; ``redis://`` without
            TLS, ``unix://`` for a socket.
        prefix: the common prefix of the names of all entries: one for each server, because a
            proof for one server may be shown to another one, which refuses it.
        timeout: seconds for one exchange with Redis.
        clock: a monotonic clock, in seconds.
        wall_clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if ``url`` is not a Redis URL, or ``timeout`` is out of range.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "toolguard:proof:",
        timeout: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix
        self._wall_clock = wall_clock
        self._client = RedisClient(
            url,
            example='RedisReplays("rediss://user:password@host:6379/0")',
            without="tokens that are bound to a key are not accepted",
            timeout=timeout,
            clock=clock,
        )

    async def is_first(self, key: str, proof_id: bytes, until: float) -> bool:
        """Record that a proof is used now; return whether that is its first use.

        Args:
            key: the thumbprint of the key that signed it.
            proof_id: a digest of the key and of the ``jti``.
            until: when the proof is too old to be accepted, in seconds since the epoch.

        Raises:
            KeysUnavailableError: if Redis is unavailable.
        """
        del key  # it is in the digest
        # A second more: the clocks of two processes may round differently.
        milliseconds = max(1, int((until - self._wall_clock() + 1) * 1_000))
        name = f"{self._prefix}{proof_id.hex()}"
        answers = await self._client.ask(("SET", name, b"1", "NX", "PX", milliseconds))
        if answers == [None]:  # there is such an entry
            return False
        if len(answers) != 1 or isinstance(answers[0], Exception):
            raise KeysUnavailableError("Whether the DPoP proof is new cannot be checked now")
        return True

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later use opens new ones."""
        await self._client.aclose()

    def __repr__(self) -> str:
        return f"<RedisReplays: {self._prefix}*>"
