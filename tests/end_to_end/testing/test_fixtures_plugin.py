"""Do the fixtures hold in suites of users, whatever other plugins there are?

The suites run in a process of their own, one after the other, with warnings as errors.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from support.suites import Outcome, Suite, run_suites
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

needs_pytest_asyncio = pytest.mark.skipif(
    importlib.util.find_spec("pytest_asyncio") is None, reason="pytest-asyncio is not installed"
)
needs_xdist = pytest.mark.skipif(
    importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed"
)

# It warns of each project that does not say how long its event loops live.
NO_ASYNCIO = ("-p", "no:asyncio")
LOOPS = ("-o", "asyncio_default_fixture_loop_scope=function")
BACKEND = "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
PROJECT = {"server": SERVER, "my_server": MY_SERVER, "held": HELD, "conftest": CONFTEST}


def examples() -> list[str]:
    """Return the blocks of code in the documentation of the fixtures."""
    blocks = re.findall(r"::\n\n((?:    .*\n|\n)+)", fixtures.__doc__ or "")
    return [dedent(block) for block in blocks]


def documented() -> dict[str, str]:
    """Return the tests of the documentation, in a module that opts in itself."""
    opt_in, tests, *_ = examples()
    return {"test_notes": f"from server import make_server\n{opt_in}\n{tests}", "conftest": ""}


def overridden() -> dict[str, str]:
    """Return two packages with the overrides of the documentation."""
    *_, guard, rewired = examples()
    imports = "import my_server, pytest\nfrom toolguard import ToolGuard\n"
    return {
        "theirs/conftest": imports + guard,
        "theirs/test_overridden": OVERRIDDEN,
        "module_level/conftest": imports + rewired,
        "module_level/test_rewired": REWIRED,
    }


#: The options of pytest and the files of each suite, beside those of the project.
SUITES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    # The first one: the others find the fixtures imported.
    "types": (
        NO_ASYNCIO,
        {
            "conftest": f"from toolguard.testing.fixtures import CallAs\n{CONFTEST}",
            "test_one": "def test_it(call_as): assert call_as",
        },
    ),
    "no plugin": ((*NO_ASYNCIO, "-p", "no:anyio"), {"test_blocking": BLOCKING}),
    "users": (
        NO_ASYNCIO,
        {
            "test_a_server_for_real": BLOCKING,
            "test_a_server_with_a_guard_of_its_own": AS_IT_IS,
            "test_a_guard_that_is_mistaken": MISTAKEN,
            "test_an_issuer_like_okta": OKTA,
            "test_clients_in_memory": IN_MEMORY,
            "test_event_loops_that_outlive_a_test": LONG_LOOP,
        },
    ),
    "documented": (NO_ASYNCIO, documented()),
    "overridden": (NO_ASYNCIO, overridden()),
    "anyio": (
        NO_ASYNCIO,
        {
            "conftest": CONFTEST + BACKEND,
            "test_async": ASYNC.format(mark="@pytest.mark.anyio"),
        },
    ),
    "strict": (
        ("--asyncio-mode=strict", *LOOPS),
        {"test_async": ASYNC.format(mark="@pytest.mark.asyncio")},
    ),
    "auto": (("--asyncio-mode=auto", *LOOPS), {"test_async": ASYNC.format(mark="")}),
    "processes": (
        (*NO_ASYNCIO, "-n", "2"),
        {"test_blocking": BLOCKING, "test_as_it_is": AS_IT_IS},
    ),
}
PLUGINS = {"strict": "pytest_asyncio", "auto": "pytest_asyncio", "processes": "xdist"}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Run all suites whose plugin is installed; return what came of them."""
    suites = {}
    for name, (options, files) in SUITES.items():
        if importlib.util.find_spec(PLUGINS.get(name, "pytest")) is not None:
            folder = tmp_path_factory.mktemp("suite")
            write(folder, {**PROJECT, **files})
            suites[name] = Suite(str(folder), ("-W", "error", *options))
    return run_suites(suites)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")


def assert_passed(outcomes: dict[str, Outcome], name: str) -> None:
    """Check that all tests of a suite passed, without a warning."""
    count = sum(text.count("def test_") for text in SUITES[name][1].values())
    outcome = outcomes[name]
    assert (outcome.code, outcome.counts) == (0, {"passed": count}), outcome.printed


# --- what the fixtures do


def test_the_fixtures_hold_in_suites_of_users(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "users")


def test_the_documented_tests_pass_as_they_stand(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "documented")


def test_the_documented_overrides_work_as_they_stand(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "overridden")


# --- beside other plugins


def test_no_plugin_for_async_tests_is_needed(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "no plugin")


def test_async_tests_of_anyio_use_them(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "anyio")


@needs_pytest_asyncio
@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_async_tests_of_pytest_asyncio_use_them(outcomes: dict[str, Outcome], mode: str) -> None:
    assert_passed(outcomes, mode)


@needs_xdist
def test_tests_run_in_several_processes(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "processes")


# --- opting in


def test_a_conftest_may_import_the_types_that_it_opts_in_to(outcomes: dict[str, Outcome]) -> None:
    assert_passed(outcomes, "types")


def test_who_does_not_opt_in_needs_no_pytest() -> None:
    code = "import sys, toolguard.testing; print('pytest' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout == "False\n"
