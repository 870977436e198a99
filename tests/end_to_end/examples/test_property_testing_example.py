"""Do the tests of the example find the two mistakes, and nothing else?"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "property_testing"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mcp.server.mcpserver") is None, reason="it is written for mcp 2.x"
)


def run(**variables: str) -> subprocess.CompletedProcess[str]:
    """Run the example's own tests."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--tb=short", "."],
        cwd=EXAMPLE,
        env={**os.environ, "CORRECTED": "", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


def test_the_tests_find_both_mistakes_and_show_the_smallest_grants() -> None:
    printed = run().stdout

    assert set(re.findall(r"FAILED test_server.py::(\w+)", printed)) == {
        "test_each_tool_needs_exactly_these_scopes",
        "test_without_the_write_scope_nothing_changes",
        "test_whoever_may_delete_may_list",
    }
    assert (
        "share_event: expected {calendar.write, contacts.read}, "
        "is {calendar.write} or {calendar.read} or {contacts.read}" in printed
    )
    assert (
        "delete_event: expected {calendar.write}, is {calendar.write} or {calendar.read}" in printed
    )
    assert "scopes=['calendar.read']," in printed


def test_nothing_is_wrong_with_the_corrected_server() -> None:
    done = run(CORRECTED="1")

    assert done.returncode == 0, done.stdout
