"""The command ``toolguard proxy``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from toolguard.cli.port import port_up_to

__all__ = ["add_to"]


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    proxy = commands.add_parser(
        "proxy",
        help="serve somebody else's server by your rules, without code",
        usage="%(prog)s --rules FILE [--upstream URL] [--host HOST] [--port PORT] [-- COMMAND ...]",
        description="Serve an MCP server that you did not write at an HTTP endpoint of its own, "
        "behind a guard. The file says whose tokens are accepted and who may use which tool; an "
        "operation without a rule is refused. The callers' tokens stay here.",
    )
    proxy.add_argument(
        "--rules",
        required=True,
        metavar="FILE",
        help="issuer, audience, rules, connections and upstream (TOML)",
    )
    proxy.add_argument(
        "--upstream", metavar="URL", help="the endpoint of the server, if it is served"
    )
    proxy.add_argument("--host", default="127.0.0.1", help="where to serve (default: 127.0.0.1)")
    proxy.add_argument(
        "--port",
        type=port_up_to(65_535, example=8000),
        help="where to serve (default: that of an audience on this machine, or 8000)",
    )
    proxy.add_argument(
        "server",
        nargs="*",
        metavar="COMMAND",
        help="starts the server, which speaks over stdio: -- uvx mcp-server-time",
    )
    proxy.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # These import the framework.
    from toolguard.audit import audit  # noqa: PLC0415
    from toolguard.gateway.command import ProxySettings, run_proxy  # noqa: PLC0415

    def findings(server: Any) -> Iterator[str]:
        for finding in audit(server).findings:
            yield finding.message

    if arguments.server and arguments.upstream:
        print("toolguard proxy: write --upstream URL or -- COMMAND, not both", file=sys.stderr)
        return 2
    settings = ProxySettings(
        arguments.rules,
        tuple(arguments.server),
        arguments.upstream,
        arguments.host,
        arguments.port,
    )
    return run_proxy(settings, sys.stderr, findings)
