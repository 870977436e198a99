"""What does ``toolguard audit`` say, and can a build rely on it?"""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolguard.audit.command import AuditSettings, run_audit
from toolguard.cli import main
from toolguard.errors import KeysUnavailableError

EXAMPLES = Path(__file__).parents[3] / "examples"
ON_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
SDK = ["calendar/server.py", "imperative.py"] if ON_LINE_2 else []
FASTMCP = (
    ["calendar/server_fastmcp.py", "tenant_tokens/server.py"]
    if importlib.util.find_spec("fastmcp") is not None
    else []
)

TABLE = """\
  operation                   rule                   connections                            injected
  --------------------------  ---------------------  -------------------------------------  --------
  tool list_calendar_events   mcp:calendar.readonly  google-calendar                        calendar
  tool query_availability     mcp:calendar.readonly  google-calendar                        calendar
  tool create_calendar_event  mcp:calendar.write     google-calendar (https://www.          user_id
                                                     googleapis.com/auth/calendar)          calendar
  tool delete_calendar_event  mcp:calendar.write     google-calendar (https://www.          calendar
                                                     googleapis.com/auth/calendar)
"""

CODE = """\
{imports}
from toolguard import ToolGuard, public, requires_scopes
from toolguard.testing import LocalIssuer

mcp = Server("notes", log_level="WARNING")

@mcp.tool()
@requires_scopes("notes.read")
async def read(*, user_id: str) -> str: ...

@mcp.tool()
@public
async def hours() -> str: ...

{more}

issuer = LocalIssuer(audience="https://mcp.test/mcp", algorithm="ES256")
ToolGuard(verifier=issuer.verifier(), audience=issuer.audience).protect(mcp{settings})
"""
IMPORTS = (
    "from mcp.server.mcpserver import MCPServer as Server"
    if ON_LINE_2
    else "from mcp.server.fastmcp import FastMCP as Server"
)
WIPE = "@mcp.tool()\nasync def wipe(): ..."


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path) -> Iterator[None]:
    """Forget the modules that a test has loaded from files."""
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(
            (str(tmp_path), str(EXAMPLES))
        ):
            del sys.modules[name]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the examples read."""
    url = "https://api.descope.com/P2abc/.well-known/openid-configuration"
    monkeypatch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", url)
    monkeypatch.setenv("MCP_SERVER_URL", "http://127.0.0.1:8000/mcp")
    monkeypatch.delenv("TOOLGUARD_ISSUER", raising=False)


def notes(path: Path, more: str = "", settings: str = "") -> str:
    file = path / "notes.py"
    file.write_text(CODE.format(imports=IMPORTS, more=more, settings=settings), "utf-8")
    return f"{file}:mcp"


def run(settings: AuditSettings, scopes: tuple[str, ...] | None = ()) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = run_audit(settings, out, err, lambda _: scopes)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("example", [*SDK, *FASTMCP])
def test_the_examples_leave_nothing_open(example: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(EXAMPLES / example), "--check"]) == 0

    said = capsys.readouterr()
    assert said.out.startswith("Server ")
    assert said.err == ""


@pytest.mark.skipif(not FASTMCP, reason="fastmcp is not installed")
@pytest.mark.usefixtures("environment")
def test_the_table_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", str(EXAMPLES / "calendar" / "server_fastmcp.py")])

    assert capsys.readouterr().out.split("\n", 3)[3] == TABLE


def test_what_is_unguarded_fails_a_check_and_only_a_check(tmp_path: Path) -> None:
    target = notes(tmp_path, WIPE)

    shown = run(AuditSettings(target))
    checked = run(AuditSettings(target, check=True))

    assert (shown[0], checked[0]) == (0, 1)
    assert shown[1:] == checked[1:]
    assert checked[2] == (
        "unguarded: tool 'wipe' has no guard (any authenticated caller (default)): write "
        "@requires_scopes(...), @requires_auth or @public above its def, or name it in "
        "protect(server, rules={'wipe': ...})\n"
    )
    assert "! tool wipe" in checked[1]


def test_what_is_public_or_guarded_passes(tmp_path: Path) -> None:
    code, out, err = run(AuditSettings(notes(tmp_path), check=True))

    assert (code, err) == (0, "")
    assert "2 operation(s), 0 unguarded" in out


def test_a_rule_that_matches_nothing_fails(tmp_path: Path) -> None:
    target = notes(tmp_path, settings=', rules={"raed": requires_scopes("x")}')

    code, _, err = run(AuditSettings(target, check=True))

    assert code == 1
    assert err.startswith("unmatched-rule: the rule 'raed' matches no operation (did you mean")


def test_a_scope_that_is_not_offered_fails(tmp_path: Path) -> None:
    settings = AuditSettings(notes(tmp_path), check=True, issuer="https://auth.example.com")

    assert run(settings, ("notes.read",))[0] == 0
    code, _, err = run(settings, ("openid", "note.read"))

    assert code == 1
    assert err == (
        "unoffered-scope: the authorization server does not offer scope 'notes.read' (did you "
        "mean 'note.read'?), which tool 'read' asks for: correct it, or have it offered\n"
    )


def test_an_issuer_that_names_no_scopes_is_said_to(tmp_path: Path) -> None:
    settings = AuditSettings(notes(tmp_path), check=True, issuer="https://auth.example.com")

    code, out, err = run(settings, None)

    assert (code, err) == (0, "")
    assert "https://auth.example.com does not say which scopes it offers" in out


def test_an_issuer_that_cannot_be_asked_is_no_pass(tmp_path: Path) -> None:
    def unreachable(_: str) -> None:
        raise KeysUnavailableError("no metadata of the issuer (HTTP 404)")

    out, err = io.StringIO(), io.StringIO()
    settings = AuditSettings(notes(tmp_path), issuer="https://auth.example.com")

    assert run_audit(settings, out, err, unreachable) == 2
    assert (out.getvalue(), err.getvalue()) == (
        "",
        "toolguard audit: no metadata of the issuer (HTTP 404)\n",
    )


def test_what_is_no_issuer_says_what_one_is(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()

    code = run_audit(AuditSettings(notes(tmp_path), issuer="example.com"), out, err)

    assert code == 2
    assert "write https://auth.example.com" in err.getvalue()


def test_what_cannot_be_loaded_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "no_such_module:mcp"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("toolguard audit: cannot load no_such_module: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "begins"),
    [("text", "Server notes"), ("markdown", "Server notes"), ("mermaid", "flowchart LR")],
)
def test_every_format_can_be_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, begins: str
) -> None:
    assert main(["audit", notes(tmp_path), "--format", name]) == 0

    assert capsys.readouterr().out.startswith(begins)


def test_a_format_that_there_is_not_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["audit", "notes:mcp", "--format", "xml"])

    assert caught.value.code == 2
    assert "markdown" in capsys.readouterr().err


def test_json_on_standard_output_is_nothing_but_json(tmp_path: Path) -> None:
    target = notes(tmp_path, WIPE + "\nprint('loading')")
    command = [sys.executable, "-m", "toolguard", "audit", target, "--format", "json", "--check"]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [each["name"] for each in found["operations"]] == ["read", "hours", "wipe"]
    assert [each["code"] for each in found["findings"]] == ["unguarded"]
    assert "loading" in done.stderr


def test_a_terminal_that_lacks_a_character_is_shown_its_number(tmp_path: Path) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")

    run_audit(
        AuditSettings(notes(tmp_path, '@mcp.tool("löschen")\nasync def wipe(): ...')),
        out,
        io.StringIO(),
    )

    out.seek(0)
    assert "l\\xf6schen" in out.read()
