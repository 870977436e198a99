"""The database of a vault: SQLite or Postgres, through the asynchronous drivers of SQLAlchemy.

Every statement is a transaction of its own: nothing is locked while a third-party service is asked.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import AsyncAdaptedQueuePool, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from toolguard.parts.extras import explained
from toolguard.tokens.per_loop import PerLoop
from toolguard.vault.schema import SCHEMA_VERSION, SchemaError, found_version, upgrade

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

__all__ = ["Database"]

_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
}
_WRITE_URL = (
    'write "sqlite:///vault.db" or "postgresql://user:password@host/database", with what is not a '
    "letter or a digit in the password percent-encoded"
)
# Nothing is to be rolled back where every statement is a transaction of its own.
_POOL = {"pool_size": 5, "max_overflow": 15, "pool_timeout": 5, "pool_reset_on_return": None}


class Database:
    """Opens connections to the database of a vault, in every event loop.

    An empty database gets its tables at the first use. Tables of an earlier version are moved
    forward by ``toolguard vault upgrade`` only.

    Args:
        url: ``"sqlite:///vault.db"``, or ``"postgresql://user:password@host/database"``.

    Raises:
        ValueError: if the URL is not one of these two forms.
    """

    def __init__(self, url: str) -> None:
        self._url = _async_url(url)
        self._engines = PerLoop(self._new_engine)
        self._refusals: tuple[type[Exception], ...] = ()
        #: Whether it has been opened, with its tables in place.
        self.is_ready = False

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection in autocommit mode, with the tables in place.

        Raises:
            SchemaError: if the tables are of another version.
            sqlalchemy.exc.SQLAlchemyError: if there is no connection.
            OSError: the same, for Postgres.
        """
        engine = self._engines.get()
        try:
            async with engine.connect() as db:
                if not self.is_ready:
                    await db.run_sync(_prepare)
                    self.is_ready = True
                yield db
        except self._refusals as fault:
            raise ConnectionRefusedError(type(fault).__name__) from None

    async def upgrade(self) -> tuple[int, int]:
        """Move the tables forward; return their version before and after.

        Raises:
            SchemaError: if the tables are of a later version.
        """
        async with self._engines.get().connect() as db:
            return await db.run_sync(upgrade)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later use opens new ones."""
        engine = self._engines.pop()
        if engine is not None:
            await engine.dispose()

    def _new_engine(self) -> AsyncEngine:
        is_file = self._url.get_backend_name() == "sqlite"
        if is_file:
            # A new file is for this user only.
            os.close(os.open(str(self._url.database), os.O_CREAT | os.O_RDWR, 0o600))
        with explained():
            engine = create_async_engine(
                self._url,
                isolation_level="AUTOCOMMIT",
                hide_parameters=True,
                # Named, because older releases of SQLAlchemy keep no connections to a file.
                poolclass=AsyncAdaptedQueuePool,
                **_POOL,
            )
        if is_file:
            event.listen(engine.sync_engine, "connect", _set_up_sqlite)
        if engine.dialect.driver == "asyncpg":
            from asyncpg import InterfaceError, PostgresError  # noqa: PLC0415 - may be missing

            # What it raises while Postgres starts or ends; SQLAlchemy translates that from 2.1 on.
            self._refusals = (PostgresError, InterfaceError)
        return engine

    def __repr__(self) -> str:
        return f"<Database: {self._url.render_as_string(hide_password=True)}>"


def _async_url(url: str) -> URL:
    try:
        read = make_url(url)
    except (ArgumentError, ValueError):
        read = None
    # Raised here, where no exception is being handled: one about a URL may quote its password.
    if read is None or read.drivername.partition("+")[0] not in _DRIVERS:
        raise ValueError(_WRITE_URL)
    if read.get_backend_name() == "sqlite" and read.database in (None, "", ":memory:"):
        raise ValueError(f"a vault in memory would lose what users gave it: {_WRITE_URL}")
    if "+" in read.drivername:
        return read
    return read.set(drivername=_DRIVERS[read.drivername])


def _prepare(db: Any) -> None:
    found = found_version(db) or upgrade(db)[1]
    if found != SCHEMA_VERSION:
        raise SchemaError(
            f"the vault's tables have version {found} and this toolguard works with "
            f"{SCHEMA_VERSION}: run `toolguard vault upgrade`"
        )


def _set_up_sqlite(connection: Any, record: object) -> None:  # noqa: ARG001 - the event's
    cursor = connection.cursor()
    # Readers and a writer do not wait for each other; a commit is on the disk when it returns,
    # because a service may never again send the refresh token that is in it.
    for setting in ("busy_timeout=5000", "journal_mode=WAL", "synchronous=FULL"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()
