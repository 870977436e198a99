"""Does ``toolguard proxy`` put servers behind rules that other people wrote, as installed?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from support import node_packages
from support.gateways import TESTS, command_of, publishing, write_rules
from support.lines import FASTMCP_LINES, LINES
from support.upstream_server import upstream
from support.wire import Caller
from toolguard.cli import main
from toolguard.testing import LocalIssuer, Loopback


class Installed(NamedTuple):
    """A server of another author.

    Attributes:
        command: what starts it.
        tool: one of its tools that needs nothing from outside.
        arguments: what the tool is called with.
        said: something of what it answers.
    """

    command: tuple[str, ...]
    tool: str
    arguments: dict[str, Any]
    said: str


EVERYTHING = "@modelcontextprotocol/server-everything@2026.8.31"
FETCHED = {"url": "http://127.0.0.1:9/"}
SERVERS = {
    # tests/integration/gateway has one of the official SDK.
    **{
        line.name: Installed(tuple(command_of(line)), "hour", {}, "noon")
        for line in FASTMCP_LINES or LINES[:1]
    },
    "time": Installed(("mcp-server-time",), "get_current_time", {"timezone": "Etc/UTC"}, "Etc/UTC"),
    "fetch": Installed(("mcp-server-fetch",), "fetch", FETCHED, "127.0.0.1"),
    "git": Installed(("mcp-server-git",), "git_status", {"repo_path": "/none"}, "/none"),
    "everything": Installed(("mcp-server-everything",), "echo", {"message": "hello"}, "hello"),
}


@pytest.fixture(scope="module")
def signing() -> Iterator[LocalIssuer]:
    """An authorization server that publishes its keys."""
    with publishing() as issuer:
        yield issuer


@contextmanager
def proxy(*arguments: str) -> Iterator[tuple[str, list[str]]]:
    """Run the command; yield the URL of its endpoint, and what it said before."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    # Beside the interpreter are the scripts of an environment that is not activated.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with subprocess.Popen(
        [sys.executable, "-m", "toolguard", "proxy", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "PATH": programs, "TOOLGUARD_SECRET": "s" * 16},
    ) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            found = re.search(r"is guarded at (\S+);", line)
            if found is not None:
                break
        else:
            pytest.fail("".join(said))
        try:
            yield found[1], said
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_refused_then_stepped_up_to_then_served(
    name: str, signing: LocalIssuer, tmp_path: Path
) -> None:
    server = SERVERS[name]
    program, *arguments = server.command
    if name == "everything":
        program = str(node_packages.command_of(tmp_path, program, EVERYTHING))
    elif not (shutil.which(program) or (Path(sys.executable).parent / program).exists()):
        pytest.skip(f"{program} is not installed here")
    rules = f'[rules]\n{server.tool} = "use"\nno_such_tool = "use"\n'
    path = write_rules(tmp_path, signing.issuer, rules, pass_env='["PYTHONPATH"]')

    with (
        proxy("--rules", str(path), "--port", "0", "--", program, *arguments) as (endpoint, said),
        httpx.Client(timeout=60) as http,
    ):
        caller = Caller(http, endpoint)
        stranger = caller.call(server.tool, server.arguments)
        caller.token = signing.mint("alice")
        assert caller.open().status == 200
        listed = caller.tools()
        refused = caller.call(server.tool, server.arguments)
        caller.token = signing.mint("alice", scopes=["use"])
        served = caller.call(server.tool, server.arguments)

    assert stranger.status == 401
    assert listed[server.tool]["_meta"]["toolguard/requires"] == {"scopes": [["use"]]}
    assert refused.status == 403
    assert 'error="insufficient_scope", scope="use"' in str(refused.challenge)
    assert served.status == 200
    assert server.said in served.text
    assert any("the rule 'no_such_tool' matches no operation" in line for line in said)


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_server_of_fastmcp_is_served_from_its_url(
    line: Any, signing: LocalIssuer, tmp_path: Path
) -> None:
    path = write_rules(tmp_path, signing.issuer, '[rules]\nhour = "use"\n')

    with (
        Loopback(line.http_app(upstream(line))) as behind,
        proxy("--rules", str(path), "--port", "0", "--upstream", f"{behind.url}/mcp") as (url, _),
        httpx.Client(timeout=60) as http,
    ):
        caller = Caller(http, url, token=signing.mint("alice", scopes=["use"]))
        assert caller.open().status == 200
        served = caller.call("hour")
        refused = caller.call("count")

    assert served.value == "noon"
    assert refused.is_error
    assert "result" not in refused.messages[-1] or refused.tool_error


def test_audit_and_doctor_read_the_same_file(
    signing: LocalIssuer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS)]))
    rules = '[rules]\nhour = "use"\ncuont = "use"\n"prompt:*" = "plan"\n'
    settings = {"command": str(command_of()), "pass_env": '["PYTHONPATH"]'}
    path = str(write_rules(tmp_path, signing.issuer, rules, **settings))

    audited = main(["audit", "--check", path])
    report, findings = capsys.readouterr()
    diagnosed = main(["doctor", path])
    diagnoses = capsys.readouterr().out

    assert (audited, diagnosed) == (1, 1)
    assert re.search(r"tool hour +use", report)
    assert re.search(r"tool count +nobody \(default\)", report)
    assert re.search(r"prompt plan +plan", report)
    assert findings.count("\n") == 1
    assert "the rule 'cuont' matches no operation (did you mean 'count'?)" in findings
    assert "fault: unmatched-rule: cuont" in diagnoses
    assert "issuer-unreachable" not in diagnoses


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["no-such-command"], "no-such-command cannot be started (No such file or directory)"),
        (
            ["./server.py"],
            "./server.py cannot be started (Permission denied): write -- python ./ser",
        ),
        (
            ["./bare.py"],
            "./bare.py cannot be started (Exec format error): write -- python ./bare.py",
        ),
        (["server.py"], "(No such file or directory): write -- python server.py"),
        ([sys.executable, "-c", ""], "reach it if pass_env in [upstream] names them"),
    ],
)
def test_a_command_that_serves_nothing_is_said(
    command: list[str],
    said: str,
    signing: LocalIssuer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_rules(tmp_path, signing.issuer, '[rules]\nhour = "use"\n')
    monkeypatch.chdir(tmp_path)
    for name, mode in (("server.py", 0o644), ("bare.py", 0o755)):
        Path(name).write_text("print()\n", "utf-8")
        Path(name).chmod(mode)

    assert main(["proxy", "--rules", str(path), "--", *command]) == 2
    assert said in capsys.readouterr().err
