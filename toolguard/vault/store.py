"""Keep grants: each in one row, sealed, changed by single statements.

A write-back names the version of the row that it comes from, so what happened in between (the user
connected again, or was forgotten) is never overwritten.
"""

from __future__ import annotations

import logging
import secrets
from collections import namedtuple
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import and_, bindparam, delete, or_, select, tuple_, update
from sqlalchemy.dialects import sqlite

from toolguard.connections.retries import MAX_RETRY_AFTER
from toolguard.errors import (
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.vault.database import DatabaseAwayError, insert_into
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.schema import APPROVALS, GRANTS, SLIPS, SchemaError
from toolguard.vault.seals import Seal, UnknownKeyError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Table
    from sqlalchemy.ext.asyncio import AsyncConnection

    from toolguard.vault.database import Database

__all__ = ["GrantStore", "KeptGrant"]

AnswerT = TypeVar("AnswerT")

_log = logging.getLogger("toolguard.vault")
_NO_KEY = (
    "a grant for %s is sealed with a key that is not here: put its key back into keys=[...] "
    "(TOOLGUARD_VAULT_KEYS), behind the first"
)

# On the way of every call: built once.
_IDENTITY = ("kind", "issuer", "owner", "connection")
_GET = select(GRANTS).where(*(GRANTS.c[name] == bindparam(name) for name in _IDENTITY))
_GET_SQLITE = str(_GET.compile(dialect=sqlite.dialect(paramstyle="qmark")))
_GrantRow = namedtuple("_GrantRow", GRANTS.c.keys())  # type: ignore[misc] # noqa: PYI024 - of the table
_BATCH = 200
# Seconds within which a further use is not written: a hit is a read.
_USE_STEP = 3_600.0
# Seconds: the longest pause that a service can ask for, and a minute for clocks that differ.
_LONGEST_CLAIM = MAX_RETRY_AFTER + 60.0
# Of 63 that there is room for.
_VERSION_BITS = 62


@dataclass(frozen=True)
class KeptGrant:
    """A grant with what the store knows about its row.

    Attributes:
        key: whose grant it is, and for which connection.
        grant: the grant.
        version: the version of the row.
        connected_at: when the user connected, in seconds since the epoch.
        used_at: when it was last used, by the hour.
        claimed_by: the process that refreshes it; None if none does.
        claimed_until: until when it does; without such a process: until when none asks the service
            again, which has just failed.
    """

    key: GrantKey
    grant: Grant
    version: int
    connected_at: float
    used_at: float
    claimed_by: str | None
    claimed_until: float

    def pause(self, now: float) -> float:
        """Return the seconds for which no process asks the service again; 0 if one may."""
        pause = self.claimed_until - now if self.claimed_by is None else 0.0
        return pause if 0 < pause <= _LONGEST_CLAIM else 0.0


class GrantStore:
    """The grants of all users.

    Args:
        database: where the rows are.
        seal: seals and opens them.
    """

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal

    async def open(self) -> None:
        """Open the database, unless it has been opened before.

        Raises:
            ConnectionTokenError: if it is away, or its tables are of another version.
        """

        async def look(_: AsyncConnection) -> None:
            """Opening is enough."""

        if not self._database.is_ready:
            await self._ask(look, "the vault")

    async def get(self, key: GrantKey) -> KeptGrant | None:
        """Return the grant; None if there is none.

        Raises:
            ConnectionRequiredError: if the row was changed, or belongs to another identity.
            ConnectionUnavailableError: if the database is away, or the row's key is missing.
        """
        rows = await self._ask(partial(_look_up, _identity(key)), key.connection)
        return await self._opened(rows[0]) if rows else None

    async def put(self, key: GrantKey, grant: Grant, now: float) -> None:
        """Keep what a user has just connected, instead of what was there.

        Args:
            key: whose grant it is, and for which connection.
            grant: the grant.
            now: seconds since the epoch.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        sealed = await self._sealed(key, grant)
        state = {"connected_at": now, "used_at": now, "claimed_by": None, "claimed_until": 0.0}
        # At random: a row that is deleted and made again has no version of the earlier one, which
        # a refresh that is still running would write back over it.
        values = {**_identity(key), **sealed, **state, "version": secrets.randbits(_VERSION_BITS)}

        async def write(db: AsyncConnection) -> None:
            statement = insert_into(GRANTS, db).values(values)
            changed = {**sealed, **state, "version": GRANTS.c.version + 1}
            await db.execute(
                statement.on_conflict_do_update(
                    index_elements=_IDENTITY,
                    set_=changed,
                )
            )

        await self._ask(write, key.connection)

    async def claim(self, kept: KeptGrant, process: str, now: float, until: float) -> bool:
        """Claim the refresh of a grant; return False if it has changed or is claimed.

        A claim for longer than any is made comes from a clock that was wrong, and does not hold.

        Args:
            kept: the grant, as it was read.
            process: what names this process.
            now: seconds since the epoch.
            until: when the claim lapses.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        until_when = GRANTS.c.claimed_until
        is_free = or_(until_when <= now, until_when > now + _LONGEST_CLAIM)
        return await self._change(
            and_(_is_as(kept), is_free), kept, claimed_by=process, claimed_until=until
        )

    async def release(self, kept: KeptGrant, process: str, until: float = 0.0) -> None:
        """End a claim without a new grant.

        Args:
            kept: the grant that was claimed.
            process: what names this process.
            until: until when no process asks the service again, after a failure.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        mine = and_(_is_as(kept), GRANTS.c.claimed_by == process)
        await self._change(mine, kept, claimed_by=None, claimed_until=until)

    async def replace(self, kept: KeptGrant, grant: Grant) -> bool:
        """Write back a refreshed grant; return False if the row has changed since.

        A claim that has lapsed does not matter: whoever refreshed this version first has the
        tokens that the service accepts.

        Args:
            kept: the grant that was refreshed.
            grant: what the service answered.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        sealed = await self._sealed(kept.key, grant)
        state = {"claimed_by": None, "claimed_until": 0.0, "version": kept.version + 1}
        return await self._change(_is_as(kept), kept, **sealed, **state)

    async def note_use(self, kept: KeptGrant, now: float) -> None:
        """Remember that a grant is used, by the hour.

        Args:
            kept: the grant.
            now: seconds since the epoch.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        if now - kept.used_at >= _USE_STEP:
            await self._change(_is(kept.key), kept, used_at=now)

    async def remove(self, key: GrantKey) -> list[KeptGrant | None]:
        """Delete a grant; return what was deleted, as :meth:`forget` does.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        rows = await self._ask(partial(_delete, _is(key)), "the vault")
        return [await self._opened_or_none(row) for row in rows]

    async def forget(self, owner: Owner) -> list[KeptGrant | None]:
        """Delete everything of a person or tenant.

        Returns:
            The grants as they were when they were deleted, which may be later than they were read;
            None for each one that cannot be opened.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """

        async def write(db: AsyncConnection) -> Sequence[Any]:
            await db.execute(delete(SLIPS).where(_belongs(SLIPS, owner)))
            if owner.kind == "user":
                is_theirs = and_(APPROVALS.c.issuer == owner.issuer, APPROVALS.c.owner == owner.id)
                await db.execute(delete(APPROVALS).where(is_theirs))
            return await _delete(_belongs(GRANTS, owner), db)

        rows = await self._ask(write, "the vault")
        return [await self._opened_or_none(row) for row in rows]

    async def of(self, owner: Owner) -> list[KeptGrant]:
        """Return the grants of a person or tenant, by connection; without tokens if one is locked.

        A row that was changed, or whose key is missing, hides none of the others.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        statement = select(GRANTS).where(_belongs(GRANTS, owner)).order_by(GRANTS.c.connection)
        found = await self._ask(lambda db: db.execute(statement), "the vault")
        return [await self._opened_or_none(row) or _read(row, Grant("")) for row in found.all()]

    async def reseal(self) -> int:
        """Seal the rows anew that are under another key; return their number.

        It may run while the vault serves: a row that changes meanwhile has the new key already.

        Raises:
            ConnectionUnavailableError: if the database is away, or a row's key is missing.
        """
        count, after = 0, ("", "", "", "")
        while True:
            rows = await self._ask(partial(self._others, after), "the vault")
            for row in rows:
                count += await self._reseal_row(row)
            if len(rows) < _BATCH:
                return count
            after = (rows[-1].kind, rows[-1].issuer, rows[-1].owner, rows[-1].connection)

    async def _others(self, after: tuple[str, ...], db: AsyncConnection) -> Sequence[Any]:
        columns = (GRANTS.c.kind, GRANTS.c.issuer, GRANTS.c.owner, GRANTS.c.connection)
        statement = (
            select(GRANTS)
            .where(GRANTS.c.key_id != self._seal.key_id, tuple_(*columns) > after)
            .order_by(*columns)
            .limit(_BATCH)
        )
        return (await db.execute(statement)).all()

    async def _reseal_row(self, row: Any) -> int:
        try:
            kept = await self._opened(row)
        except ConnectionRequiredError:
            return 0  # nobody can open it: it is replaced when its owner connects again
        sealed = await self._sealed(kept.key, kept.grant)
        return int(await self._change(_is_as(kept), kept, **sealed))

    async def _change(self, where: ColumnElement[bool], kept: KeptGrant, **values: Any) -> bool:
        statement = update(GRANTS).where(where).values(**values)
        done = await self._ask(lambda db: db.execute(statement), kept.key.connection)
        return bool(done.rowcount)

    async def _sealed(self, key: GrantKey, grant: Grant) -> dict[str, Any]:
        sealed = await self._seal.seal(grant.to_json(), key.bound_to)
        return {"sealed": sealed, "key_id": self._seal.key_id}

    async def _opened_or_none(self, row: Any) -> KeptGrant | None:
        try:
            return await self._opened(row)
        except ConnectionTokenError:
            return None

    async def _opened(self, row: Any) -> KeptGrant:
        text = await _open(self._seal, row)
        if isinstance(text, ConnectionTokenError):
            raise text
        return _read(row, Grant.from_json(text))

    async def _ask(
        self, question: Callable[[AsyncConnection], Awaitable[AnswerT]], connection: str
    ) -> AnswerT:
        """Ask the database; a fault is an error without a cause: a cause may quote a row."""
        try:
            return await self._database.ask(question)
        except SchemaError as fault:
            error: ConnectionTokenError = ConnectionResponseError(str(fault), connection=connection)
        except DatabaseAwayError as fault:
            _log.error("the vault's database, for %s: %s", connection, fault)
            error = ConnectionUnavailableError(
                "The vault's database cannot be used now: try again", connection=connection
            )
        raise error


async def _look_up(identity: dict[str, str], db: AsyncConnection) -> Sequence[Any]:
    """Return the row of a grant, if there is one.

    SQLite's driver has a thread. Through SQLAlchemy a query changes to it five times (cursor,
    execution, rows, closing, rollback), which takes longer than all the rest.
    """
    if db.dialect.driver != "aiosqlite":
        return (await db.execute(_GET, identity)).all()
    driver: Any = (await db.get_raw_connection()).driver_connection
    found = await driver.execute_fetchall(_GET_SQLITE, [identity[name] for name in _IDENTITY])
    return [_GrantRow(*values) for values in found]


async def _delete(where: ColumnElement[bool], db: AsyncConnection) -> Sequence[Any]:
    return (await db.execute(delete(GRANTS).where(where).returning(GRANTS))).all()


def _key_of(row: Any) -> GrantKey:
    return GrantKey(Owner(row.issuer, row.owner, row.kind), row.connection)


def _read(row: Any, grant: Grant) -> KeptGrant:
    facts = (row.version, row.connected_at, row.used_at, row.claimed_by, row.claimed_until)
    return KeptGrant(_key_of(row), grant, *facts)


async def _open(seal: Seal, row: Any) -> bytes | ConnectionTokenError:
    key = _key_of(row)
    try:
        text = await seal.open(row.sealed, key.bound_to, row.key_id)
    except UnknownKeyError:
        _log.error(_NO_KEY, key.connection)
        return ConnectionUnavailableError(
            f"The vault cannot open {key.connection} now", connection=key.connection
        )
    if text is not None:
        return text
    _log.error("a grant for %s was changed, or moved from another owner", key.connection)
    return ConnectionRequiredError(
        f"Connect {key.connection} again: what was kept cannot be used",
        connection=key.connection,
    )


def _identity(key: GrantKey) -> dict[str, str]:
    owner = key.owner
    return {
        "kind": owner.kind,
        "issuer": owner.issuer,
        "owner": owner.id,
        "connection": key.connection,
    }


def _belongs(table: Table, owner: Owner) -> ColumnElement[bool]:
    return and_(
        table.c.kind == owner.kind, table.c.issuer == owner.issuer, table.c.owner == owner.id
    )


def _is(key: GrantKey) -> ColumnElement[bool]:
    return and_(_belongs(GRANTS, key.owner), GRANTS.c.connection == key.connection)


def _is_as(kept: KeptGrant) -> ColumnElement[bool]:
    return and_(_is(kept.key), GRANTS.c.version == kept.version)
