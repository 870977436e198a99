"""Can a name break a table, a page, a diagram or a terminal?"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.audit.formats import FORMATS, Format, as_json, as_markdown, as_mermaid, as_text
from toolguard.audit.report import AuditedOperation, Finding, GuardFacts, Report
from toolguard.policies.policy import ConnectionNeed

CALENDAR = ConnectionNeed("google", ("https://www.googleapis.com/auth/calendar",), "calendar")
HOSTILE = [
    "two\nlines",
    "a | b",
    "a\\| b",
    "`code`",
    "``",
    "<script>alert(1)</script>",
    "<!-- comment -->",
    "**bold** [link](https://evil.test) ![image](https://evil.test)",
    "@everybody #1",
    '"]; click o0 "https://evil.test"',
    "#quot;",
    "end",
    "\x1b[31mred\x1b[0m\x07",
    "\u202eright to left",
    "\ud800",
    "日本語",
    "",
    " ",
    "x" * 10_000,
    "long " * 2_000,
]


TABLE = """\
Server calendar; 3 operation(s), 1 unguarded; guarded as https://mcp.test/mcp, default:
authenticated

  operation                   rule                            connections                   injected
  --------------------------  ------------------------------  ----------------------------  --------
  tool list_events            read                                                          user_id
  tool create_event           read                            google (https://www.          user_id
                                                              googleapis.com/auth/          calendar
                                                              calendar)
! tool a_tool_with_a_name_    any authenticated caller
  that_is_as_long_as_the_     (default)
  names_that_programs_make

