"""Does the table say what a call on the server would get?"""

from __future__ import annotations

import asyncio
import importlib
import json
from typing import Any

import pytest

from support.auditing import row, wrong
from support.calendar_server import calendar
from support.lines import Guarding, Line
from support.own_auth import Known, authenticated
from toolguard import (
    Principal,
    Refusals,
    public,
    requires_approval,
    requires_auth,
    requires_roles,
    requires_scopes,
    with_connection,
)
from toolguard.approvals import Approvals
from toolguard.audit import Report, audit
from toolguard.audit.formats import as_json, as_markdown, as_mermaid, as_text
from toolguard.frameworks import adapter_for
from toolguard.testing import call_as


def test_what_needs_an_approval_is_shown_in_every_format(line: Line, guarding: Guarding) -> None:
    server = line.server("office")

    @server.tool()
    @requires_scopes("pay")
    @requires_approval(summary="Pay", by=requires_roles("treasurer"))
    async def pay() -> None: ...

    @server.tool()
    @requires_approval(summary="Archive it")
    async def archive() -> None: ...

    @server.tool()
    @requires_auth
    async def look() -> None: ...

    async def nobody(_: object) -> None: ...

    report = audit(guarding().protect(server, approvals=Approvals(sign_in=nobody)))

    approvers = {"pay": "role treasurer", "archive": "the caller", "look": None}
    found = json.loads(as_json(report))["operations"]
    assert {each["name"]: each["approver"] for each in found if each["kind"] == "tool"} == approvers
    assert row(report, "archive").access == "authenticated"
    assert "pay, approval by role treasurer" in as_text(report)
    assert "`pay, approval by role treasurer`" in as_markdown(report)
    assert as_mermaid(report).count("approval by role treasurer") == 1
    for written in (as_text, as_markdown, as_mermaid):
        assert "approval by the caller" in written(report)
        assert written(report).count("approval by") == 2


def test_the_table_has_every_operation_with_what_it_asks_for(
    line: Line, guarding: Guarding
) -> None:
    report = audit(guarding().protect(calendar(line)))

    shown = {(each.kind, each.name): (each.rule, each.injected) for each in report.operations}
    default = "any authenticated caller (default)"
    assert shown == {
        ("tool", "whoami"): ("any authenticated caller", ("user_id",)),
        ("tool", "list_events"): ("calendar.read", ("user_id",)),
        ("tool", "create_event"): (
            "calendar.write & calendar.read & contacts.read",
            ("user_id", "connection_token"),
        ),
        ("tool", "describe"): ("calendar.read", ("caller",)),
        ("tool", "weather"): (default, ()),
        ("resource", "calendar://today"): (default, ()),
        ("prompt", "plan"): (default, ()),
    }
    assert row(report, "create_event").scopes == (
        "calendar.write",
        "calendar.read",
        "contacts.read",
    )
    assert [need.name for need in row(report, "create_event").connections] == ["google-calendar"]
    assert wrong(report) == {
        ("unguarded", "weather"),
        ("unguarded", "calendar://today"),
        ("unguarded", "plan"),
    }
    assert report.server == "calendar"
    assert report.guard is not None
    assert report.guard.default == "authenticated"


def test_on_a_server_without_a_guard_all_is_open_or_refused(line: Line) -> None:
    report = audit(calendar(line))

    assert report.guard is None
    assert row(report, "weather").access == "everybody"
    assert row(report, "list_events").access == "nobody"
    assert row(report, "list_events").rule == (
        "nobody: no guard protects the server (would be: calendar.read)"
    )
    assert ("unguarded", "weather") in wrong(report)
    assert ("no-guard", "list_events") in wrong(report)
    assert len(report.findings) == len(report.operations) == 7


def test_a_plain_server_is_shown_as_it_is(line: Line) -> None:
    server = line.server("plain")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    report = audit(server)

    assert [(each.name, each.access) for each in report.operations] == [("add", "everybody")]
    assert wrong(report) == {("unguarded", "add")}


def test_an_empty_server_has_nothing_wrong(line: Line) -> None:
    report = audit(line.server("empty"))

    assert (report.operations, report.findings, report.notes) == ((), (), ())


