"""The command ``toolguard doctor``."""

from __future__ import annotations

import argparse
import os
import sys

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    doctor = commands.add_parser(
        "doctor",
        help="whether a server is set up right, and what to do if not",
        description="Look at a running server as a client would, or at the configuration of a "
        "server that is not running. Each finding says what was expected, what was found, and what "
        "to do. Exits with 1 if there is a fault, 2 if nothing could be looked at.",
    )
    doctor.add_argument(
        "target",
        metavar="URL|MODULE:SERVER|FILE",
        help="the URL of the MCP endpoint, package.module:server, or a rules.toml",
    )
    doctor.add_argument(
        "--token",
        metavar="TOKEN",
        default=os.environ.get("TOOLGUARD_DOCTOR_TOKEN"),
        help="an access token of a client, to see what the server says to it (better: in the "
        "variable TOOLGUARD_DOCTOR_TOKEN, since other users can read arguments)",
    )
    doctor.add_argument("--format", choices=("text", "json"), default="text")
    doctor.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # This imports httpx, and perhaps the server's framework.
    from toolguard.audit.doctor.command import run_doctor  # noqa: PLC0415
    from toolguard.cli.targets import load_target  # noqa: PLC0415

    return run_doctor(
        arguments.target,
        sys.stdout,
        token=arguments.token,
        as_json=arguments.format == "json",
        load=load_target,
    )
