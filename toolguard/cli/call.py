"""The command ``toolguard call``."""

from __future__ import annotations

import argparse
import os
import sys

from toolguard.cli.token import add_person_options, asked_person

__all__ = ["add_to", "with_json"]

_UNUSABLE = 2


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    call = commands.add_parser(
        "call",
        help="call a tool, and see each challenge and step-up on the way",
        description="Call a tool of a running server. Every request, challenge and sign-in is "
        "told on standard error; the answer of the tool goes to standard output. With --as a "
        "person of toolguard dev signs in as often as the server asks. Exits with 1 if the call "
        "is refused or the tool fails, 2 if it cannot be made.",
    )
    call.add_argument("url", metavar="URL", help="the MCP endpoint")
    call.add_argument("tool", metavar="TOOL", help="the name of the tool")
    call.add_argument("json", nargs="?", metavar="JSON", help="its arguments (default: {})")
    who = call.add_mutually_exclusive_group()
    who.add_argument(
        "--as", dest="person", metavar="PERSON", help="sign this person of toolguard dev in"
    )
    who.add_argument(
        "--token",
        metavar="TOKEN",
        help="an access token of another issuer (better: in the variable TOOLGUARD_CALL_TOKEN, "
        "since other users can read arguments)",
    )
    add_person_options(call)
    call.add_argument(
        "--issuer",
        metavar="URL",
        help="the address that toolguard dev prints (default: the one that the server names)",
    )
    call.add_argument(
        "--revision",
        choices=("2025-11-25", "2026-07-28"),
        default="2025-11-25",
        help="of the protocol (default: 2025-11-25)",
    )
    call.set_defaults(run=_run)


def with_json(arguments: argparse.Namespace, more: list[str]) -> list[str]:
    """Take the arguments of the tool from what the parser left; return the rest.

    Until Python 3.12, argparse does not find an optional argument that stands behind an option.
    """
    if arguments.json is None and len(more) == 1 and not more[0].startswith("-"):
        arguments.json = more[0]
        return []
    return more


def _run(arguments: argparse.Namespace) -> int:
    from toolguard.dev.one_call.command import (  # noqa: PLC0415 - this imports httpx
        CallError,
        CallSettings,
        parse_arguments,
        run_call,
    )

    person = arguments.person
    if person is None and arguments.scope is not None:
        print("toolguard call: --scope is for --as PERSON: write both", file=sys.stderr)
        return _UNUSABLE
    token = arguments.token or os.environ.get("TOOLGUARD_CALL_TOKEN")
    try:
        settings = CallSettings(
            arguments.url,
            arguments.tool,
            parse_arguments("{}" if arguments.json is None else arguments.json),
            person=None if person is None else asked_person(arguments, person, None),
            token=None if person is not None else token or None,
            issuer=arguments.issuer,
            revision=arguments.revision,
        )
    except CallError as error:
        print(f"toolguard call: {error}", file=sys.stderr)
        return _UNUSABLE
    return run_call(settings, sys.stdout, sys.stderr)
