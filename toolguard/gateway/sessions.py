"""The sessions with the upstream: one for each caller, so that none sees the state of another."""

from __future__ import annotations

import hashlib
import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from toolguard.gateway.configuration import Upstream
from toolguard.gateway.session import Credential, Log, Progress, Session, UpstreamError
from toolguard.principal import Principal

__all__ = ["CallerKey", "Sessions", "key_of"]

CallerKey: TypeAlias = tuple[str | None, ...] | None
"""The key of callers who may share a session: the issuer first, then the user."""

# A caller, and the digest of the credential that the upstream is shown for them.
_Held: TypeAlias = tuple[CallerKey, bytes | None]


def key_of(principal: Principal | None, *, shared: bool = False) -> CallerKey:
    """Return the key of a caller: those with different keys share no session.

    A session belongs to one owner (:attr:`Principal.owner_key`); callers without a token have one
    together.

    Args:
        principal: the caller; None without a token.
        shared: whether the upstream has no state that is any caller's own.
    """
    if shared or principal is None:
        return None
    return principal.owner_key


class Sessions:
    """The sessions with one upstream; each begins with the first request that needs it.

    Args:
        upstream: the server behind the gateway.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._sessions: dict[_Held, Session] = {}
        self._starting: MemoryObjectSendStream[Session] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold sessions while the block runs; end them with it."""
        self._starting, starting = anyio.create_memory_object_stream[Session](math.inf)
        try:
            async with anyio.create_task_group() as group, self._starting:
                group.start_soon(self._hold, group, starting)
                try:
                    yield
                finally:
                    for session in self._sessions.values():
                        session.close()
                    self._sessions.clear()
        finally:
            self._starting = None

    async def _hold(self, group: TaskGroup, starting: MemoryObjectReceiveStream[Session]) -> None:
        """Run sessions outside of the messages that start them, of whose callers they know nothing.

        A task keeps the context variables of the code that starts it.
        """
        async with starting:
            async for session in starting:
                group.start_soon(session.run)

    async def request(
        self,
        key: CallerKey,
        method: str,
        params: dict[str, Any] | None,
        *,
        credential: Credential | None = None,
        progress: Progress | None = None,
        log: Log | None = None,
    ) -> dict[str, Any]:
        """Pass a request on in the session of a caller, and return its result.

        A request is never sent twice: one that an ending upstream has lost is answered with an
        error, and the next one starts it again.

        Args:
            key: the caller, as :func:`key_of` returns it.
            method: the JSON-RPC method.
            params: its parameters.
            credential: what the upstream is shown for the caller; None for nothing of theirs.
            progress: passes on how far the upstream is.
            log: passes on what it logs meanwhile.

        Raises:
            UpstreamError: if the upstream does not answer.
            Exception: the SDK's error, if the upstream answers with an error.
        """
        session = self._session(key, credential)
        with session.using():
            await session.began()
            # What several callers share tells none of them what it logs for another.
            if key is not None and log is not None:
                session.log = log
            return await session.request(method, params, progress)

    def _session(self, key: CallerKey, credential: Credential | None) -> Session:
        """Return the session of a caller with a credential; a new one if there is none.

        Raises:
            UpstreamError: if there are too many.
        """
        if self._starting is None:
            raise UpstreamError("the gateway does not run: serve the application that it builds")
        # Another token of the caller may be one of another account.
        digest = None if credential is None else hashlib.sha256(credential.header.encode()).digest()
        held = (key, digest)
        found = self._sessions.get(held)
        if found is not None and not found.is_over:
            return found
        for each in [each for each, session in self._sessions.items() if session.is_over]:
            del self._sessions[each]
        self._make_room(key)
        found = self._sessions[held] = Session(self._upstream, credential)
        self._starting.send_nowait(found)
        return found

    def _make_room(self, key: CallerKey) -> None:
        """End the least recently used session if there are too many of this user, or of all.

        Raises:
            UpstreamError: if all of them are being used.
        """
        most, user = self._upstream.max_callers, _user_of(key)
        theirs = [held for held in self._sessions if _user_of(held[0]) == user]
        if len(theirs) >= (most + 1) // 2:
            self._end_one(theirs, "as many calls of this user as it may")
        elif len(self._sessions) >= most:
            self._end_one(self._sessions, f"{most} callers")

    def _end_one(self, among: Iterable[_Held], served: str) -> None:
        idle = [held for held in among if not self._sessions[held].users]
        if not idle:
            raise UpstreamError(f"{self._upstream} serves {served} now: try again")
        self._sessions.pop(min(idle, key=lambda held: self._sessions[held].used)).close()


def _user_of(key: CallerKey) -> CallerKey:
    """Return the user of a session, with any client and key; the client of one without a user."""
    if key is None:
        return None
    issuer, user_id, client_id, *_ = key
    return (issuer, user_id, client_id if user_id is None else None)
