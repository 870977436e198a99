"""Measure how long a vault takes for a grant that is kept in its database and needs no refresh."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from endurance.interleavings import DATABASES, Database
from support.vault_database import postgres_cluster
from support.vault_world import ISSUER, World, in_world
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = ["HitFigures", "measure_hits"]

_USERS = 100
_DAY = 86_400.0
#: The most milliseconds at the median.
_LIMITS: dict[Database, float] = {"sqlite": 1.0, "postgres": 2.0}


@dataclass
class HitFigures:
    """What came of it.

    Attributes:
        milliseconds: each look-up, by database.
    """

    milliseconds: dict[Database, list[float]] = field(default_factory=dict)

    @property
    def faults(self) -> list[str]:
        """What must not be, in words."""
        return [
            f"{name}: a store hit takes more than {_LIMITS[name]} ms at the median"
            for name, each in self.milliseconds.items()
            if statistics.median(each) > _LIMITS[name]
        ]

    def __str__(self) -> str:
        lines = []
        for name, each in self.milliseconds.items():
            low, median, high = statistics.quantiles(each, n=4)
            lines.append(
                f"{name:9} store hit: {median:.2f} ms at the median, quartiles {low:.2f} to "
                f"{high:.2f}, {len(each)} hits of {_USERS} users"
            )
        return "\n".join(lines)


def measure_hits(
    directory: Path, hits: int, databases: Sequence[Database] = DATABASES
) -> HitFigures:
    """Ask for kept grants, one after the other, through the vault and without a cache before it.

    Args:
        directory: a folder that other users may enter: Postgres runs as one of them.
        hits: how many on each database, at least 2.
        databases: the databases.
    """
    figures = HitFigures()
    for name in databases:
        if name == "postgres":
            with postgres_cluster(directory) as url:
                figures.milliseconds[name] = _measure(url, hits)
        else:
            figures.milliseconds[name] = _measure(f"sqlite:///{directory}/hits.db", hits)
    return figures


def _measure(database: str, hits: int) -> list[float]:
    found: list[float] = []

    async def run(world: World) -> None:
        users = [f"user-{number}" for number in range(_USERS)]
        for user in users:
            key = GrantKey(Owner(ISSUER, user), "service")
            grant = Grant(f"access-{user}", expires_at=world.now + _DAY)
            await world.vault.store.put(key, grant, world.now)
            await world.fetch(user)
        for number in range(hits):
            user = users[number % _USERS]
            started = time.perf_counter()
            connection = await world.fetch(user)
            found.append((time.perf_counter() - started) * 1_000)
            assert connection.token == f"access-{user}"

    in_world(database, run)
    return found
