"""Whose session is this?

The frameworks compare a session's owner only for their own user class and only as far as the
verifier fills it in. Here every stateful session belongs to one principal: issuer, subject and
client (RFC 9068 §2.2 names them), first seen when the server hands out the session id.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass

from cachetools import LRUCache

from toolguard.principal import Principal

__all__ = ["Sessions"]

# Six times what the SDK keeps open at once. A session that falls out answers 404 and the client
# starts a new one (MCP, session management).
_MAX_SESSIONS = 65_536


@dataclass(frozen=True)
class _Owner:
    key: tuple[str, str | None, str | None] | None
    opened_anonymously: bool


class Sessions:
    """The owners of the sessions of one server; bounded, least recently used out first."""

    def __init__(self, max_sessions: int = _MAX_SESSIONS) -> None:
        self._owners: MutableMapping[str, _Owner] = LRUCache(max_sessions)

    def open(self, session_id: str, principal: Principal | None) -> None:
        """Remember who was handed ``session_id``; a session already known keeps its owner."""
        self._owners.setdefault(session_id, _Owner(_key(principal), principal is None))

    def admits(self, session_id: str, principal: Principal | None) -> bool:
        """Return whether ``principal`` may use the session. Unknown sessions admit nobody.

        A session opened without a token is taken over by the first caller with one: that is how
        a client of public tools signs in. From then on it is theirs alone.
        """
        owner = self._owners.get(session_id)
        if owner is None:
            return False
        if principal is not None and principal.user_id is None:
            return False  # two users of one client could not be told apart
        if owner.key is None and principal is not None:
            self._owners[session_id] = _Owner(_key(principal), opened_anonymously=True)
            return True
        return owner.key == _key(principal)

    def opened_anonymously(self, session_id: str) -> bool:
        """Return whether nobody owned the session when it was opened."""
        owner = self._owners.get(session_id)
        return owner is not None and owner.opened_anonymously

    def close(self, session_id: str) -> None:
        """Forget the session."""
        self._owners.pop(session_id, None)


def _key(principal: Principal | None) -> tuple[str, str | None, str | None] | None:
    return None if principal is None else principal.session_key