def test_a_server_with_auth_of_its_own_is_not_open_to_everybody(line: Line) -> None:
    server = authenticated(line, Known({}))

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    found = row(audit(server), "add")

    assert (found.access, found.guarded) == ("authenticated", False)
    assert "own auth" in found.rule


def test_what_is_denied_by_default_is_shown_and_no_finding(line: Line, guarding: Guarding) -> None:
    report = audit(guarding(default="deny").protect(calendar(line)))

    assert (row(report, "weather").access, row(report, "weather").rule) == (
        "nobody",
        "nobody (default)",
    )
    assert report.findings == ()
    assert any('default="deny"' in note for note in report.notes)


def test_public_by_default_is_a_finding_and_marked_public_none(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("open")

    @server.tool()
    @public
    async def hours() -> str:
        return "nine to five"

    @server.tool()
    async def secrets() -> str:
        return "none"

    report = audit(guarding(default="public").protect(server))

    assert (row(report, "hours").access, row(report, "hours").rule) == ("everybody", "public")
    assert row(report, "secrets").rule == "public (default)"
    assert wrong(report) == {("unguarded", "secrets")}


def test_rules_by_name_guard_what_they_match(line: Line, guarding: Guarding) -> None:
    rules = {
        "weather": requires_scopes("weather.read"),
        "list_*": requires_roles("editor"),
        "resource:calendar://*": requires_auth,
        "prompt:*": public,
    }
    report = audit(guarding().protect(calendar(line), rules=rules))

    assert row(report, "weather").rule == "weather.read"
    assert row(report, "weather").injected == ()
    assert row(report, "list_events").rule == "role editor & calendar.read"
    assert row(report, "list_events").scopes == ("calendar.read",)
    assert row(report, "plan").rule == "public"
    assert report.findings == ()


def test_a_rule_that_matches_nothing_is_found_with_what_was_meant(
    line: Line, guarding: Guarding
) -> None:
    rules = {
        "*": requires_auth,
        "wether": requires_scopes("weather.read"),
        "prompt:weather": requires_auth,
    }
    report = audit(guarding().protect(calendar(line), rules=rules))

    assert wrong(report) == {("unmatched-rule", "wether"), ("unmatched-rule", "prompt:weather")}
    assert "did you mean 'weather'?" in report.findings[0].message


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("resource:notes://alice/*", True),
        ("resource:notes://alice/1", True),
        ("resource:notes://{user}/{note}", True),
        ("resource:*", True),
        ("resource:notes:/", False),
        ("resource:files://*", False),
        ("tool:notes://alice/1", False),
    ],
)
def test_a_rule_for_some_uris_of_a_template_matches_something(
    line: Line, guarding: Guarding, pattern: str, matches: bool
) -> None:
    server = line.server("notes")

    @server.resource("notes://{user}/{note}")
    @requires_auth
    async def note(user: str, note: str) -> str:
        return f"{note} of {user}"

    report = audit(guarding().protect(server, rules={pattern: requires_scopes("notes.read")}))

    assert row(report, "notes://{user}/{note}").guarded
    assert wrong(report) == (set() if matches else {("unmatched-rule", pattern)})


def test_scopes_of_the_call_are_shown_apart(line: Line, guarding: Guarding) -> None:
    server = line.server("calendars")

    @server.tool()
    @requires_scopes("calendar.{name}.read", "profile")
    async def list_events(name: str) -> str:
        return name

    report = audit(guarding().protect(server), offered_scopes=["profile"])

    found = row(report, "list_events")
    assert (found.scopes, found.call_scopes) == (("profile",), ("calendar.{name}.read",))
    assert report.findings == ()
    assert any("depend on the call" in note for note in report.notes)


