"""The command line: ``toolguard audit``, ``doctor``, ``demo``, ``dev`` and ``vault``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec

from toolguard.cli import audit, demo, dev, doctor, vault

__all__ = ["main"]

_EXTRAS = {"demo": "dev", "dev": "dev", "vault": "vault"}
_OF_VAULTS = ("sqlalchemy", "aiosqlite")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code: 0; 1 if it failed; 2 if it could not start; 130 if it was interrupted.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    command: Callable[[argparse.Namespace], int] = arguments.run
    extra = _EXTRAS.get(arguments.command)
    missing = [name for name in _OF_VAULTS if find_spec(name) is None]
    if extra is not None and missing:
        print(
            f"toolguard {arguments.command}: {missing[0]} is not installed: "
            f"pip install 'toolguard-mcp[{extra}]'",
            file=sys.stderr,
        )
        return 2
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolguard", description="Authorization for the tools of Python MCP servers."
    )
    parser.add_argument("--version", action="version", version=version("toolguard-mcp"))
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
    for command in (demo, dev, audit, doctor, vault):
        command.add_to(commands)
    return parser
