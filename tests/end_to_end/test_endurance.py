"""Does a deployment give right answers while what it depends on fails?

The short form of ``python -m tests.endurance``.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("redis") is None or importlib.util.find_spec("asyncpg") is None:
    pytest.skip("it needs redis and asyncpg", allow_module_level=True)

from endurance.run import endure
from endurance.vault import hold_vault


@pytest.fixture
def directory() -> Iterator[Path]:
    """Return a folder that other users may enter: Postgres runs as one of them."""
    made = Path(tempfile.mkdtemp(prefix="tg-endurance-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_no_answer_is_wrong_while_dependencies_fail(directory: Path) -> None:
    figures = endure(directory, 0, connections=1)

    assert figures.faults == [], str(figures)
    assert figures.tally.count("served") > 50, str(figures)


def test_a_vault_loses_no_grant_and_refreshes_each_once(directory: Path) -> None:
    figures = hold_vault(directory, calls=1_000, kills=1, rounds=1)

    assert figures.faults == [], str(figures)
    assert figures.answers["served"] > 50, str(figures)
