"""Which server is meant, and what is said if there is none?"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolguard.audit.loading import LoadError, load_server

SERVER = (
    "from mcp.server.mcpserver import MCPServer as Server\n"
    if importlib.util.find_spec("mcp.server.mcpserver") is not None
    else "from mcp.server.fastmcp import FastMCP as Server\n"
)
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write files into the current directory; forget the modules made of them."""
    monkeypatch.chdir(tmp_path)

    def file(name: str, code: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, "utf-8")
        return path

    yield file
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def reason(target: str) -> str:
    with pytest.raises(LoadError) as caught:
        load_server(target)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "target",
    [
        "guarded:mcp",
        "guarded",
        "guarded:held.mcp",
        "guarded:make",
        "guarded:make_later",
        "guarded.py:mcp",
        "guarded.py",
        "./guarded.py:mcp",
    ],
)
def test_a_server_is_found(write: Write, target: str) -> None:
    write(
        "guarded.py",
        SERVER + "import types\n"
        "mcp = Server('found', log_level='WARNING')\n"
        "again = mcp\n"
        "held = types.SimpleNamespace(mcp=mcp)\n"
        "def make(): return mcp\n"
        "async def make_later(): return mcp\n",
    )

    assert load_server(target).name == "found"


def test_a_file_is_found_from_anywhere_with_what_lies_beside_it(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("away/beside_it.py", "NAME = 'found'\n")
    path = write("away/my-server.py", SERVER + "import beside_it\nmcp = Server(beside_it.NAME)\n")
    before = list(sys.path)

    assert load_server("away/my-server.py:mcp").name == "found"
    assert load_server(f"{path}:mcp").name == "found"
    assert sys.path == before


def test_a_file_of_a_package_may_import_from_it(write: Write) -> None:
    write("packed/__init__.py", "")
    write("packed/inner/__init__.py", "NAME = 'found'\n")
    write("packed/inner/server.py", SERVER + "from . import NAME\nmcp = Server(NAME)\n")

    assert load_server("packed/inner/server.py:mcp").name == "found"
    assert load_server("packed.inner.server:mcp") is load_server("packed/inner/server.py:mcp")


def test_a_file_may_have_the_name_of_another_module(write: Write) -> None:
    path = write("importlib.py", SERVER + "mcp = Server('found')\n")

    assert load_server(f"{path}:mcp").name == "found"
    assert sys.modules["importlib"] is not sys.modules["_audited_importlib"]


def test_loading_does_not_run_what_runs_as_a_program(write: Write) -> None:
    write("program.py", SERVER + "mcp = Server('x')\nif __name__ == '__main__':\n    mcp.run()\n")

    assert load_server("program.py").name == "x"


def test_what_a_module_prints_goes_to_standard_error(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write("loud.py", SERVER + "print('hello')\nmcp = Server('x')\n")

    load_server("loud.py")

    said = capsys.readouterr()
    assert (said.out, "hello" in said.err) == ("", True)


def test_several_servers_are_listed(write: Write) -> None:
    write("several.py", SERVER + "one, other = Server('one'), Server('other')\n")

    assert reason("several.py") == (
        "several.py does not say which server: write several.py:one or several.py:other"
    )
    assert reason("several:third") == ("several has no 'third'; write several:one or several:other")


def test_a_module_without_a_server_says_what_to_write(write: Write) -> None:
    other = "import mcp\nother = mcp.StdioServerParameters(command='x')\n"
    write("none.py", f"{other}number = 1\ndef make(): return 1\n")

    assert "no server found there; write none.py:make if make() returns one" in reason("none.py")
    assert "none.py:number is not a server" in reason("none.py:number")
    assert "but a int" in reason("none.py:make")


def test_a_class_that_only_says_it_is_a_server_is_none(write: Write) -> None:
    write(
        "lazy.py", "class Proxy:\n    def __getattr__(self, name): raise RuntimeError\nit = Proxy()"
    )

    assert "no server found" in reason("lazy.py")
    assert "is not a server" in reason("lazy.py:it")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (", "SyntaxError"),
        (
            "raise ValueError('set MCP_SERVER_URL\\nto something')",
            "set MCP_SERVER_URL to something",
        ),
        ("import sys; sys.exit('usage: x')", "SystemExit: usage: x"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("raise RuntimeError", "RuntimeError"),
    ],
)
def test_what_a_module_ends_in_is_one_sentence(write: Write, code: str, said: str) -> None:
    path = write("broken.py", f"\n{code}\n")

    for target in ("broken.py", "broken:mcp"):
        text = reason(target)
        assert text.startswith(f"cannot load {target.partition(':')[0]}: ")
        assert said in text
        assert "SyntaxError" in said or f"({path}, line 2)" in text


def test_a_setting_that_is_missing_is_named_with_the_line_that_needs_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MCP_SERVER_URL", raising=False)
    path = write("guarded.py", "from toolguard import ToolGuard\nguard = ToolGuard.from_env()\n")

    text = reason("guarded.py:mcp")

    assert "set MCP_SERVER_URL" in text
    assert text.endswith(f"({path}, line 2)")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("missing.py:mcp", "there is no file missing.py"),
        ("no_such_module:mcp", "there is no module 'no_such_module' here"),
        ("no.such.module", "there is no module 'no' here"),
        ("", "write module:server, path/file.py:server"),
        (":mcp", "write module:server"),
        ("a:b:c", "write module:server"),
    ],
)
def test_a_target_that_names_nothing_is_one_sentence(write: Write, target: str, said: str) -> None:
    assert said in reason(target)


def test_a_factory_that_fails_or_wants_something_is_one_sentence(write: Write) -> None:
    write("made.py", "def wants(settings): ...\ndef fails(): raise ValueError('no database')\n")

    assert "made.py:wants is called without arguments for a server, and takes some (" in reason(
        "made.py:wants"
    )
    assert "cannot call made.py:fails: ValueError: no database" in reason("made.py:fails")


def test_a_tool_is_not_called_and_the_server_beside_it_is_named(write: Write) -> None:
    code = (
        "from support.lines import LINES\nfrom toolguard import requires_auth\n"
        "mcp = LINES[0].server('notes')\n"
        "@mcp.tool()\n@requires_auth\nasync def read() -> str: raise AssertionError\n"
    )
    write("notes.py", code)

    assert reason("notes.py:read") == (
        "notes.py:read is a guarded function and no server; write notes.py:mcp"
    )


def test_an_interruption_is_none_of_that(write: Write) -> None:
    write("stopped.py", "raise KeyboardInterrupt\n")

    with pytest.raises(KeyboardInterrupt):
        load_server("stopped.py")
