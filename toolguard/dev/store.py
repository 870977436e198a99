"""The SQLite store of the development server.

It is one SQLite connection. Credentials (codes, refresh tokens, sessions, client secrets) are
stored as digests only; the signing keys and the key of the vault cannot be, so a state file is
readable by its owner only. The vault has a file of its own beside it, with sealed rows.
"""

from __future__ import annotations

import hmac
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from typing_extensions import Self

__all__ = ["Store", "digest"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS signing_key (
    kid TEXT PRIMARY KEY, pem TEXT NOT NULL, state TEXT NOT NULL, retired_at REAL
);
CREATE TABLE IF NOT EXISTS client (
    client_id TEXT PRIMARY KEY, name TEXT NOT NULL, redirect_uris TEXT NOT NULL,
    grant_types TEXT NOT NULL, auth_method TEXT NOT NULL, secret_digest TEXT,
    dpop_bound INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS session (
    digest TEXT PRIMARY KEY, user_id TEXT, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS sign_in (
    digest TEXT PRIMARY KEY, session TEXT NOT NULL, request TEXT, return_to TEXT,
    email TEXT, provider_code TEXT, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS grant_ (
    grant_id TEXT PRIMARY KEY, client_id TEXT NOT NULL, user_id TEXT NOT NULL,
    resource TEXT NOT NULL, scopes TEXT NOT NULL, expires_at REAL NOT NULL, revoked_at REAL
);
CREATE TABLE IF NOT EXISTS code (
    digest TEXT PRIMARY KEY, grant_id TEXT NOT NULL, redirect_uri TEXT, challenge TEXT NOT NULL,
    expires_at REAL NOT NULL, used_at REAL, nonce TEXT
);
CREATE TABLE IF NOT EXISTS refresh_token (
    digest TEXT PRIMARY KEY, grant_id TEXT NOT NULL, used_at REAL, jkt TEXT
);
CREATE TABLE IF NOT EXISTS assertion (
    digest TEXT PRIMARY KEY, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS access_token (
    jti TEXT PRIMARY KEY, grant_id TEXT NOT NULL, expires_at REAL NOT NULL, revoked_at REAL
);
CREATE TABLE IF NOT EXISTS vault_key (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL);
-- What older versions kept: tokens of other services, in the clear.
DROP TABLE IF EXISTS vault_token;
DROP TABLE IF EXISTS connect_link;
DROP TABLE IF EXISTS connect_attempt;
"""

# The columns that older versions did not have.
_ADDED = {
    "code": ("nonce", "TEXT"),
    "client": ("dpop_bound", "INTEGER NOT NULL DEFAULT 0"),
    "refresh_token": ("jkt", "TEXT"),
}


class Store:
    """The state of one development server.

    Args:
        path: a file that keeps it, created for its owner only if it is not there; by default it
            is forgotten with the process.

    Attributes:
        db: the connection; hold ``lock`` while you use it, and open no transaction within
            another: ``with store.transaction() as db: ...`` does both.
        lock: see ``db``.
        vault_url: the database of the vault, ``FILE.vault`` beside the file; one that is deleted
            at the end where there is no file.

    Raises:
        OSError: if the file cannot be made.
        sqlite3.DatabaseError: if it holds something else.
    """

    def __init__(self, path: str = ":memory:") -> None:
        if path != ":memory:":
            # Created here, so that no other user can read it.
            os.close(os.open(Path(path), os.O_RDWR | os.O_CREAT, 0o600))
            self.vault_url = f"sqlite:///{path}.vault"
        else:
            directory = tempfile.mkdtemp(prefix="toolguard-dev-")
            weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
            self.vault_url = f"sqlite:///{directory}/vault.db"
        self.lock = threading.RLock()
        self.db = sqlite3.connect(path, check_same_thread=False)
        weakref.finalize(self, self.db.close)
        try:
            self.db.executescript(_SCHEMA)
            _add_columns(self.db)
            if path != ":memory:":
                Path(path).chmod(0o600)  # it may have been there; one of another user is refused
        except (sqlite3.DatabaseError, OSError):
            self.db.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock; commit at the end, or roll back if it ends in an exception."""
        with self.lock, self.db:
            yield self.db

    def forget(self, now: float) -> None:
        """Drop what can have no effect any more at ``now`` (seconds since the epoch)."""
        with self.transaction() as db:
            for table in ("session", "sign_in", "assertion", "access_token", "grant_"):
                # A fixed name from the line above.
                db.execute(f"DELETE FROM {table} WHERE expires_at <= ?", (now,))  # noqa: S608
            for table in ("code", "refresh_token"):
                db.execute(
                    f"DELETE FROM {table} WHERE grant_id NOT IN (SELECT grant_id FROM grant_)"  # noqa: S608
                )

    def vault_key(self) -> bytes:
        """Return the key that seals what the vault keeps; the same for the same state."""
        new = secrets.token_bytes(32)
        with self.transaction() as db:
            db.execute("INSERT OR IGNORE INTO vault_key VALUES (1, ?)", (new,))
            key: bytes = db.execute("SELECT key FROM vault_key").fetchone()[0]
        return key

    def secret(self, name: str) -> str:
        """Return the secret of that name; the same for the same state."""
        return hmac.new(self.vault_key(), name.encode(), sha256).hexdigest()

    def close(self) -> None:
        """Close the connection; the store is of no use any more."""
        with self.lock:
            self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _add_columns(db: sqlite3.Connection) -> None:
    """Add what the state file of an older version lacks."""
    for table, (column, kind) in _ADDED.items():
        columns = {name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")}
        if column not in columns:
            with db:
                db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")


def digest(secret: str) -> str:
    """Return what is kept instead of ``secret``, which has to be random and long."""
    return sha256(secret.encode()).hexdigest()
