"""The command ``toolguard demo``."""

from __future__ import annotations

import argparse
import logging
import sys
from functools import partial

import anyio

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    demo = commands.add_parser(
        "demo",
        help="see it work: four people, their clients, a guarded calendar",
        description="Run an authorization server, a vault, a guarded calendar server and its "
        "clients on this machine, and show what passes between them. Exits with 1 if a step is "
        "not as it should be.",
    )
    demo.add_argument(
        "--browser", action="store_true", help="answer the pages yourself, in your browser"
    )
    demo.set_defaults(run=_run)


# The exit code of a command that was stopped with Ctrl-C.
_INTERRUPTED = 130


def _run(arguments: argparse.Namespace) -> int:
    # These import the frameworks; `toolguard --version` need not.
    from toolguard.dev.story.narrator import Narrator, UnexpectedStepError  # noqa: PLC0415
    from toolguard.dev.story.run import tell  # noqa: PLC0415

    # The frameworks would set up a log of their own in the middle of the story.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        anyio.run(partial(tell, Narrator(sys.stdout), real_browser=arguments.browser))
    except UnexpectedStepError:
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0
