"""The provider tokens in the development vault, by owner."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ConnectionTable", "Owner", "ProviderToken"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS vault_token (
    kind TEXT NOT NULL, owner TEXT NOT NULL, app TEXT NOT NULL, id TEXT NOT NULL,
    subject TEXT NOT NULL, access_token TEXT NOT NULL, refresh_token TEXT NOT NULL,
    scopes TEXT NOT NULL, expires_at REAL, PRIMARY KEY (kind, owner, app)
);
"""


@dataclass(frozen=True)
class Owner:
    """Whom a connection belongs to: a user, or a tenant as a whole."""

    kind: Literal["user", "tenant"]
    id: str


@dataclass(frozen=True)
class ProviderToken:
    """A provider's tokens for one owner; never in the representation.

    Attributes:
        id: names the entry.
        subject: the account at the provider; empty where the provider does not say.
        access_token: what the provider's API takes.
        refresh_token: what its token endpoint takes; empty if it gave none.
        scopes: what was consented to.
        expires_at: when ``access_token`` expires, in seconds since the epoch; None if unknown.
    """

    id: str
    subject: str
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scopes: tuple[str, ...]
    expires_at: float | None


class ConnectionTable:
    """The vault's state: at most one token per owner and app.

    Args:
        db: where it is kept; opened with ``check_same_thread=False``.
        lock: held while ``db`` is used, where others use it as well.
    """

    def __init__(self, db: sqlite3.Connection, lock: threading.RLock | None = None) -> None:
        self._db = db
        self._lock = lock or threading.RLock()
        with self._lock:
            db.executescript(_SCHEMA)

    @classmethod
    def in_memory(cls) -> ConnectionTable:
        """Return an empty table that is forgotten with the process."""
        db = sqlite3.connect(":memory:", check_same_thread=False)
        table = cls(db)
        weakref.finalize(table, db.close)
        return table

    def put(self, owner: Owner, app: str, token: ProviderToken) -> None:
        """Keep ``token``, instead of what was there for this owner and app."""
        row = (
            *(owner.kind, owner.id, app, token.id, token.subject),
            *(token.access_token, token.refresh_token, " ".join(token.scopes), token.expires_at),
        )
        with self._lock, self._db:
            self._db.execute(
                "INSERT OR REPLACE INTO vault_token VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )

    def get(self, owner: Owner, app: str) -> ProviderToken | None:
        """Return the owner's token for ``app``; None if it is not connected."""
        with self._lock:
            row = self._db.execute(
                "SELECT id, subject, access_token, refresh_token, scopes, expires_at"
                " FROM vault_token WHERE kind = ? AND owner = ? AND app = ?",
                (owner.kind, owner.id, app),
            ).fetchone()
        if row is None:
            return None
        token_id, subject, access_token, refresh_token, scopes, expires_at = row
        granted = tuple(scopes.split())
        return ProviderToken(token_id, subject, access_token, refresh_token, granted, expires_at)

    def remove(self, owner: Owner, app: str) -> bool:
        """Forget the owner's token for ``app``; return if there was one."""
        with self._lock, self._db:
            done = self._db.execute(
                "DELETE FROM vault_token WHERE kind = ? AND owner = ? AND app = ?",
                (owner.kind, owner.id, app),
            )
        return done.rowcount > 0
