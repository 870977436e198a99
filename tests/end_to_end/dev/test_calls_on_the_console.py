"""Does the console show what the user's own server decides, which runs in another process?"""

from __future__ import annotations

import html
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.gateways import TESTS, command_of
from toolguard.cli import main
from toolguard.cli.targets import load_target
from toolguard.dev.command import DevSettings, run_dev

SERVER = """
import sys

import uvicorn

from support.lines import LINES
from toolguard import ToolGuard, requires_scopes

mcp = LINES[0].server("notes")


@mcp.tool()
@requires_scopes("notes.read")
async def list_notes() -> str:
    return "none"


@mcp.tool()
@requires_scopes("notes.write")
async def add_note(text: str, *, user_id: str) -> str:
    return f"{user_id} wrote {text}"


ToolGuard.from_env().protect(mcp)

if __name__ == "__main__":
    uvicorn.run(LINES[0].http_app(mcp), port=int(sys.argv[1]))
"""

RULES = """
[rules]
hour = "time.read"
count = "time.count"

[upstream]
command = {command}
pass_env = ["PYTHONPATH"]
"""

PATH = os.pathsep.join([str(TESTS.parent), str(TESTS)])


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a free port, where the server is to be."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        found: int = listening.getsockname()[1]
    monkeypatch.setenv("MCP_SERVER_URL", f"http://127.0.0.1:{found}/mcp")
    monkeypatch.setenv("PYTHONPATH", PATH)
    monkeypatch.delenv("TOOLGUARD_RECORDS", raising=False)
    return found


@contextmanager
def serving(command: list[str], variables: Mapping[str, str]) -> Iterator[None]:
    """Run a server until the block ends, and until it has written what it knows."""
    with subprocess.Popen(
        [sys.executable, *command],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables},
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "Uvicorn running on" in line or "is guarded at" in line:
                break
        else:
            pytest.fail("".join(said))
        try:
            yield
        finally:
            process.terminate()
            process.communicate()


def console_after(target: str, command: list[str], *calls: list[str]) -> list[str]:
    """Return the calls that the console shows once a server has been called, the newest first."""
    out, shown = io.StringIO(), list[str]()

    def visit() -> None:
        variables = dict(re.findall(r"export (\w+)=(\S+)", out.getvalue()))
        with serving(command, variables):
            for tool, *arguments in calls:
                main(["call", variables["MCP_SERVER_URL"], tool, *arguments])
        issuer = variables["DESCOPE_MCP_WELL_KNOWN_URL"].partition("/.well-known")[0]
        page = httpx.get(issuer, trust_env=False).text
        part = page.partition("Last calls of your server</h2>")[2].partition("<h2>")[0]
        for each in re.findall(r"<li>(.*?)</li>", part, re.DOTALL):
            words = html.unescape(re.sub(r"<[^>]+>", " ", each)).split()
            shown.append(" ".join(words[2:]))  # without the time

    settings = DevSettings(port=0, server=target)
    assert run_dev(settings, out, visit, load=load_target) == 0, out.getvalue()
    return shown


REFUSED = "insufficient_scope the token lacks {}; it has {}"
UNKNOWN = (
    "refused : a request, for a caller without a valid token missing_token the request has no token"
)


def test_calls_of_a_server_are_shown_with_their_reasons(port: int, tmp_path: Path) -> None:
    server = tmp_path / "server_of_its_own.py"
    server.write_text(SERVER, "utf-8")
    call = ["add_note", '{"text": "tea"}', "--as"]

    shown = console_after(
        f"{server}:mcp", [str(server), str(port)], [*call, "alice"], [*call, "bob"]
    )

    lacking = REFUSED.format("notes.write", "notes.read")
    assert [each for each in shown if each != UNKNOWN] == [
        f"refused : tool add_note, for bob through toolguard-cli {lacking}",
        "served : tool add_note, for alice through toolguard-cli rule: notes.write",
        f"refused : tool add_note, for alice through toolguard-cli {lacking}",
    ]
    assert UNKNOWN in shown


def test_calls_through_a_gateway_are_shown_as_well(port: int, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(RULES.format(command=command_of()))
    command = ["-m", "toolguard", "proxy", "--rules", str(rules), "--port", str(port)]

    shown = console_after(str(rules), command, ["hour", "--as", "alice", "--scope", "time.read"])

    assert "served : tool hour, for alice through toolguard-cli rule: time.read" in shown
