"""The accounts, grants and events of the Google-like provider.

They are stored in SQLite, in memory or in a file. Tokens are stored as digests, so that a reader of
the file cannot use them.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

__all__ = ["CALENDAR", "CALENDAR_READONLY", "AccountAccess", "Accounts", "IssuedTokens"]

CALENDAR = "https://www.googleapis.com/auth/calendar"
CALENDAR_READONLY = "https://www.googleapis.com/auth/calendar.readonly"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS google_token (
    digest TEXT PRIMARY KEY, kind TEXT NOT NULL, account TEXT NOT NULL,
    scopes TEXT NOT NULL, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS google_event (
    id TEXT NOT NULL, account TEXT NOT NULL, resource TEXT NOT NULL, PRIMARY KEY (account, id)
);
"""


@dataclass(frozen=True)
class AccountAccess:
    """The account that a token is for, by e-mail address, and what its owner consented to."""

    account: str
    scopes: tuple[str, ...]


@dataclass(frozen=True)
class IssuedTokens:
    """What a consent or a refresh gave; ``expires_in`` is in seconds."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    scopes: tuple[str, ...]
    expires_in: int


class Accounts:
    """The provider's state.

    Args:
        db: where it is kept; by default in memory. Opened with ``check_same_thread=False``.
        lock: held while ``db`` is used, where others use it as well.
        clock: the time in seconds since the epoch.
        lifetime: seconds for which an access token is good.
    """

    def __init__(
        self,
        db: sqlite3.Connection | None = None,
        *,
        lock: threading.RLock | None = None,
        clock: Callable[[], float] = time.time,
        lifetime: int = 3_600,
    ) -> None:
        self._db = db if db is not None else sqlite3.connect(":memory:", check_same_thread=False)
        if db is None:
            weakref.finalize(self, self._db.close)
        self._lock = lock or threading.RLock()
        self.clock = clock
        self._lifetime = lifetime
        with self._lock:
            self._db.executescript(_SCHEMA)

    def grant(self, account: str, scopes: Iterable[str]) -> IssuedTokens:
        """Return tokens of a new consent of ``account`` to ``scopes``."""
        access = AccountAccess(account, tuple(scopes))
        return self._issue(access, self._keep("refresh", "1//", access, 1e12))

    def refresh(self, refresh_token: str) -> IssuedTokens | None:
        """Return a new access token; None if the consent has been revoked or never was."""
        access = self._find("refresh", refresh_token)
        return None if access is None else self._issue(access, refresh_token)

    def access(self, access_token: str) -> AccountAccess | None:
        """Return the facts of ``access_token``; None if it is not valid."""
        return self._find("access", access_token)

    def revoke_all(self, account: str) -> None:
        """End every consent of ``account``, as its owner can."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM google_token WHERE account = ?", (account,))

    def has_consents(self, account: str) -> bool:
        """Return whether some application has access to ``account``."""
        with self._lock:
            row = self._db.execute(
                "SELECT 1 FROM google_token WHERE account = ?", (account,)
            ).fetchone()
        return row is not None

    def events(self, account: str) -> list[dict[str, Any]]:
        """Return the event resources in the account's calendar, in no order."""
        with self._lock:
            rows = self._db.execute(
                "SELECT resource FROM google_event WHERE account = ?", (account,)
            ).fetchall()
        return [json.loads(resource) for (resource,) in rows]

    def add_event(self, account: str, resource: dict[str, Any]) -> None:
        """Put an event resource into the account's calendar."""
        row = (resource["id"], account, json.dumps(resource))
        with self._lock, self._db:
            self._db.execute("INSERT INTO google_event VALUES (?, ?, ?)", row)

    def remove_event(self, account: str, event_id: str) -> bool:
        """Remove an event from the account's calendar; return if it was there."""
        with self._lock, self._db:
            done = self._db.execute(
                "DELETE FROM google_event WHERE account = ? AND id = ?", (account, event_id)
            )
        return done.rowcount > 0

    def _issue(self, access: AccountAccess, refresh_token: str) -> IssuedTokens:
        token = self._keep("access", "ya29.", access, self.clock() + self._lifetime)
        return IssuedTokens(token, refresh_token, access.scopes, self._lifetime)

    def _keep(self, kind: str, prefix: str, access: AccountAccess, expires_at: float) -> str:
        token = prefix + secrets.token_urlsafe(32)
        scopes = " ".join(access.scopes)
        row = (_digest(token), kind, access.account, scopes, expires_at)
        with self._lock, self._db:
            self._db.execute("INSERT INTO google_token VALUES (?, ?, ?, ?, ?)", row)
        return token

    def _find(self, kind: str, token: str) -> AccountAccess | None:
        with self._lock:
            row = self._db.execute(
                "SELECT account, scopes FROM google_token"
                " WHERE digest = ? AND kind = ? AND expires_at > ?",
                (_digest(token), kind, self.clock()),
            ).fetchone()
        return None if row is None else AccountAccess(row[0], tuple(row[1].split()))


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()
