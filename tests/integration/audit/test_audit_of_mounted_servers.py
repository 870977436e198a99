"""Does the table know what fastmcp puts together, and who gets in through all of it?"""

from __future__ import annotations

import importlib
import socket
from pathlib import Path
from typing import Any

import pytest

from support.auditing import bare, done, notes, row, wrong
from support.lines import FASTMCP_LINES, Guarding, Line
from toolguard import public, requires_auth, requires_scopes
from toolguard.audit import audit

pytestmark = [
    pytest.mark.skipif(not FASTMCP_LINES, reason="fastmcp is not installed"),
    pytest.mark.parametrize("line", FASTMCP_LINES, ids=str),
]

SPEC = {
    "openapi": "3.1.0",
    "info": {"title": "pets", "version": "1"},
    "servers": [{"url": "http://127.0.0.1:9"}],
    "paths": {
        "/pets": {"get": {"operationId": "list_pets", "responses": {"200": {"description": ""}}}}
    },
}


def fastmcp(module: str) -> Any:
    return importlib.import_module(f"fastmcp.{module}")


def test_operations_have_the_names_that_clients_know(line: Line, guarding: Guarding) -> None:
    outer, middle = bare(line), bare(line)
    middle.mount(notes(line), namespace="inner", tool_names={"wipe": "destroy"})
    outer.mount(middle, namespace="outer")

    report = audit(guarding().protect(outer))

    assert {(each.kind, each.name): each.rule for each in report.operations} == {
        ("tool", "outer_inner_read"): "read",
        ("tool", "outer_inner_destroy"): "any authenticated caller (default)",
        ("resource", "notes://outer/inner/{user}/all"): "read",
        ("prompt", "outer_inner_plan"): "public",
    }
    assert row(report, "outer_inner_read").injected == ("user_id",)
    assert wrong(report) == {("unguarded", "outer_inner_destroy")}