def test_scopes_that_are_not_offered_are_found_wherever_they_are_asked_for(
    line: Line, guarding: Guarding
) -> None:
    guard = guarding(refusals=Refusals(initial_scopes=["calendar.read", "vault"]))
    rules = {"*": requires_auth, "weather": requires_scopes("wether.read")}
    server = guard.protect(calendar(line), rules=rules)

    report = audit(server, offered_scopes=["calendar.read", "weather.read", "calendar.write"])

    assert wrong(report) == {
        ("unoffered-scope", "contacts.read"),
        ("unoffered-scope", "wether.read"),
        ("unoffered-scope", "vault"),
    }
    said = {each.name: each.message for each in report.findings}
    assert "did you mean 'weather.read'?" in said["wether.read"]
    assert "tool 'create_event'" in said["contacts.read"]
    assert "initial_scopes" in said["vault"]


def test_functions_below_their_guard_are_found_without_protect(line: Line) -> None:
    server = line.server("wrong order")

    @requires_scopes("admin")
    @server.tool()
    async def wipe() -> str:
        return "wiped"

    report = audit(server)

    assert wrong(report) == {("misdeclared", "wipe")}
    assert row(report, "wipe").access == "everybody"
    assert "write the line that registers the tool above them" in report.findings[0].message


def test_functions_below_their_guard_are_found_after_protect(
    line: Line, guarding: Guarding
) -> None:
    server = guarding().protect(line.server("wrong order"))

    @requires_scopes("admin")
    @server.tool()
    async def wipe() -> str:
        return "wiped"

    report = audit(server)

    assert wrong(report) == {("misdeclared", "wipe")}
    assert row(report, "wipe").rule == "nobody: registered without its guards"


def test_a_connection_without_a_provider_is_found(line: Line, guarding: Guarding) -> None:
    server = guarding(connections=None).protect(line.server("mail"))

    @server.tool()
    @with_connection("mail")
    async def send(*, connection_token: str) -> str:
        return connection_token

    (finding,) = audit(server).findings

    assert finding.code == "misdeclared"
    assert "connections=..." in finding.message


def test_what_is_public_and_guarded_at_once_is_found(line: Line, guarding: Guarding) -> None:
    server = guarding().protect(line.server("both"), rules={"*": requires_auth, "h*": public})

    @server.tool()
    async def hours() -> str:
        return "nine to five"

    @server.tool()
    @public
    async def opening() -> str:
        return "nine"

    report = audit(server)

    assert wrong(report) == {("contradiction", "hours"), ("contradiction", "opening")}
    assert {each.access for each in report.operations} == {"nobody"}
    assert all(each.name in each.message for each in report.findings)


def test_a_resource_that_is_no_function_is_guarded_by_rules(line: Line, guarding: Guarding) -> None:
    server: Any = line.server("texts")
    server.add_resource(_text_resource(line, "texts://one"))
    server.add_resource(_text_resource(line, "texts://two"))

    report = audit(guarding().protect(server, rules={"resource:texts://one": requires_auth}))

    assert wrong(report) == {("unguarded", "texts://two")}
    assert "rules={'resource:texts://two': ...}" in report.findings[0].message


_RESOURCES = {
    "mcp1": "mcp.server.fastmcp.resources",
    "mcp2": "mcp.server.mcpserver.resources",
    "fastmcp3": "fastmcp.resources",
    "fastmcp4": "fastmcp.resources",
}


def _text_resource(line: Line, uri: str) -> Any:
    kind = importlib.import_module(_RESOURCES[line.name]).TextResource
    return kind(uri=uri, name=uri, text="text")


def test_it_can_be_asked_for_inside_an_event_loop(line: Line, guarding: Guarding) -> None:
    server = guarding().protect(calendar(line))

    async def inside() -> Report:
        return audit(server)

    assert asyncio.run(inside()) == audit(server)


def test_an_audit_changes_nothing(line: Line, guarding: Guarding) -> None:
    server = guarding().protect(calendar(line))
    before = adapter_for(server).revision()

    audit(server)

    assert adapter_for(server).revision() == before
    assert call_as(server, "list_events", {"day": "monday"}).status == 403


def test_what_is_no_server_is_refused() -> None:
    with pytest.raises(TypeError, match="MCPServer"):
        audit(object())


def test_a_parameter_that_a_client_could_send_is_found(line: Line) -> None:
    server = line.server("sent")

    @server.tool()
    async def whoami(caller: Principal) -> str:
        return str(caller)

    assert wrong(audit(server)) == {("misdeclared", "whoami")}
