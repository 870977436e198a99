"""Hold a deployment under load while what it depends on fails: ``python -m tests.endurance``.

Two workers behind the nginx of ``examples/deploy``; several users with different rights call tools
all the time, while the issuer is stopped and started and its key rotated, Redis and Postgres are
killed and started, a worker is killed, and the clock is moved. Prints what was counted; exits with
1 if an answer was wrong, a call was lost that was not in flight at the killed worker, or a record.
Workers start again from this checkout, which must not be edited meanwhile.

``--vault`` holds a vault in Postgres to what it promises about refreshes instead: 1,000 calls of
one user at expiry in four processes; Postgres killed and started 20 times under load; a process
killed ten times after each step of a refresh.

``--interleavings N`` has users of three replicas fetch, connect and disconnect in N random orders,
on SQLite and on Postgres, and counts the grants that were lost.

``--hits N`` measures how long a vault takes for a grant that needs no refresh, on SQLite and on
Postgres: exits with 1 above 1 ms and 2 ms at the median.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does it

from endurance.hits import measure_hits
from endurance.interleavings import DATABASES, run_interleavings
from endurance.run import endure
from endurance.vault import hold_vault


class _Figures(Protocol):
    """What a run has counted, as text, and what must not be."""

    @property
    def faults(self) -> Sequence[str]: ...


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.endurance")
    parser.add_argument("--seconds", type=float, default=300.0, help="how long; 300 by default")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--vault", action="store_true", help="the vault, instead of a deployment")
    instead.add_argument("--interleavings", type=int, metavar="N", help="N random orders")
    instead.add_argument("--hits", type=int, metavar="N", help="N look-ups of kept grants")
    parser.add_argument("--database", choices=DATABASES, help="those on one database only")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="tg-endurance-"))
    directory.chmod(0o755)
    try:
        figures = _run(given, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(figures)
    for fault in figures.faults:
        print(f"FAILED: {fault}")
    return 1 if figures.faults else 0


def _run(given: argparse.Namespace, directory: Path) -> _Figures:
    databases = (given.database,) if given.database else DATABASES
    if given.hits:
        return measure_hits(directory, given.hits, databases)
    if given.interleavings:
        return run_interleavings(directory, given.interleavings, databases)
    if given.vault:
        return hold_vault(directory, calls=1_000, kills=20, rounds=10)
    return endure(directory, given.seconds)


if __name__ == "__main__":
    sys.exit(_main())
