"""What the tests of the vault share: databases."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from support.vault_database import postgres_cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A Postgres for all tests of this worker."""
    directory = Path(tempfile.mkdtemp(prefix="tg-pg-"))
    try:
        with postgres_cluster(directory) as url:
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/vault.db"
    return new_database(str(request.getfixturevalue("postgres")))


def new_database(url: str) -> str:
    """Create a database on this Postgres and return its URL."""
    name = f"vault_{uuid4().hex}"

    async def create() -> None:
        address = url.replace("postgresql", "postgresql+asyncpg")
        engine = create_async_engine(address, isolation_level="AUTOCOMMIT")
        async with engine.connect() as db:
            await db.execute(text(f"CREATE DATABASE {name}"))
        await engine.dispose()

    asyncio.run(create())
    return url.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def tmp_path_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite file."""
    return f"sqlite:///{tmp_path}/vault.db"
