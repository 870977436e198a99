"""Programs for Node that need packages of npm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["command_of", "installed"]

LEAST_NODE = 20


def installed(folder: Path, program: str, package: str) -> Path:
    """Put a program and the package that it needs into a folder; return its path there.

    Args:
        folder: an empty folder.
        program: the name of a file of this folder.
        package: as :func:`command_of` takes it.
    """
    _install(folder, package)
    return Path(shutil.copy(Path(__file__).with_name(program), folder))


def command_of(folder: Path, program: str, package: str) -> Path:
    """Put a package into a folder; return the path of a command of it.

    The tests are skipped where that is not possible.

    Args:
        folder: an empty folder.
        program: the name of the command.
        package: the package and its version, such as ``"oidc-provider@9.5.1"``.
    """
    _install(folder, package)
    return folder / "node_modules" / ".bin" / program


def _install(folder: Path, package: str) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if int(version.stdout[1:].partition(".")[0]) < LEAST_NODE:
        pytest.skip(f"needs Node {LEAST_NODE}, this is {version.stdout.strip()}")
    options = ("--no-audit", "--no-fund", "--ignore-scripts", "--silent")
    try:
        subprocess.run([npm, "install", *options, package], cwd=folder, check=True, timeout=120)
    except subprocess.SubprocessError as error:
        pytest.skip(f"npm cannot install {package} here: {error}")
