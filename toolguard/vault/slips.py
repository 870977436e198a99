"""What is kept for minutes: tickets, consents and exchanges that have begun, sessions.

A slip is known by a secret that its holder has; the row has the digest of that and sealed facts. A
slip that is taken is gone: it is deleted and read by one statement. Each is for a known person, and
of each purpose a person has a bounded number: strangers write nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from sqlalchemy import and_, delete, insert, or_, select

from toolguard.errors import ConnectionUnavailableError
from toolguard.vault.database import DatabaseAwayError, surplus
from toolguard.vault.grants import Owner
from toolguard.vault.oauth_client import new_secret
from toolguard.vault.schema import SLIPS, SchemaError
from toolguard.vault.seals import Seal, UnknownKeyError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.base import Executable

    from toolguard.vault.database import Database

__all__ = ["SESSION_SECONDS", "Purpose", "Slip", "SlipStore"]

Purpose: TypeAlias = Literal["ticket", "consent", "exchange", "session"]
"""What a slip is for; its lifetime follows from it."""

_log = logging.getLogger("toolguard.vault")

SESSION_SECONDS = 1_800.0
"""How long a person stays signed in."""

_SAME = ("kind", "issuer", "owner", "purpose")
_LIFETIMES: Mapping[Purpose, float] = {
    "ticket": 600.0,
    "consent": 600.0,
    "exchange": 600.0,
    "session": SESSION_SECONDS,
}
# Of one purpose, for one person: the oldest ones end.
_MAX_SLIPS = 50
_IDENTITY = ("digest", "purpose", "kind", "issuer", "owner", "expires_at")


@dataclass(frozen=True)
class Slip:
    """What a secret stands for.

    Attributes:
        owner: the person it is for.
        facts: what was written on it; not in the representation.
    """

    owner: Owner
    facts: Mapping[str, Any] = field(repr=False)


class SlipStore:
    """Issues slips, and takes them back.

    Args:
        database: where the rows are.
        seal: seals and opens them.
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(self, database: Database, seal: Seal, clock: Callable[[], float]) -> None:
        self._database = database
        self._seal = seal
        self._clock = clock

    async def issue(self, purpose: Purpose, owner: Owner, facts: Mapping[str, Any]) -> str:
        """Return the secret of a new slip.

        Args:
            purpose: what it is for.
            owner: the person it is for.
            facts: what is written on it, as JSON.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        secret, now = new_secret(), self._clock()
        identity = {
            "digest": _digest(secret),
            "purpose": purpose,
            "kind": owner.kind,
            "issuer": owner.issuer,
            "owner": owner.id,
            "expires_at": now + _LIFETIMES[purpose],
        }
        sealed = await self._seal.seal(json.dumps(facts).encode(), _bound_to(identity))
        row = {**identity, "sealed": sealed, "key_id": self._seal.key_id}
        await self._rows(
            delete(SLIPS).where(
                or_(SLIPS.c.expires_at <= now, surplus(SLIPS, _SAME, row, _MAX_SLIPS))
            )
        )
        await self._rows(insert(SLIPS).values(row))
        return secret

    async def peek(self, purpose: Purpose, secret: str) -> Slip | None:
        """Return what ``secret`` stands for; None if it is not good for ``purpose`` now.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        return await self._read(select(SLIPS).where(self._is(purpose, secret)))

    async def take(self, purpose: Purpose, secret: str) -> Slip | None:
        """Return what ``secret`` stands for, and end it; None for all but the first to take it.

        Raises:
            ConnectionUnavailableError: if the database is away.
        """
        return await self._read(delete(SLIPS).where(self._is(purpose, secret)).returning(SLIPS))

    def _is(self, purpose: Purpose, secret: str) -> ColumnElement[bool]:
        return and_(
            SLIPS.c.digest == _digest(secret),
            SLIPS.c.purpose == purpose,
            SLIPS.c.expires_at > self._clock(),
        )

    async def _read(self, statement: Executable) -> Slip | None:
        rows = await self._rows(statement)
        if not rows:
            return None
        row = rows[0]
        try:
            text = await self._seal.open(row["sealed"], _bound_to(row), row["key_id"])
        except UnknownKeyError:
            text = None
        if text is None:
            return None
        return Slip(Owner(row["issuer"], row["owner"], row["kind"]), json.loads(text))

    async def _rows(self, statement: Executable) -> list[Any]:
        try:
            return await self._database.rows(statement)
        except (DatabaseAwayError, SchemaError) as fault:
            _log.error("the vault's database: %s", fault)
        raise ConnectionUnavailableError(
            "The vault's database cannot be used now: try again", connection="the vault"
        )


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _bound_to(row: Mapping[str, Any]) -> bytes:
    """Return the associated data of a row: a changed one, such as another owner's, is not read."""
    return json.dumps(["slip", *(row[name] for name in _IDENTITY)]).encode()
