"""The owners of stateful sessions.

The frameworks compare a session's owner only for their own user class and only as far as the
verifier fills it in. Here every stateful session belongs to one principal
(:attr:`Principal.owner_key`), recorded when the server sends the session id.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from toolguard.principal import OwnerKey, Principal

__all__ = ["SessionOwners"]

# Six times what the SDK keeps open at once. A session that is dropped is answered with 404, and
# the client starts a new one (MCP, session management).
_MAX_SESSIONS = 65_536
_MAX_OF_ONE_PRINCIPAL = 1_000
# Callers without a token cannot be told apart.
_MAX_ANONYMOUS = 10_000

_Key: TypeAlias = "OwnerKey | None"


@dataclass(frozen=True)
class _SessionOwner:
    key: _Key
    opened_anonymously: bool


class SessionOwners:
    """The owners of the sessions of one server.

    The number of sessions is bounded, in total and for each principal, so that opening sessions
    ends only sessions of the same principal; the least recently used are dropped first.
    """

    def __init__(
        self,
        max_sessions: int = _MAX_SESSIONS,
        *,
        max_of_one: int = _MAX_OF_ONE_PRINCIPAL,
        max_anonymous: int = _MAX_ANONYMOUS,
    ) -> None:
        self._max_sessions = max_sessions
        self._max_of_one = max_of_one
        self._max_anonymous = max_anonymous
        self._owners: OrderedDict[str, _SessionOwner] = OrderedDict()
        self._ids: dict[_Key, OrderedDict[str, None]] = {}

    def open(self, session_id: str, principal: Principal | None) -> None:
        """Record the owner of ``session_id``; a known session keeps its owner."""
        if session_id not in self._owners:
            self._own(session_id, _SessionOwner(_key(principal), principal is None))

    def admits(self, session_id: str, principal: Principal | None) -> bool:
        """Return whether ``principal`` may use the session; False for unknown sessions.

        A session opened without a token is taken over by the first caller with a token: that is
        how a client of public tools signs in. From then on only that caller may use it.
        """
        owner = self._owners.get(session_id)
        if owner is None:
            return False
        if principal is not None and principal.user_id is None:
            return False  # two users of one client cannot be told apart
        if owner.key is None and principal is not None:
            self.close(session_id)
            self._own(session_id, _SessionOwner(_key(principal), opened_anonymously=True))
            return True
        if owner.key != _key(principal):
            return False
        self._owners.move_to_end(session_id)
        self._ids[owner.key].move_to_end(session_id)
        return True

    def opened_anonymously(self, session_id: str) -> bool:
        """Return whether the session was opened without a token."""
        owner = self._owners.get(session_id)
        return owner is not None and owner.opened_anonymously

    def close(self, session_id: str) -> None:
        """Delete the record of the session."""
        owner = self._owners.pop(session_id, None)
        if owner is None:
            return
        ids = self._ids[owner.key]
        del ids[session_id]
        if not ids:
            del self._ids[owner.key]

    def _own(self, session_id: str, owner: _SessionOwner) -> None:
        ids = self._ids.setdefault(owner.key, OrderedDict())
        self._owners[session_id] = owner
        ids[session_id] = None
        if len(ids) > (self._max_anonymous if owner.key is None else self._max_of_one):
            self.close(next(iter(ids)))
        if len(self._owners) > self._max_sessions:
            self.close(next(iter(self._owners)))


def _key(principal: Principal | None) -> _Key:
    return None if principal is None else principal.owner_key
