"""Keep approvals in the database of a vault, for servers of several processes.

Every step is one statement, so that of two that happen at once only one takes effect. What a page
shows is sealed together with the state: a row that was changed in the database approves nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, or_, select, update

from toolguard.approvals.approval import Approval, Asker, PersonAnswer
from toolguard.approvals.memory import MAX_OF_ASKER
from toolguard.errors import ApprovalUnavailableError
from toolguard.vault.database import DatabaseAwayError, insert_into, surplus
from toolguard.vault.schema import APPROVALS, SchemaError
from toolguard.vault.seals import Seal, UnknownKeyError

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement
    from sqlalchemy.ext.asyncio import AsyncConnection
    from sqlalchemy.sql.base import Executable

    from toolguard.vault.database import Database

__all__ = ["ApprovalTable"]

_log = logging.getLogger("toolguard.approvals")

_SAME = ("issuer", "owner")
_SEALED_WITH = ("binding", "id", "issuer", "owner", "state")


class ApprovalTable:
    """The approvals in a database.

    Args:
        database: where the rows are.
        seal: seals and opens them.
    """

    def __init__(self, database: Database, seal: Seal) -> None:
        self._database = database
        self._seal = seal

    async def use(self, binding: str, now: float) -> bool:
        """Use an approval up; return False unless there was one that counts.

        Args:
            binding: the digest of what it is for.
            now: seconds since the epoch.

        Raises:
            ApprovalUnavailableError: if the database is away.
        """
        is_good = and_(
            APPROVALS.c.binding == binding,
            APPROVALS.c.state == "approved",
            APPROVALS.c.expires_at > now,
        )
        # What was approved is opened as it was approved, and stays for its page.
        rows = await self._rows(
            update(APPROVALS).where(is_good).values(state="used").returning(APPROVALS)
        )
        return bool(rows) and await self._opened({**rows[0], "state": "approved"}) is not None

    async def ask(self, new: Approval, now: float) -> Approval:
        """Return the approval of the same call that is not over; else keep ``new``, and return it.

        Args:
            new: a new question.
            now: seconds since the epoch.

        Raises:
            ApprovalUnavailableError: if the database is away.
        """
        row = await self._sealed(new)
        is_over = or_(APPROVALS.c.state == "used", APPROVALS.c.expires_at <= now)
        await self._rows(
            delete(APPROVALS).where(
                or_(APPROVALS.c.expires_at <= now, surplus(APPROVALS, _SAME, row, MAX_OF_ASKER))
            )
        )
        await self._insert(row, is_over)
        found = await self._read(APPROVALS.c.binding == new.binding)
        # It may have been used, or a new one asked for, in between: the next call sees that.
        return new if found is None else found

    async def find(self, id_: str, now: float) -> Approval | None:
        """Return the approval with this id, unless it has expired.

        Args:
            id_: what its page is known by.
            now: seconds since the epoch.

        Raises:
            ApprovalUnavailableError: if the database is away.
        """
        return await self._read(and_(APPROVALS.c.id == id_, APPROVALS.c.expires_at > now))

    async def answer(self, found: Approval, answer: PersonAnswer, now: float, until: float) -> bool:
        """Answer a question; return False if it has an answer, or has expired.

        Args:
            found: the approval, as :meth:`find` returned it.
            answer: the answer.
            now: seconds since the epoch.
            until: when the answer expires.

        Raises:
            ApprovalUnavailableError: if the database is away.
        """
        answered = replace(found, state=answer, expires_at=until)
        is_open = and_(
            APPROVALS.c.id == found.id,
            APPROVALS.c.state == "pending",
            APPROVALS.c.expires_at > now,
        )
        statement = update(APPROVALS).where(is_open).values(await self._sealed(answered))
        return bool(await self._rows(statement.returning(APPROVALS.c.id)))

    async def _insert(self, row: Mapping[str, Any], is_over: ColumnElement[bool]) -> None:
        def statement(db: AsyncConnection) -> Executable:
            return (
                insert_into(APPROVALS, db)
                .values(dict(row))
                .on_conflict_do_update(index_elements=["binding"], set_=dict(row), where=is_over)
            )

        await self._rows(statement)

    async def _read(self, where: ColumnElement[bool]) -> Approval | None:
        rows = await self._rows(select(APPROVALS).where(where))
        if not rows:
            return None
        row = rows[0]
        # A row that was used is sealed as it was when it was approved.
        was = "approved" if row["state"] == "used" else row["state"]
        facts = await self._opened({**row, "state": was})
        if facts is None:
            return None
        asker = Asker(row["issuer"], facts.pop("subject"), facts.pop("client"))
        return Approval(
            row["binding"], row["id"], asker, facts["facts"], row["expires_at"], row["state"]
        )

    async def _sealed(self, approval: Approval) -> dict[str, Any]:
        asker = approval.asker
        row = {
            "binding": approval.binding,
            "id": approval.id,
            "issuer": asker.issuer,
            "owner": asker.subject or asker.client or "",
            "state": approval.state,
            "expires_at": approval.expires_at,
        }
        facts = {"subject": asker.subject, "client": asker.client, "facts": dict(approval.facts)}
        sealed = await self._seal.seal(json.dumps(facts).encode(), _bound_to(row))
        return {**row, "sealed": sealed, "key_id": self._seal.key_id}

    async def _opened(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        try:
            text = await self._seal.open(row["sealed"], _bound_to(row), row["key_id"])
        except UnknownKeyError:
            text = None
        if text is None:
            _log.error("an approval was changed, or is sealed with a key that is not here")
            return None
        opened: dict[str, Any] = json.loads(text)
        return opened

    async def _rows(
        self, statement: Executable | Callable[[AsyncConnection], Executable]
    ) -> list[Any]:
        try:
            return await self._database.rows(statement)
        except (DatabaseAwayError, SchemaError) as fault:
            _log.error("the database of approvals: %s", fault)
        raise ApprovalUnavailableError("Approvals cannot be asked for now: try again")


def _bound_to(row: Mapping[str, Any]) -> bytes:
    """Return the associated data of a row: one that was changed is not read."""
    names = [row[name] for name in _SEALED_WITH]
    # SQLite returns a whole number from a statement that changes rows.
    return json.dumps(["approval", *names, float(row["expires_at"])]).encode()
