"""Do the fixtures hold in suites of users, whatever other plugins there are?

Each suite runs in a process of its own, with warnings as errors.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from textwrap import dedent

import pytest

from support.user_suites import (
    AS_IT_IS,
    ASYNC,
    BLOCKING,
    CONFTEST,
    HELD,
    IN_MEMORY,
    LONG_LOOP,
    MISTAKEN,
    MY_SERVER,
    OKTA,
    OVERRIDDEN,
    REWIRED,
    SERVER,
)
from toolguard.testing import fixtures

pytest_plugins = ["pytester"]

needs_pytest_asyncio = pytest.mark.skipif(
    importlib.util.find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed"
)
needs_xdist = pytest.mark.skipif(
    importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed"
)


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A user's project: servers, and a conftest that opts in."""
    pytester.makepyfile(server=SERVER, my_server=MY_SERVER, held=HELD, conftest=CONFTEST)
    # It warns of each project that does not say how long its event loops live.
    pytester.plugins = ["no:asyncio"]
    return pytester


def passes(suite: pytest.Pytester, *options: str, **files: str) -> bool:
    """Return whether all tests in the files pass, without a warning."""
    suite.makepyfile(**files)
    count = sum(text.count("def test_") for text in files.values())
    result = suite.runpytest_subprocess("-W", "error", *options, timeout=250)
    return result.ret == 0 and result.parseoutcomes() == {"passed": count}


def examples() -> list[str]:
    """Return the blocks of code in the documentation of the fixtures."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", fixtures.__doc__ or "")
    return [dedent(block) for block in blocks]


# --- what the fixtures do


def test_the_fixtures_hold_in_suites_of_users(suite: pytest.Pytester) -> None:
    # In one process, as each one imports the frameworks for seconds.
    assert passes(
        suite,
        test_a_server_for_real=BLOCKING,
        test_a_server_with_a_guard_of_its_own=AS_IT_IS,
        test_a_guard_that_is_mistaken=MISTAKEN,
        test_an_issuer_like_okta=OKTA,
        test_clients_in_memory=IN_MEMORY,
        test_event_loops_that_outlive_a_test=LONG_LOOP,
    )


def test_the_documented_tests_pass_as_they_stand(suite: pytest.Pytester) -> None:
    opt_in, tests, *_ = examples()
    (suite.path / "conftest.py").unlink()

    assert passes(suite, test_notes=f"from server import make_server\n{opt_in}\n{tests}")


def test_the_documented_overrides_work_as_they_stand(suite: pytest.Pytester) -> None:
    *_, guard, rewired = examples()
    imports = "import my_server, pytest\nfrom toolguard import ToolGuard\n"

    assert passes(
        suite,
        **{
            "theirs/conftest": imports + guard,
            "theirs/test_overridden": OVERRIDDEN,
            "module_level/conftest": imports + rewired,
            "module_level/test_rewired": REWIRED,
        },
    )


# --- beside other plugins


def test_no_plugin_for_async_tests_is_needed(suite: pytest.Pytester) -> None:
    assert passes(suite, "-p", "no:anyio", test_blocking=BLOCKING)


def test_async_tests_of_anyio_use_them(suite: pytest.Pytester) -> None:
    backend = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    suite.makepyfile(conftest=CONFTEST + backend)

    assert passes(suite, test_async=ASYNC.format(mark="@pytest.mark.anyio"))


@needs_pytest_asyncio
@pytest.mark.parametrize(("mode", "mark"), [("strict", "@pytest.mark.asyncio"), ("auto", "")])
def test_async_tests_of_pytest_asyncio_use_them(
    suite: pytest.Pytester, mode: str, mark: str
) -> None:
    suite.plugins.clear()
    options = [f"--asyncio-mode={mode}", "-o", "asyncio_default_fixture_loop_scope=function"]

    assert passes(suite, *options, test_async=ASYNC.format(mark=mark))


@needs_xdist
def test_tests_run_in_several_processes(suite: pytest.Pytester) -> None:
    assert passes(suite, "-n", "2", test_blocking=BLOCKING, test_as_it_is=AS_IT_IS)


# --- opting in


def test_a_conftest_may_import_the_types_that_it_opts_in_to(suite: pytest.Pytester) -> None:
    suite.makepyfile(conftest=f"from toolguard.testing.fixtures import CallAs\n{CONFTEST}")

    assert passes(suite, test_one="def test_it(call_as): assert call_as")


def test_who_does_not_opt_in_needs_no_pytest() -> None:
    code = "import sys, toolguard.testing; print('pytest' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout == "False\n"
