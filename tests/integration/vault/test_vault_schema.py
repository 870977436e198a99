"""Are the tables made once, and moved forward only when told to?"""

from __future__ import annotations

import asyncio
import stat
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from toolguard.errors import ConnectionUnavailableError
from toolguard.vault import KeySeal, schema
from toolguard.vault.database import Database
from toolguard.vault.slips import SlipStore


async def used(database: Database) -> None:
    try:
        async with database.connect() as db:
            await db.execute(text("SELECT * FROM vault_grant"))
    finally:
        await database.aclose()


async def set_version(url: str, version: int) -> None:
    database = Database(url)
    async with database.connect() as db:
        await db.execute(text(f"UPDATE vault_schema SET version = {version}"))
    await database.aclose()


def test_many_replicas_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    async def main() -> None:
        await asyncio.gather(*(used(Database(database_url)) for _ in range(8)))

    asyncio.run(main())


def test_earlier_tables_are_refused_until_the_command_moves_them(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(used(Database(database_url)))
    ran: list[object] = []
    monkeypatch.setattr(schema, "_STEPS", (*schema._STEPS, ran.append))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 3)
    monkeypatch.setattr("toolguard.vault.database.SCHEMA_VERSION", 3)

    with pytest.raises(schema.SchemaError, match="run `toolguard vault upgrade`"):
        asyncio.run(used(Database(database_url)))

    async def upgrade() -> tuple[int, int]:
        database = Database(database_url)
        try:
            return await database.upgrade()
        finally:
            await database.aclose()

    assert asyncio.run(upgrade()) == (2, 3)
    assert len(ran) == 1
    asyncio.run(used(Database(database_url)))


def test_later_tables_are_refused_and_left_alone(database_url: str) -> None:
    async def main() -> None:
        await set_version(database_url, 99)
        database = Database(database_url)
        try:
            with pytest.raises(schema.SchemaError, match="99"):
                await database.upgrade()
        finally:
            await database.aclose()

    asyncio.run(main())


def test_sessions_in_later_tables_cannot_be_read_now(database_url: str) -> None:
    async def main() -> None:
        await set_version(database_url, 99)
        database = Database(database_url)
        slips = SlipStore(database, KeySeal([bytes(32)]), time.time)
        try:
            with pytest.raises(ConnectionUnavailableError, match="cannot be used now"):
                await slips.peek("session", "a-secret")
        finally:
            await database.aclose()

    asyncio.run(main())


def test_a_new_file_is_readable_for_its_user_only(tmp_path: Path) -> None:
    asyncio.run(used(Database(f"sqlite:///{tmp_path}/vault.db")))

    assert stat.S_IMODE((tmp_path / "vault.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "mysql://h/db", "no url", "postgres://u:p w@h:p/d"],
)
def test_another_kind_of_database_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:///vault\.db") as caught:
        Database(url)

    assert "p w" not in str(caught.value)


def test_tables_of_the_first_version_get_those_of_approvals(database_url: str) -> None:
    async def main() -> None:
        database = Database(database_url)
        async with database.connect() as db:
            await db.execute(text("DROP TABLE vault_approval"))
        await set_version(database_url, 1)
        assert await database.upgrade() == (1, schema.SCHEMA_VERSION)
        async with database.connect() as db:
            await db.execute(text("SELECT * FROM vault_approval"))
        await database.aclose()

    asyncio.run(main())
