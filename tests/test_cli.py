"""The command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from toolguard.cli import main


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

    run = subprocess.run([sys.executable, "-m", "toolguard"], capture_output=True, check=False)
    imports = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True)

    assert run.returncode == 0
    assert run.stdout.startswith(b"usage: toolguard")
    assert imports.stdout.splitlines()[-1] == b"[]"
