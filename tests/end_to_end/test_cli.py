"""The command line."""

from __future__ import annotations

import io
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from toolguard import ToolGuard
from toolguard.cli import main
from toolguard.dev.command import DevSettings, run_dev
from toolguard.dev.oauth.config import builtin_world, parse_world


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0

    shown = capsys.readouterr().out
    assert shown.startswith("usage: toolguard")
    assert "demo" in shown
    assert len(shown.splitlines()) < 20


def test_it_knows_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])

    assert caught.value.code == 0
    assert capsys.readouterr().out == "0.1.0\n"


def test_the_version_has_a_short_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["-V"])

    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == version("toolguard-mcp")


def test_a_shell_completes_commands_and_options() -> None:
    script = run_toolguard("completion")

    def completed(words: str, position: int) -> list[str]:
        line = f"COMP_WORDS=(toolguard {words}); COMP_CWORD={position}; _toolguard"
        code = f'{script}\n{line}; echo "${{COMPREPLY[@]}}"'
        return subprocess.run(
            ["bash", "-c", code], capture_output=True, check=True, text=True, timeout=60
        ).stdout.split()

    assert completed("d", 1) == ["demo", "dev", "doctor"]
    assert completed("dev --st", 2) == ["--state"]
    assert "upgrade" in completed("vault u", 2)