something could not be listed"""


def operation(name: str, **facts: object) -> AuditedOperation:
    made = AuditedOperation("tool", name, None, "restricted", "read", guarded=True)
    return replace(made, **{"alternatives": (("read",),), "scopes": ("read",), **facts})  # type: ignore[arg-type]


def report(*operations: AuditedOperation, **facts: object) -> Report:
    guard = GuardFacts("https://mcp.test/mcp", "https://issuer.test", "authenticated", ("read",))
    made = Report("calendar", guard, operations)
    return replace(made, **facts)  # type: ignore[arg-type]


def hostile(name: str) -> Report:
    """Return a report with ``name`` wherever something else than a guard may put it."""
    finding = Finding("unguarded", "tool", name, f"tool {name!r} has no guard")
    shown = operation(
        name,
        version=name,
        rule=name,
        alternatives=((name, "read"), ("admin",)),
        call_scopes=(name,),
        connections=(replace(CALENDAR, name=name),),
        injected=(name,),
    )
    hidden = replace(shown, access="everybody", guarded=False, alternatives=())
    return report(shown, hidden, server=name, findings=(finding,), notes=(f"note {name!r}",))


names = st.sampled_from(HOSTILE) | st.text(
    st.characters(codec=None) | st.sampled_from("|`\\<>#\"'*_\n\x1b"), max_size=300
)


# --- text


def test_the_table_is_readable_in_100_columns() -> None:
    shown = report(
        operation("list_events", injected=("user_id",)),
        operation("create_event", connections=(CALENDAR,), injected=("user_id", "calendar")),
        replace(
            operation("a_tool_with_a_name_that_is_as_long_as_the_names_that_programs_make"),
            rule="any authenticated caller (default)",
            access="authenticated",
            guarded=False,
            alternatives=(),
            scopes=(),
        ),
        notes=("something could not be listed",),
    )

    assert as_text(shown).split("\n") == TABLE.split("\n")


def test_scopes_have_a_column_where_the_rule_asks_for_more() -> None:
    plain = as_text(report(operation("one")))
    mixed = as_text(report(operation("one"), operation("two", rule="read & role editor")))

    assert "scopes" not in plain
    assert "scopes" in mixed


def test_an_empty_report_has_headings() -> None:
    assert "operation" in as_text(report())
    assert "no guard" in as_text(report(guard=None))


def text_holds(name: str) -> None:
    lines = as_text(hostile(name)).split("\n")

    assert all(len(line) <= 100 for line in lines)
    assert all(line.isprintable() for line in lines)


# --- JSON


def json_holds(name: str) -> None:
    text = as_json(hostile(name))

    assert text.isascii()
    found = json.loads(text)
    assert [each["name"] for each in found["operations"]] == [name, name]
    assert found["operations"][0]["connections"][0]["name"] == name
    assert found["findings"][0]["name"] == name
    assert found["server"] == name


def test_json_has_these_keys() -> None:
    found = json.loads(as_json(hostile("x")))

    assert set(found) == {"format", "server", "guard", "operations", "findings", "notes"}
    assert set(found["guard"]) == {"resource", "issuer", "default", "initial_scopes"}
    assert set(found["operations"][0]) == {
        "kind",
        "name",
        "version",
        "access",
        "rule",
        "guarded",
        "alternatives",
        "scopes",
        "call_scopes",
        "connections",
        "injected",
        "approver",
    }
    assert set(found["operations"][0]["connections"][0]) == {
        "name",
        "scopes",
        "parameter",
        "tenant",
        "optional",
        "fresh",
    }
    assert set(found["findings"][0]) == {"code", "kind", "name", "message"}
    assert found["format"] == 1
    assert json.loads(as_json(report(guard=None)))["guard"] is None


# --- Markdown


def cells(row: str) -> list[str]:
    """Split a row as GitHub does: at every pipe without an odd number of backslashes before it."""
    assert row.startswith("| ")
    assert row.endswith(" |")
    return re.split(r"(?<!\\)(?:\\\\)*\|", row)[1:-1]


def markdown_holds(name: str) -> None:
    lines = as_markdown(hostile(name)).split("\n")

    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert [len(cells(row)) for row in table] == [5, 5, 5, 5]
    # A separator has no backslash to hide it.
    assert all("\\" not in row for row in table)
    assert all(line.isprintable() for line in lines)
    # No HTML of its own, and nobody is mentioned.
    outside = re.sub(r"`[^`\n]*`", "", "\n".join(lines))
    assert not re.search(r"<(?!/?code>|!-- -->)", outside)
    assert not re.search(r"@\w", outside)


def test_markdown_has_the_findings_and_the_notes() -> None:
    shown = report(
        operation("a|b"),
        replace(operation("wipe"), guarded=False, access="everybody", rule="everybody"),
        findings=(Finding("unguarded", "tool", "wipe", "tool 'wipe': write @public"),),
        notes=("one <note>",),
    )

    assert as_markdown(shown).split("\n") == [
        (
            "Server calendar; 2 operation(s), 1 unguarded; guarded as https&#58;//mcp.test/mcp, "
            "default: authenticated"
        ),
        "",
        "| operation | rule | scopes | connections | injected |",
        "| --- | --- | --- | --- | --- |",
        "| tool <code>a&#124;b</code> | `read` | `read` |  |  |",
        "| **unguarded** tool `wipe` | `everybody` | `read` |  |  |",
        "",
        "**Findings**",
        "",
        "- tool 'wipe': write @<!-- -->public",
        "",
        "**Notes**",
        "",
        "- one &#60;note&#62;",
    ]


# --- Mermaid

_LABEL = r'"(?:[^"#\n]|#\d+;)*"'
_NODE = rf"[srco]\d+(?:\(\[{_LABEL}\]\)|\{{\{{{_LABEL}\}}\}}|\[\({_LABEL}\)\]|\[{_LABEL}\])?"
_STATEMENT = re.compile(
    rf"  (?:%% .*|{_NODE}(?: (?:-->|-\.->) {_NODE})?|classDef wrong [\w:#,-]+|class [o\d,]+ wrong)"
)


def mermaid_holds(name: str) -> None:
    first, *statements = as_mermaid(hostile(name)).split("\n")

    assert first == "flowchart LR"
    assert [line for line in statements if not _STATEMENT.fullmatch(line)] == []
    assert all(len(line) < 5_000 for line in statements if not line.startswith("  %%"))


def test_a_diagram_leads_from_scopes_to_operations_to_connections() -> None:
    shown = report(
        operation("list", alternatives=(("read", "role editor"), ("read", "admin"))),
        operation("create", connections=(CALENDAR,)),
        replace(operation("wipe"), guarded=False, access="everybody", rule="everybody"),
    )
    shown = replace(
        shown,
        operations=(*shown.operations[:2], replace(shown.operations[2], alternatives=())),
    )

    assert as_mermaid(shown).split("\n") == [
        "flowchart LR",
        '  o0["tool list"]',
        '  s0(["read"]) --> o0',
        '  r1{{"role editor"}} -.-> o0',
        '  r2{{"admin"}} -.-> o0',
        '  o1["tool create"]',
        '  s0(["read"]) --> o1',
        '  o1 --> c3[("google")]',
        '  o2["tool wipe"]',
        '  r4{{"everybody"}} --> o2',
        "  classDef wrong stroke:#c00,stroke-width:3px",
        "  class o2 wrong",
    ]


# --- all of them

LAWS = {
    "text": text_holds,
    "json": json_holds,
    "markdown": markdown_holds,
    "mermaid": mermaid_holds,
}
every_format = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


@every_format
@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name)[:20])
def test_no_hostile_name_breaks_a_format(law: Callable[[str], None], name: str) -> None:
    law(name)


@every_format
@given(name=names)
def test_no_name_breaks_a_format(law: Callable[[str], None], name: str) -> None:
    law(name)


def test_every_format_is_looked_at() -> None:
    assert set(LAWS) == set(FORMATS)


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_names_every_operation(name: Format) -> None:
    written = FORMATS[name](report(operation("one"), operation("two")))

    assert "one" in written
    assert "two" in written