def test_a_rule_for_the_name_on_the_outer_server_matches(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.mount(notes(line), namespace="notes")

    report = audit(
        guarding().protect(outer, rules={"notes_*": requires_scopes("admin"), "wipe_all": public})
    )

    assert row(report, "notes_read").rule == "admin & read"
    assert wrong(report) == {("unmatched-rule", "wipe_all")}


def test_a_rule_for_the_name_on_the_mounted_server_matches(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.mount(notes(line), namespace="notes")

    report = audit(
        guarding().protect(
            outer, rules={"notes_*": requires_scopes("admin"), "wipe": requires_scopes("wipe")}
        )
    )

    assert row(report, "notes_wipe").rule == "admin & wipe"
    assert wrong(report) == set()


def test_a_rule_that_a_mounted_server_does_not_hold_is_found(
    line: Line, guarding: Guarding
) -> None:
    inner, outer = notes(line), bare(line)
    outer.mount(inner, namespace="in")
    guarding().protect(inner, rules={"wipe": requires_scopes("admin"), "in_wipe": requires_auth})

    report = audit(guarding().protect(outer))

    assert row(report, "in_wipe").rule == "admin"
    assert wrong(report) == {("unmatched-rule", "in_wipe")}


# --- what is no function of the server's own


def test_tools_of_an_openapi_document_are_listed(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.mount(type(outer).from_openapi(SPEC), namespace="pets")

    report = audit(guarding().protect(outer))

    assert wrong(report) == {("unguarded", "pets_list_pets")}


def test_tools_of_another_server_are_not_asked_for_and_that_is_said(
    line: Line, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("an audit has no business on the network")

    outer = bare(line)
    outer.mount(fastmcp("server").create_proxy("http://127.0.0.1:9/mcp"), namespace="far")
    outer.mount(notes(line), namespace="near")
    guarding().protect(
        outer, rules={"near_wipe": requires_auth, "far_delete_*": requires_scopes("admin")}
    )
    monkeypatch.setattr(socket.socket, "connect", refuse)

    report = audit(outer)

    assert [each.name for each in report.operations if each.kind == "tool"] == [
        "near_read",
        "near_wipe",
    ]
    assert report.findings == ()
    assert "ProxyProvider" in report.notes[0]
    assert "'far_delete_*'" in report.notes[1]


def test_operations_of_a_custom_provider_are_noted_not_listed(
    line: Line, guarding: Guarding
) -> None:
    class Database(fastmcp("server.providers").Provider):  # type: ignore[misc]
        async def _list_tools(self) -> list[Any]:
            raise AssertionError("not connected")

    outer = bare(line)
    outer.add_provider(Database())

    report = audit(guarding().protect(outer))

    assert report.operations == ()
    assert [note.split()[0] for note in report.notes] == ["Database"]


def test_tools_that_are_hidden_and_can_be_called_are_listed(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.mount(notes(line), namespace="in")
    outer.mount(type(outer).from_openapi(SPEC))
    outer.add_transform(fastmcp("server.transforms.search").RegexSearchTransform())
    outer.disable(names={"in_wipe"})

    report = audit(guarding().protect(outer))

    assert {each.name for each in report.operations if each.kind == "tool"} == {
        "search_tools",
        "call_tool",
        "in_read",
        "in_wipe",
        "list_pets",
    }
    assert row(report, "in_read").rule == "read"


def test_tools_that_cannot_be_reached_are_not_listed(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.mount(notes(line))
    outer.tool(name="old", version="1")(requires_auth(done()))
    outer.tool(name="new", version="2")(requires_scopes("read")(done()))
    outer.add_transform(fastmcp("server.transforms").VersionFilter(version_gte="2"))

    report = audit(guarding().protect(outer))

    assert "old" not in {each.name for each in report.operations}
    assert (row(report, "new").version, row(report, "new").rule) == ("2", "read")


def test_every_version_of_a_tool_has_a_row(line: Line, guarding: Guarding) -> None:
    outer = bare(line)
    outer.tool(name="do", version="1")(done())
    outer.tool(name="do", version="2")(requires_auth(done()))

    report = audit(guarding().protect(outer))

    assert {(each.name, each.version, each.guarded) for each in report.operations} == {
        ("do", "1", False),
        ("do", "2", True),
    }


def test_a_transformed_tool_has_the_guard_of_the_one_behind_it(
    line: Line, guarding: Guarding
) -> None:
    tools = fastmcp("tools")
    outer, inner = bare(line), bare(line)
    read = tools.Tool.from_function(requires_scopes("read")(done()), name="read")
    inner.add_tool(tools.Tool.from_tool(read, name="renamed"))
    outer.mount(inner, namespace="in", tool_names={"renamed": "again"})

    report = audit(guarding().protect(outer))

    assert row(report, "in_again").rule == "read"
    assert report.findings == ()


def test_tools_that_middleware_adds_are_listed(line: Line, guarding: Guarding) -> None:
    middleware = fastmcp("server.middleware.tool_injection").ToolInjectionMiddleware
    added = fastmcp("tools").Tool.from_function(done(), name="read")
    outer = bare(line)
    outer.mount(notes(line))
    outer.add_middleware(middleware([added]))

    report = audit(guarding().protect(outer))

    assert row(report, "read").rule == "any authenticated caller (default)"


def test_a_transform_that_needs_a_request_leaves_the_names_as_they_are(
    line: Line, guarding: Guarding
) -> None:
    class Tenant(fastmcp("server.transforms").Transform):  # type: ignore[misc]
        async def list_tools(self, tools: Any) -> Any:
            return fastmcp("server.dependencies").get_http_request()

    outer = bare(line)
    outer.mount(notes(line))
    outer.add_transform(Tenant())

    report = audit(guarding().protect(outer))

    assert row(report, "read").rule == "read"
    assert [note.split()[0] for note in report.notes] == ["Tenant"]


def test_a_tool_that_fastmcp_checks_by_itself_is_guarded(line: Line) -> None:
    outer = bare(line)
    outer.tool(name="own", auth=fastmcp("server.auth").require_scopes("read"))(done())
    outer.tool(name="none")(done())

    report = audit(outer)

    assert (row(report, "own").access, row(report, "own").guarded) == ("restricted", True)
    assert "auth=" in row(report, "own").rule
    assert wrong(report) == {("unguarded", "none")}


def test_tools_in_files_are_listed(line: Line, guarding: Guarding, tmp_path: Path) -> None:
    code = "from fastmcp.tools import tool\n\n@tool\ndef greet() -> str:\n    return 'done'\n"
    (tmp_path / "greeting.py").write_text(code, "utf-8")
    outer = bare(line)
    outer.add_provider(fastmcp("server.providers").FileSystemProvider(tmp_path), namespace="f")

    assert wrong(audit(guarding().protect(outer))) == {("unguarded", "f_greet")}
