"""What can be done from the command line?"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

import anyio

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words; by default those of the process.

    Returns:
        The exit code: 0, or 1 if the demo did not go as it should.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    return _demo()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolguard", description="Authorization for the tools of Python MCP servers."
    )
    parser.add_argument("--version", action="version", version=version("toolguard-mcp"))
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
    commands.add_parser(
        "demo",
        help="see it work: a guarded calendar, a client, refusals and calls",
        description="Run a guarded calendar server and a client on this machine, and show what "
        "passes between them. Exits with 1 if a step is not as it should be.",
    )
    return parser


def _demo() -> int:
    # These import the frameworks; `toolguard --version` need not.
    from toolguard.dev.narrator import Narrator, UnexpectedStepError  # noqa: PLC0415
    from toolguard.dev.story import tell  # noqa: PLC0415

    # The frameworks would set up a log of their own in the middle of the story.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        anyio.run(tell, Narrator(sys.stdout))
    except UnexpectedStepError:
        return 1
    return 0
