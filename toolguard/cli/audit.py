"""The command ``toolguard audit``."""

from __future__ import annotations

import argparse
import sys

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    audit = commands.add_parser(
        "audit",
        help="what each operation asks of its callers",
        description="Show every tool, resource and prompt of a server with its rule, scopes, "
        "connections and injected parameters. The module is imported, and nothing is called; give "
        "it the environment that the server needs.",
    )
    audit.add_argument(
        "server",
        metavar="MODULE:SERVER",
        help="package.module:server or path/file.py:server; a function that makes it will do, and "
        "the only server of a module needs no name; or the rules.toml of toolguard proxy",
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
    audit.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # This imports httpx, and the server's framework.
    from toolguard.audit.command import AuditSettings, run_audit  # noqa: PLC0415
    from toolguard.cli.targets import load_target  # noqa: PLC0415

    settings = AuditSettings(
        arguments.server, arguments.format, check=arguments.check, issuer=arguments.issuer
    )
    return run_audit(settings, sys.stdout, sys.stderr, load=load_target)
