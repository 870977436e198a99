"""Databases for a vault: a SQLite file, and a Postgres of the test's own on loopback."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

__all__ = ["PostgresCluster", "new_database", "postgres_cluster"]

_USER = "nobody"


def _binaries() -> Path | None:
    """Return the folder of Postgres' programs; Debian has it outside of the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((each for each in folders if (each / "postgres").exists()), None)


class PostgresCluster:
    """A Postgres on a free port that can be stopped and started again; waits for no disk.

    Args:
        directory: where its files are, below a folder that other users may enter.
    """

    def __init__(self, directory: Path) -> None:
        binaries = _binaries()
        if binaries is None or importlib.util.find_spec("asyncpg") is None:
            pytest.skip(
                "there is no Postgres or no asyncpg on this machine: apt-get install postgresql"
            )
        self._as_user = _unprivileged(directory)
        data = directory / "data"
        initdb = (binaries / "initdb", "-D", data, "-U", "vault", "-A", "trust", "--no-sync")
        _run(self._as_user, *initdb)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._settings = f"-p {port} -h 127.0.0.1 -k {directory} -c fsync=off"
        self._control = (binaries / "pg_ctl", "-D", data, "-w", "-s", "-l", directory / "log")
        #: The URL of its database.
        self.url = f"postgresql://vault@127.0.0.1:{port}/postgres"

    def start(self) -> None:
        """Start it; return when it answers."""
        _run(self._as_user, *self._control, "-o", self._settings, "start")

    def kill(self) -> None:
        """End it without closing anything: it recovers when it is started again."""
        _run(self._as_user, *self._control, "-m", "immediate", "stop")


@contextmanager
def postgres_cluster(directory: Path) -> Iterator[str]:
    """Run a Postgres; yield its URL.

    Args:
        directory: where its files are, below a folder that other users may enter.
    """
    cluster = PostgresCluster(directory)
    cluster.start()
    try:
        yield cluster.url
    finally:
        cluster.kill()


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


def _unprivileged(directory: Path) -> list[str]:
    """Return what to put before a command: Postgres refuses to be run by root."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("Postgres cannot be run by root, and there is no setpriv")
    shutil.chown(directory, _USER, "nogroup")
    return ["setpriv", "--reuid", _USER, "--regid", "nogroup", "--clear-groups"]


def _run(prefix: list[str], *command: object) -> None:
    done = subprocess.run(
        [*prefix, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr}")
