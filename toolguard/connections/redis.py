"""A cache of connections on a Redis, encrypted, for several processes and machines.

Redis learns the number of entries, their lengths and their lifetimes. Their names are keyed
digests and their values are encrypted, each with its own key, which is derived from the name: a
value cannot be decrypted under another name.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from toolguard.connections.protocol import Connection
from toolguard.connections.redis_client import RedisClient
from toolguard.connections.sealing import NamedCipher, read_keys
from toolguard.parts.environment import CACHE_KEYS, secret

__all__ = ["KEYS_VARIABLE", "RedisTokenCache"]

#: The environment variable that the keys are taken from by default.
KEYS_VARIABLE = CACHE_KEYS

# How long to wait for another replica that fetches: 1.5 s, then fetch anyway.
_WAITS = (0.02, 0.04, 0.08, 0.16, 0.3, 0.4, 0.5)
_CLAIM_MILLISECONDS = 2_000


class RedisTokenCache:
    """Stores connections on a Redis, for every process that has one of the same keys.

    Redis deletes an entry when its time to live is over. While Redis is unavailable, every
    connection is fetched; that is logged ("toolguard.connections") every 30 s.

    Args:
        url: the URL of Redis: ``"rediss://user:password@host:6379/0"``; ``redis://`` without
            TLS, ``unix://`` for a socket.
        keys: 32 bytes each, as bytes or in base64; by default those in the environment variable
            ``TOOLGUARD_CACHE_KEYS``, separated by commas. Entries are written with the first and
            read with any. To change a key while the processes serve: give all of them the new one
            after the old one; then, all of them the new one first; the old one can be removed a
            minute (``max_age``) later.
        prefix: the common prefix of the names of all entries.
        timeout: seconds for one exchange with Redis.
        clock: a monotonic clock, in seconds.
        wall_clock: returns the time, in seconds since the epoch.
        sleep: waits for a number of seconds.

    Raises:
        ValueError: if there is no key, one is not 32 bytes, or ``url`` is not a Redis URL.
        TypeError: if ``keys`` is not a list.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        url: str,
        *,
        keys: Sequence[str | bytes] | None = None,
        prefix: str = "toolguard:",
        timeout: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._prefix = prefix
        self._ciphers = [_EntryCipher(key, prefix) for key in _read_keys(keys)]
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._client = RedisClient(
            url,
            example='RedisTokenCache("rediss://user:password@host:6379/0")',
            without="bypassing the cache",
            timeout=timeout,
            clock=clock,
        )

    @property
    def shared(self) -> bool:
        """True: every process that has one of the keys."""
        return True

    async def get(self, key: str) -> Connection | None:
        """Return the connection stored under ``key``, encrypted with any of the keys."""
        return self._decrypt(key, await self._client.ask(*self._reads(key)))

    async def put(self, key: str, connection: Connection, ttl: float) -> None:
        """Store ``connection`` for ``ttl`` seconds, and end the claim on ``key``."""
        cipher = self._ciphers[0]
        milliseconds = max(1, int(ttl * 1_000))
        encrypted = cipher.encrypt(key, connection, self._wall_clock() + ttl)
        await self._client.ask(
            # A Redis that is out of memory deletes but does not set: no older entry must stay.
            ("DEL", *(each.name(key) for each in self._ciphers)),
            ("SET", cipher.name(key), encrypted, "PX", milliseconds),
            ("DEL", cipher.claim(key)),
        )

    async def drop(self, key: str) -> None:
        """Delete the entry under ``key``, and end the claim on it."""
        names = [cipher.name(key) for cipher in self._ciphers]
        await self._client.ask(("DEL", self._ciphers[0].claim(key), *names))

    async def claim(self, key: str) -> Connection | None:
        """Return None to let the calling code fetch, or what another process has fetched.

        A claim lasts 2 s; this waits up to 1.5 s for a process that holds it.

        Args:
            key: the key of the entry.
        """
        take = ("SET", self._ciphers[0].claim(key), b"1", "NX", "PX", _CLAIM_MILLISECONDS)
        for seconds in _WAITS:
            answers = await self._client.ask(take, *self._reads(key))
            connection = self._decrypt(key, answers[1:])
            # `SET NX` returned nil: another process holds the claim.
            if connection is not None or answers[:1] != [None]:
                return connection
            await self._sleep(seconds)
        return await self.get(key)

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later use opens new ones."""
        await self._client.aclose()

    def _reads(self, key: str) -> list[tuple[str, str]]:
        return [("GET", cipher.name(key)) for cipher in self._ciphers]

    def _decrypt(self, key: str, answers: list[Any]) -> Connection | None:
        found = (
            cipher.decrypt(key, encrypted, self._wall_clock())
            for cipher, encrypted in zip(self._ciphers, answers, strict=False)
        )
        return next((connection for connection in found if connection is not None), None)

    def __repr__(self) -> str:
        return f"<RedisTokenCache: {self._prefix}*, keys: {len(self._ciphers)}>"


class _EntryCipher:
    """Names entries and claims, and encrypts and decrypts values, with one configured key."""

    def __init__(self, key: bytes, prefix: str) -> None:
        self._cipher = NamedCipher(key, "toolguard connection 2")
        self._prefix = prefix

    def name(self, key: str) -> str:
        return f"{self._prefix}{self._cipher.derive('name', key).hex()}"

    def claim(self, key: str) -> str:
        return f"{self._prefix}{self._cipher.derive('claim', key).hex()}"

    def encrypt(self, key: str, connection: Connection, until: float) -> bytes:
        """Encrypt a connection that may be served until then: a value put back later is old."""
        facts = [
            until,
            connection.token,
            connection.token_type,
            [*connection.scopes],
            connection.expires_at,
        ]
        return self._cipher.seal(key, json.dumps(facts).encode(), self.name(key).encode())

    def decrypt(self, key: str, encrypted: object, now: float) -> Connection | None:
        """Decrypt a connection; None unless it was encrypted for ``key`` and is not old."""
        text = self._cipher.open(key, encrypted, self.name(key).encode())
        if text is None:
            return None
        until, token, token_type, scopes, expires_at = json.loads(text)
        if now >= until:
            return None
        return Connection(token, token_type, tuple(scopes), expires_at)


def _read_keys(given: Sequence[str | bytes] | None) -> list[bytes]:
    if given is None:
        given = [key for key in (secret(KEYS_VARIABLE) or "").split(",") if key.strip()]
    return read_keys(
        given,
        absent=f"a shared cache is encrypted: write keys=[...] or set {KEYS_VARIABLE} to the "
        "output of: openssl rand -base64 32",
    )
