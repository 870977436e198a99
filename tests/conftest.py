"""How are properties searched for counterexamples?

``--hypothesis-profile=ci`` searches as CI does, ``--hypothesis-profile=deep`` for hours.
"""

from __future__ import annotations

import faulthandler
import gc
import os
import ssl
import time
from pathlib import Path

import certifi
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import settings

# No deadline: a busy machine is no counterexample. CI searches the same examples each time, so that
# more of them find nothing new: twice as many as local runs, which search others each time.
settings.register_profile("local", deadline=None, max_examples=10)
settings.register_profile("ci", deadline=None, max_examples=20, derandomize=True)
settings.register_profile("deep", deadline=None, max_examples=2_000)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# Every HTTP client reads the certificates of the authorities that it trusts, and all that there are
# take 50 ms. No test leaves the machine: one authority, whose key is lost, is enough.
_AUTHORITY = str(Path(__file__).parent / "support" / "authority.pem")
os.environ["SSL_CERT_FILE"] = _AUTHORITY
# Clients that leave the environment alone find it as well.
certifi.where = lambda: _AUTHORITY
_paths = ssl.get_default_verify_paths()
ssl.get_default_verify_paths = lambda: _paths._replace(openssl_cafile=_AUTHORITY)


# Seconds after which a test hangs: it is shown where, and its process ends.
_LIMIT = 300
# No more often than this does the limit begin anew: pytest-timeout takes a thread for each test,
# which costs more than most tests.
_EVERY = 10


def pytest_configure(config: pytest.Config) -> None:
    """Limit the time of each test, from now on: nothing is captured yet. Leave files in order."""
    config.pluginmanager.register(_Limit(os.dup(2)))
    if "PYTEST_XDIST_WORKER" in os.environ:
        config.pluginmanager.register(_Reports())
    # pytest-xdist would begin with the files that have the most tests: those of the longest tests,
    # which have few, would be left to one worker at the end.
    config.option.loadscopereorder = False


class _Limit:
    def __init__(self, stderr: int) -> None:
        self._stderr = stderr
        self._began = float("-inf")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        now = time.monotonic()
        if now - self._began > _EVERY:
            faulthandler.dump_traceback_later(_LIMIT, exit=True, file=self._stderr)
            self._began = now

    def pytest_unconfigure(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        os.close(self._stderr)


class _Reports:
    """One report for each test that passes, and for each phase that does not.

    A worker of pytest-xdist sends six messages for each test, which takes longer than most tests.
    """

    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.when == "call" or not report.passed:
                report.keywords = {}  # most of a report, and nothing reads them
                item.ihook.pytest_runtest_logreport(report=report)
        return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """Leave garbage alone while thousands of cases are collected, none of which is any."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Collect garbage again, less often, without searching the cases and the frameworks for it."""
    gc.freeze()
    gc.set_threshold(20_000)
    gc.enable()