def run_toolguard(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "toolguard", *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout


@pytest.mark.parametrize("arguments", [["completion"], ["audit", "--format", "json", "s.py"]])
def test_output_that_nobody_reads_ends_a_command_quietly(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.py").write_text("from mcp.server import Server\nmcp = Server('few lines')\n")
    command = [sys.executable, "-m", "toolguard", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        started.stdout.close()  # as head does once it has its lines
        said = started.stderr.read()

    assert (started.returncode, said) == (141, b"")


def test_an_unknown_command_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["fly"])

    assert caught.value.code == 2
    assert "fly" in capsys.readouterr().err


def test_the_module_runs_like_the_command_and_imports_no_framework() -> None:
    check = (
        "import sys; from toolguard.cli import main; main([]);"
        "print(sorted({'mcp', 'fastmcp', 'httpx', 'starlette'} & set(sys.modules)))"
    )

    run = subprocess.run(
        [sys.executable, "-m", "toolguard"], capture_output=True, check=False, timeout=120
    )
    imports = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, check=True, timeout=120
    )

    assert run.returncode == 0
    assert run.stdout.startswith(b"usage: toolguard")
    assert imports.stdout.splitlines()[-1] == b"[]"


# toolguard dev -----------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def world_with(path: Path, url: str) -> Path:
    text = files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8")
    file = path / "world.toml"
    file.write_text(text.replace("http://127.0.0.1:8000/mcp", url), "utf-8")
    return file


class Visit:
    """What somebody does while the servers run."""

    def __init__(self, out: io.StringIO, visit: Callable[[dict[str, str]], None]) -> None:
        self._out = out
        self._visit = visit

    def __call__(self) -> None:
        exported = re.findall(r"export (\w+)=(\S+)", self._out.getvalue())
        self._visit(dict(exported))


def run(settings: DevSettings, visit: Callable[[dict[str, str]], None]) -> tuple[int, str]:
    out = io.StringIO()
    return run_dev(settings, out, Visit(out, visit)), out.getvalue()


def test_dev_says_what_a_server_and_a_client_need(tmp_path: Path) -> None:
    seen: list[Any] = []

    def visit(environ: dict[str, str]) -> None:
        guard = ToolGuard.from_env(environ)
        seen.append((guard.resource, guard.issuer))
        metadata = httpx.get(environ["DESCOPE_MCP_WELL_KNOWN_URL"], trust_env=False).json()
        seen.append(metadata["issuer"] == guard.issuer)
        events = f"{environ['GOOGLE_API_URL']}/calendar/v3/calendars/primary/events"
        seen.append(httpx.get(events, trust_env=False).status_code)

    code, said = run(DevSettings(port=0), visit)

    issuer = re.search(r"authorization server, vault +(\S+)", said)
    assert issuer is not None
    assert code == 0
    assert seen == [("http://127.0.0.1:8000/mcp", issuer[1]), True, 401]
    client = '{"mcpServers": {"calendar": {"type": "http", "url": "http://127.0.0.1:8000/mcp"}}}'
    assert client in said
    assert "alice@tenant-a.example" in said


SERVER = """
from support.lines import LINES
from toolguard import ToolGuard, requires_scopes, with_connection

mcp = LINES[0].server("notes")

@mcp.tool()
@requires_scopes("notes.write")
@with_connection("github", scopes=["repo"])
async def push_note(*, connection_token: str) -> str:
    return connection_token

ToolGuard.from_env().protect(mcp)
"""


def test_dev_makes_a_world_for_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tmp_path / "notes_for_dev.py"
    server.write_text(SERVER, "utf-8")
    monkeypatch.delenv("MCP_SERVER_URL", raising=False)

    def visit(environ: dict[str, str]) -> None:
        issuer = environ["DESCOPE_MCP_WELL_KNOWN_URL"]
        assert main(["token", "alice", "--scope", "notes.write", "--issuer", issuer]) == 0
        assert main(["token", "bob", "--scope", "notes.write", "--issuer", issuer]) == 1

    code, said = run(DevSettings(port=0, server=f"{server}:mcp"), visit)

    assert code == 0
    assert "no policy grants notes.write to bob@tenant-a.example" in capsys.readouterr().err
    assert "alice@tenant-a.example       may grant notes.write, outbound.token.fetch\n" in said
    assert "bob@tenant-a.example         may grant nothing\n" in said
    assert "connection                   github (repo), imitated at http://127.0.0.1:" in said
    assert '{"mcpServers": {"notes": {"type": "http", "url": "http://127.0.0.1:8000/mcp"}}}' in said
    assert "attention" not in said
    assert "GOOGLE_API_URL" not in said
    assert "DESCOPE_MANAGEMENT_KEY" in said
    assert "To see a call: toolguard call http://127.0.0.1:8000/mcp TOOL '{}' --as alice" in said


def test_dev_runs_the_guarded_calendar_where_the_world_has_it(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    seen: list[str] = []

    def visit(environ: dict[str, str]) -> None:
        refused = httpx.post(url, json={}, trust_env=False)
        seen.append(f"{refused.status_code} {refused.headers['www-authenticate']}")
        issuer = environ["DESCOPE_MCP_WELL_KNOWN_URL"].partition("/.well-known")[0]
        for _ in range(100):  # the record is noted beside the answer
            console = httpx.get(issuer, trust_env=False).text
            if "for a caller without a valid token" in console:
                seen.append("noted")
                return

    code, said = run(DevSettings(world_with(tmp_path, url), port=0, calendar=True), visit)

    assert code == 0
    assert f"The guarded calendar runs at {url}." in said
    assert seen[1] == "noted"
    assert seen[0].startswith('401 Bearer scope="mcp:calendar.readonly", resource_metadata=')
    assert ', DPoP algs="ES256' in seen[0]


def test_dev_keeps_its_state_in_a_file(tmp_path: Path) -> None:
    settings = DevSettings(state=tmp_path / "state.db", port=0)
    keys: list[Any] = []
    client = {"redirect_uris": ["http://127.0.0.1:3000/"], "token_endpoint_auth_method": "none"}

    def visit(environ: dict[str, str]) -> None:
        issuer = environ["DESCOPE_MCP_WELL_KNOWN_URL"].partition("/.well-known")[0]
        jwks = httpx.get(f"{issuer}/jwks", trust_env=False).json()
        keys.append((jwks, environ["DESCOPE_MANAGEMENT_KEY"]))
        if len(keys) == 1:
            registered = httpx.post(f"{issuer}/register", json=client, trust_env=False).json()
            client["id"] = registered["client_id"]
        asked = httpx.get(f"{issuer}/authorize?client_id={client['id']}", trust_env=False)
        assert asked.headers["location"].startswith("http://127.0.0.1:3000/?error=")

    assert [run(settings, visit)[0] for _ in range(2)] == [0, 0]

    assert keys[0] == keys[1]
    assert (tmp_path / "state.db").stat().st_mode & 0o077 == 0


def test_dev_says_why_it_cannot_run(tmp_path: Path) -> None:
    bad_world = tmp_path / "bad.toml"
    bad_world.write_text("project_id = 1")
    no_state = tmp_path / "no.db"
    no_state.write_text("this is no database, and long enough to be seen as none")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        attempts = {
            "bad.toml": DevSettings(bad_world),
            "No such file": DevSettings(tmp_path / "none.toml"),
            "not a database": DevSettings(state=no_state, port=0),
            f"port {taken.getsockname()[1]} of 127.0.0.1: Address already in use; write another "
            "one, such as --port 8810": DevSettings(port=taken.getsockname()[1]),
            "--calendar": DevSettings(
                world_with(tmp_path, "https://mcp.example.com/mcp"), port=0, calendar=True
            ),
        }
        for reason, settings in attempts.items():
            code, said = run(settings, lambda _: None)
            assert code == 1
            assert said.startswith("toolguard dev: ")
            assert reason in said


def test_dev_shows_a_world_that_it_takes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dev", "--show-world"]) == 0

    assert parse_world(capsys.readouterr().out) == builtin_world()


def test_dev_stops_at_ctrl_c() -> None:
    # A shell that runs the suite in the background has its children ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-W", "error", "-m", "toolguard", "dev", "--port", "0"]
    try:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with running:
        assert running.stdout is not None
        said = running.stdout.readline()
        for line in iter(running.stdout.readline, b"Stop with Ctrl-C.\n"):
            assert line, "ended before it said how to stop it"
            said += line
        running.send_signal(signal.SIGINT)
        try:
            _, warned = running.communicate(timeout=20)
        finally:
            running.kill()
    code = running.returncode

    assert code == 0
    assert b"DESCOPE_MANAGEMENT_KEY" in said
    assert warned.count(b"\n") == 1
    assert b"development authorization server" in warned


def test_a_command_without_its_extra_says_what_to_install() -> None:
    code = """if True:
        import sys
        sys.modules["sqlalchemy"] = None
        from toolguard.cli import main
        for command in ("demo", "dev", "vault list https://auth.test alice"):
            print(main(command.split()))
    """

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout == "2\n2\n2\n"
    assert done.stderr.splitlines() == [
        f"toolguard {command}: sqlalchemy is not installed: "
        f"write pip install 'toolguard-mcp[{extra}]'"
        for command, extra in (("demo", "dev"), ("dev", "dev"), ("vault", "vault"))
    ]
