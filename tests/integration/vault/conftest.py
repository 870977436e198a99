"""What the tests of the vault share: databases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.vault_database import new_database, postgres_cluster


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


@pytest.fixture
def tmp_path_url(tmp_path: Path) -> str:
    """The URL of an empty SQLite file."""
    return f"sqlite:///{tmp_path}/vault.db"
