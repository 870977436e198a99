"""The command ``toolguard dev``."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

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
        "--port", type=_port, default=8800, help="of the authorization server (default: 8800)"
    )
    dev.add_argument(
        "--calendar", action="store_true", help="run the guarded calendar server as well"
    )
    dev.set_defaults(run=_run)


# Google's calendar takes the port after that of the authorization server.
_LAST_PORT = 65_534


def _port(text: str) -> int:
    """Return the port; 0 for free ones."""
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port from 0 to {_LAST_PORT}: write --port 8800"
        )
    return int(text)


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
