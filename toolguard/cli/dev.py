"""The command ``toolguard dev``."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from toolguard.cli.port import port_up_to

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    dev = commands.add_parser(
        "dev",
        help="an authorization server and a vault for development",
        description="Run an authorization server with a connection vault, and a calendar in the "
        "shape of Google's, on this machine; say how to point a server and a client at them. "
        "For development only: nobody is asked for a password.",
    )
    described = dev.add_mutually_exclusive_group()
    described.add_argument(
        "--world", type=Path, metavar="FILE", help="users, tenants, policies (TOML)"
    )
    described.add_argument(
        "--for",
        dest="server",
        metavar="MODULE:SERVER",
        help="make the world for this server: its scopes, URL and connections; it is imported, "
        "and not run",
    )
    dev.add_argument(
        "--show-world", action="store_true", help="print the built-in world, to begin one's own"
    )
    dev.add_argument(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep the state in this file, and in FILE.vault",
    )
    dev.add_argument(
        "--port",
        # Google's calendar takes the port after it.
        type=port_up_to(65_534, example=8800),
        default=8800,
        help="of the authorization server (default: 8800)",
    )
    dev.add_argument(
        "--calendar", action="store_true", help="run the guarded calendar server as well"
    )
    dev.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # They import the frameworks.
    from toolguard.cli.targets import load_target  # noqa: PLC0415
    from toolguard.dev.command import DevSettings, run_dev  # noqa: PLC0415

    if arguments.show_world:
        print(files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8"), end="")
        return 0
    settings = DevSettings(
        arguments.world,
        arguments.state,
        port=arguments.port,
        calendar=arguments.calendar,
        server=arguments.server,
    )
    return run_dev(settings, sys.stdout, load=load_target)
