"""What has to hold of the calendar's guards, whoever calls.

The server's own guard, wrapper and HTTP application answer; only the tokens are made here.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from server import mcp

from toolguard.testing import GuardedClient, assert_scope_matrix, verify_scope_matrix

# A call takes as long as the machine needs for it: hypothesis' deadline is for pure functions.
settings.register_profile("calls", deadline=None)
settings.load_profile("calls")

SCOPES = ("calendar.read", "calendar.write", "contacts.read")
grants = st.sets(st.sampled_from(SCOPES)).map(sorted)


def test_each_tool_needs_exactly_these_scopes() -> None:
    assert_scope_matrix(
        mcp,
        {
            "list_events": [{"calendar.read"}, {"calendar.write"}],
            "delete_event": [{"calendar.write"}],
            "share_event": [{"calendar.write", "contacts.read"}],
        },
    )


@given(grants)
def test_without_the_write_scope_nothing_changes(scopes: list[str]) -> None:
    reader = GuardedClient(mcp, scopes=[each for each in scopes if each != "calendar.write"])

    assert not reader.call("delete_event").ok
    assert not reader.call("share_event").ok


@given(grants)
def test_whoever_may_delete_may_list(scopes: list[str]) -> None:
    caller = GuardedClient(mcp, scopes=scopes)

    if caller.call("delete_event").ok:
        assert caller.call("list_events").ok


@given(grants)
def test_granting_what_is_missing_is_enough(scopes: list[str]) -> None:
    missing = GuardedClient(mcp, scopes=scopes).call("share_event").missing_scopes

    assert GuardedClient(mcp, scopes=[*scopes, *missing]).call("share_event").ok


def test_the_server_does_as_its_guards_say() -> None:
    verify_scope_matrix(mcp)
