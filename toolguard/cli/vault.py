"""The command ``toolguard vault``."""

from __future__ import annotations

import argparse
import os
import sys

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    vault = commands.add_parser(
        "vault",
        help="a vault's tables, its keys, and what a person has connected",
        description="upgrade: move the tables forward to the version of this toolguard. rotate: "
        "seal all rows with the first key, while servers run. list, forget: what a person has "
        "connected.",
    )
    vault.add_argument("action", choices=("upgrade", "rotate", "list", "forget"))
    vault.add_argument("person", nargs="*", metavar="ISSUER SUBJECT")
    vault.add_argument(
        "--tenant", action="store_true", help="SUBJECT is the id of a tenant, not of a person"
    )
    vault.add_argument(
        "--file",
        default=os.environ.get("TOOLGUARD_VAULT", "vault.toml"),
        metavar="FILE",
        help="describes the vault (default: that in TOOLGUARD_VAULT)",
    )
    vault.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from toolguard.vault.command import VaultSettings, run_vault  # noqa: PLC0415 - SQLAlchemy

    settings = VaultSettings(
        arguments.action, arguments.file, tuple(arguments.person), arguments.tenant
    )
    return run_vault(settings, sys.stdout, sys.stderr)
