"""The command line: ``toolguard`` and its commands. Private."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from toolguard.cli import audit, call, completion, demo, dev, doctor, proxy, token, vault
from toolguard.parts.extras import missing_extra

__all__ = ["main"]

_UNUSABLE = 2
_SERVING = {"dev", "proxy"}  # they have other pipes than their output
_UNREAD = 141  # as a shell reports a process that SIGPIPE ended
_EXTRAS = {"demo": "dev", "dev": "dev", "token": "dev", "call": "dev"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its arguments; by default those of the process.

    Returns:
        The exit code: 0; 1 if it failed; 2 if it could not start; 130 if it was interrupted;
        141 if the reader of its output has gone.
    """
    parser = _parser()
    arguments, more = parser.parse_known_args(argv)
    if arguments.command == "call":
        more = call.with_json(arguments, more)
    if more:
        parser.error(f"unrecognized arguments: {' '.join(more)}{_hint(arguments.command, more)}")
    if arguments.command is None:
        parser.print_help()
        return 0
    command: Callable[[argparse.Namespace], int] = arguments.run
    try:
        code = command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if arguments.command in _SERVING:
            raise
        # Nobody reads on, as after `| head`. The interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _UNREAD
    except ModuleNotFoundError as error:
        sentence = missing_extra(error, _EXTRAS.get(arguments.command))
        if sentence is None:
            raise
        print(f"toolguard {arguments.command}: {sentence}", file=sys.stderr)
        return _UNUSABLE
    return code


def _hint(command: str | None, more: Sequence[str]) -> str:
    """Return what to write where a shell split the arguments of a tool at their spaces."""
    if command != "call" or any(each.startswith("-") for each in more):
        return ""
    return """: write those of the tool as one, in single quotes: '{"title": "Lunch"}'"""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolguard", description="Authorization for the tools of Python MCP servers."
    )
    parser.add_argument("-V", "--version", action="version", version=version("toolguard-mcp"))
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
    for command in (demo, dev, token, call, audit, doctor, proxy, vault, completion):
        command.add_to(commands)
    return parser
