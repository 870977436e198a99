"""Do the tests of the example find the two mistakes, and nothing else?"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from support.suites import Outcome, Suite, run_suites

EXAMPLE = Path(__file__).parents[3] / "examples" / "property_testing"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mcp.server.mcpserver") is None, reason="it is written for mcp 2.x"
)


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    """Run the example's own tests: as it stands, and with the server corrected."""
    options = ("-q", "--tb=short", ".")
    return run_suites(
        {
            name: Suite(str(EXAMPLE), options, {"CORRECTED": corrected})
            for name, corrected in {"as it stands": "", "corrected": "1"}.items()
        }
    )


def test_the_tests_find_both_mistakes_and_show_the_smallest_grants(
    outcomes: dict[str, Outcome],
) -> None:
    printed = outcomes["as it stands"].printed

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


def test_nothing_is_wrong_with_the_corrected_server(outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes["corrected"]

    assert outcome.code == 0, outcome.printed
    assert outcome.counts == {"passed": 5}
