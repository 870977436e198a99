"""The command ``toolguard token``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from toolguard.parsing.printable import printable

if TYPE_CHECKING:
    from toolguard.dev.oauth.direct import PersonTokenRequest

__all__ = ["add_person_options", "add_to", "asked_person"]

_REFUSED, _UNUSABLE = 1, 2


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    token = commands.add_parser(
        "token",
        help="the access token of a person, from toolguard dev",
        description="Sign a person in at the running development server (toolguard dev), and print "
        "an access token. Nothing else goes to standard output, for "
        "$(toolguard token alice --scope notes.read).",
    )
    token.add_argument(
        "person",
        nargs="?",
        metavar="PERSON",
        help="an id or an e-mail address of the world (default: its first person)",
    )
    add_person_options(token)
    token.add_argument(
        "--issuer",
        metavar="URL",
        default=os.environ.get("TOOLGUARD_ISSUER") or os.environ.get("DESCOPE_MCP_WELL_KNOWN_URL"),
        help="the address that toolguard dev prints (default: TOOLGUARD_ISSUER or "
        "DESCOPE_MCP_WELL_KNOWN_URL, or http://127.0.0.1:8800)",
    )
    token.add_argument(
        "--resource",
        "--audience",
        metavar="URL",
        default=os.environ.get("MCP_SERVER_URL"),
        help="the server that the token is for (default: MCP_SERVER_URL, or the world's first)",
    )
    token.set_defaults(run=_run)


def add_person_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which token of a person is wanted."""
    parser.add_argument(
        "--scope",
        action="append",
        metavar="SCOPE",
        help="a scope, or several with spaces between them; may be repeated (default: those of the "
        "world for a client that asks for nothing)",
    )
    parser.add_argument(
        "--client", metavar="ID", default="toolguard-cli", help="the client that the token names"
    )


def asked_person(
    arguments: argparse.Namespace, person: str | None, resource: str | None
) -> PersonTokenRequest:
    """Return the request for the token that the options describe."""
    from toolguard.dev.oauth.direct import PersonTokenRequest  # noqa: PLC0415 - imports starlette

    given: list[str] | None = arguments.scope
    scopes = None if given is None else tuple(dict.fromkeys(" ".join(given).split()))
    return PersonTokenRequest(person, scopes, resource, arguments.client)


def _run(arguments: argparse.Namespace) -> int:
    import anyio  # noqa: PLC0415 - for this command only

    from toolguard.dev.person_tokens import (  # noqa: PLC0415 - this imports httpx
        DEFAULT_ISSUER,
        NoServerError,
        TokenRefusedError,
        fetch_person_token,
    )

    asked = asked_person(arguments, arguments.person, arguments.resource)
    try:
        found = anyio.run(fetch_person_token, arguments.issuer or DEFAULT_ISSUER, asked)
    except (NoServerError, TokenRefusedError) as error:
        print(f"toolguard token: {printable(str(error))}", file=sys.stderr)
        return _REFUSED if isinstance(error, TokenRefusedError) else _UNUSABLE
    scopes = " ".join(found.scopes) or "no scope"
    said = f"{found.person}, {scopes}, for {found.resource}, {found.expires_in} seconds"
    print(printable(said), file=sys.stderr)
    print(found.token)
    return 0
