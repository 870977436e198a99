"""The database of a vault: SQLite or Postgres, through the asynchronous drivers of SQLAlchemy.

Every statement is a transaction of its own: nothing is locked while a third-party service is asked.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import AsyncAdaptedQueuePool, and_, event, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from toolguard.parts.extras import explained
from toolguard.tokens.per_loop import PerLoop
from toolguard.vault.schema import SCHEMA_VERSION, SchemaError, found_version, upgrade

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.sql.base import Executable

__all__ = ["Database", "DatabaseAwayError", "insert_into", "surplus"]

AnswerT = TypeVar("AnswerT")

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


class DatabaseAwayError(Exception):
    """The database cannot be used now; the text names the type of the fault."""


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

    async def ask(self, question: Callable[[AsyncConnection], Awaitable[AnswerT]]) -> AnswerT:
        """Return the answer to a question.

        Args:
            question: asks it on one connection, in autocommit mode.

        Raises:
            DatabaseAwayError: if the database cannot be used; without a cause, which may quote a
                row.
            SchemaError: if the tables are of another version.
        """
        try:
            async with self.connect() as db:
                return await question(db)
        except (SQLAlchemyError, sqlite3.Error, OSError) as fault:
            error = DatabaseAwayError(type(fault).__name__)
        raise error

    async def rows(
        self, statement: Executable | Callable[[AsyncConnection], Executable]
    ) -> list[Any]:
        """Return the rows of a statement, by the names of their columns.

        Args:
            statement: the statement, or a function of the connection that returns it.

        Raises:
            DatabaseAwayError: if the database cannot be used.
            SchemaError: if the tables are of another version.
        """

        async def execute(db: AsyncConnection) -> list[Any]:
            found = await db.execute(statement(db) if callable(statement) else statement)
            return list(found.mappings()) if found.returns_rows else []

        return await self.ask(execute)

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


def insert_into(table: Table, db: AsyncConnection) -> postgresql.Insert | sqlite.Insert:
    """Return an insertion that may have ``on_conflict_do_update``, for the database of ``db``."""
    is_postgres = db.dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgres else sqlite.insert(table)


def surplus(
    table: Table, same: Iterable[str], row: Mapping[str, Any], most: int
) -> ColumnElement[bool]:
    """Match the rows that expire first, so that there is room for one.

    Args:
        table: a table with one column as its key, and ``expires_at``.
        same: the columns in which the counted rows are as ``row``.
        row: the row that there has to be room for.
        most: how many rows there may be.
    """
    (key,) = table.primary_key.columns
    alike = and_(*(table.c[name] == row[name] for name in same))
    kept = select(key).where(alike).order_by(table.c.expires_at.desc()).limit(most - 1)
    return and_(alike, key.not_in(kept))


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
