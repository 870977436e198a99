"""The command line: ``toolguard audit``, ``demo``, ``dev`` and ``vault``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import anyio

__all__ = ["main"]

# The exit code of a command that was stopped with Ctrl-C.
_INTERRUPTED = 130


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
    return command(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="toolguard", description="Authorization for the tools of Python MCP servers."
    )
    parser.add_argument("--version", action="version", version=version("toolguard-mcp"))
    commands = parser.add_subparsers(dest="command", title="commands", metavar="")
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
    demo.set_defaults(run=_demo)
    dev = commands.add_parser(
        "dev",
        help="an authorization server and a vault for development",
        description="Run an authorization server with a connection vault, and a calendar in the "
        "shape of Google's, on this machine; say how to point a server and a client at them. "
        "For development only: nobody is asked for a password.",
    )
    dev.add_argument("--world", type=Path, metavar="FILE", help="users, tenants, policies (TOML)")
    dev.add_argument(
        "--show-world", action="store_true", help="print the built-in world, to begin one's own"
    )
    dev.add_argument("--state", type=Path, metavar="FILE", help="keep the state in this file")
    dev.add_argument(
        "--port", type=int, default=8800, help="of the authorization server (default: 8800)"
    )
    dev.add_argument(
        "--calendar", action="store_true", help="run the guarded calendar server as well"
    )
    dev.set_defaults(run=_dev)
    _add_audit(commands)
    _add_vault(commands)
    return parser


def _add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser(
        "audit",
        help="what every operation of a server asks of its callers, and what is unguarded",
        description="Show every tool, resource and prompt of a server with its rule, scopes, "
        "connections and injected parameters. The module is imported, and nothing is called; give "
        "it the environment that the server needs.",
    )
    audit.add_argument(
        "server",
        metavar="MODULE:SERVER",
        help="package.module:server or path/file.py:server; a function that makes it will do, and "
        "the only server of a module needs no name",
    )
    audit.add_argument("--format", choices=("text", "json", "markdown", "mermaid"), default="text")
    audit.add_argument(
        "--check",
        action="store_true",
        help="exit with 1 if something is unguarded and not @public, a rule matches nothing, or a "
        "scope is not offered",
    )
    audit.add_argument(
        "--issuer", metavar="URL", help="hold the scopes against those it offers in its metadata"
    )
    audit.set_defaults(run=_audit)


def _add_vault(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    vault = commands.add_parser(
        "vault",
        help="move a vault's tables forward, change its keys, list or forget a person",
        description="upgrade: move the tables forward to the version of this toolguard. rotate: "
        "seal all rows with the first key, while servers run. list, forget: what a person has "
        "connected.",
    )
    vault.add_argument("action", choices=("upgrade", "rotate", "list", "forget"))
    vault.add_argument("person", nargs="*", metavar="ISSUER SUBJECT")
    vault.add_argument(
        "--file",
        default=os.environ.get("TOOLGUARD_VAULT", "vault.toml"),
        metavar="FILE",
        help="describes the vault (default: that in TOOLGUARD_VAULT)",
    )
    vault.set_defaults(run=_vault)


def _vault(arguments: argparse.Namespace) -> int:
    # This imports SQLAlchemy.
    from toolguard.vault.command import VaultSettings, run_vault  # noqa: PLC0415

    settings = VaultSettings(arguments.action, arguments.file, tuple(arguments.person))
    return run_vault(settings, sys.stdout, sys.stderr)


def _audit(arguments: argparse.Namespace) -> int:
    # This imports httpx, and the server's framework.
    from toolguard.audit.command import AuditSettings, run_audit  # noqa: PLC0415

    settings = AuditSettings(
        arguments.server, arguments.format, check=arguments.check, issuer=arguments.issuer
    )
    return run_audit(settings, sys.stdout, sys.stderr)


def _dev(arguments: argparse.Namespace) -> int:
    from toolguard.dev.command import DevSettings, run_dev  # noqa: PLC0415 - see _demo

    if arguments.show_world:
        print(files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8"), end="")
        return 0
    settings = DevSettings(
        arguments.world, arguments.state, port=arguments.port, calendar=arguments.calendar
    )
    return run_dev(settings, sys.stdout)


def _demo(arguments: argparse.Namespace) -> int:
    # These import the frameworks; `toolguard --version` need not.
    from toolguard.dev.story.narrator import Narrator, UnexpectedStepError  # noqa: PLC0415
    from toolguard.dev.story.run import tell  # noqa: PLC0415
    from toolguard.pages.layout import MissingTemplatesError  # noqa: PLC0415

    # The frameworks would set up a log of their own in the middle of the story.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        anyio.run(partial(tell, Narrator(sys.stdout), real_browser=arguments.browser))
    except UnexpectedStepError:
        return 1
    except MissingTemplatesError as error:
        print(f"toolguard demo: {error}")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0
