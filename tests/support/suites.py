"""How do tests run several suites of pytest in one process of their own?

Each process would import pytest and the frameworks, which takes longer than the tests. Suites
follow one another instead, each without the modules of the one before.

Usage: ``python suites.py``, for :func:`run_suites`; what a suite prints goes nowhere else.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

__all__ = ["Outcome", "Suite", "run_suites"]


@dataclass(frozen=True)
class Suite:
    """A suite to run.

    Attributes:
        folder: where it is.
        options: those of pytest.
        environ: variables, beside those of this process.
    """

    folder: str
    options: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of a suite.

    Attributes:
        code: the exit code of pytest.
        counts: how many tests passed or failed, and warnings, as the last line of pytest says.
        printed: what pytest printed.
    """

    code: int
    counts: Mapping[str, int]
    printed: str


def run_suites(suites: Mapping[str, Suite]) -> dict[str, Outcome]:
    """Run suites one after the other, in one new process; return their outcomes."""
    environ = {name: text for name, text in os.environ.items() if name != "PYTEST_ADDOPTS"}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(suite) for suite in suites.values()]),
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = [Outcome(**each) for each in json.loads(done.stdout)]
    return dict(zip(suites, outcomes, strict=True))


class _Counting:
    """A plugin that keeps what pytest counts."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        self.counts = {name: len(each) for name, each in terminalreporter.stats.items() if name}


def _run(suite: Suite) -> Outcome:
    paths, variables, counting = [*sys.path], {**os.environ}, _Counting()
    os.environ.update(suite.environ)
    os.chdir(suite.folder)
    sys.path.insert(0, suite.folder)  # as ``python -m pytest`` does
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = pytest.main(["-p", "no:cacheprovider", *suite.options], plugins=[counting])
    sys.path[:] = paths
    os.environ.clear()
    os.environ.update(variables)
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(suite.folder):
            del sys.modules[name]
    return Outcome(int(code), counting.counts, printed.getvalue())


if __name__ == "__main__":
    del sys.path[0]  # this folder, whose modules are not theirs
    found = [asdict(_run(Suite(**each))) for each in json.load(sys.stdin)]
    json.dump(found, sys.stdout)
