"""Run many random interleavings of users, replicas and refreshes on SQLite and on Postgres."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from support.interleavings import Interleaved, interleave
from support.vault_database import PostgresCluster, new_database

__all__ = ["DATABASES", "Database", "InterleavingFigures", "run_interleavings"]

Database: TypeAlias = Literal["sqlite", "postgres"]
DATABASES: tuple[Database, ...] = ("sqlite", "postgres")

_PROCESSES = 4
# Rounds on one database; so many that a search of a few still uses all processes.
_AT_ONCE = 25


@dataclass
class InterleavingFigures:
    """What came of it.

    Attributes:
        found: the rounds, by database.
        seconds: how long they took, by database.
    """

    found: dict[Database, Interleaved] = field(default_factory=dict)
    seconds: dict[Database, float] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What must not be, in words."""
        return [f"{name}: {fault}" for name, each in self.found.items() for fault in each.faults]

    def __str__(self) -> str:
        return "\n".join(
            f"{name:9} {found.rounds} interleavings of {found.steps.total()} steps in "
            f"{self.seconds[name]:.0f} s: {found.refreshes} refreshes, {found.refused} grants "
            f"lost, {len(found.faults)} faults"
            for name, found in self.found.items()
        )


def run_interleavings(
    directory: Path, rounds: int, databases: Sequence[Database] = DATABASES
) -> InterleavingFigures:
    """Run all of them in several processes; says on the standard error how far it is.

    Args:
        directory: a folder that other users may enter: Postgres runs as one of them.
        rounds: the interleavings on each database.
        databases: the databases.
    """
    figures = InterleavingFigures()
    for name in databases:
        started = time.monotonic()
        figures.found[name] = (
            _run_on_postgres(directory, rounds)
            if name == "postgres"
            else _run(_on_sqlite, str(directory), rounds)
        )
        figures.seconds[name] = time.monotonic() - started
    return figures


def _run_on_postgres(directory: Path, rounds: int) -> Interleaved:
    cluster = PostgresCluster(directory)
    cluster.start()
    try:
        return _run(_on_postgres, cluster.url, rounds)
    finally:
        cluster.kill()


def _on_sqlite(directory: str, numbers: range) -> Interleaved:
    return interleave(f"sqlite:///{directory}/{numbers.start}.db", numbers)


def _on_postgres(cluster: str, numbers: range) -> Interleaved:
    return interleave(new_database(cluster), numbers)


def _run(perform: Callable[[str, range], Interleaved], where: str, rounds: int) -> Interleaved:
    """Run them in several processes; an interrupt ends that with what was found so far."""
    found = Interleaved()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, context) as pool:
        tasks = [
            pool.submit(perform, where, range(start, min(start + _AT_ONCE, rounds)))
            for start in range(0, rounds, _AT_ONCE)
        ]
        try:
            for task in as_completed(tasks):
                done = task.result()
                found += done
                for fault in done.faults:
                    print(fault, file=sys.stderr)
                print(f"{found.rounds} of {rounds}", end="\r", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
    return found
