"""How do tests put a server behind a gateway?"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.types import ASGIApp

from support.lines import LINES, Line
from toolguard.gateway.configuration import read_configuration
from toolguard.gateway.gateway import Gateway
from toolguard.gateway.survey import survey
from toolguard.testing import LocalIssuer, Loopback

__all__ = [
    "AUDIENCE",
    "RULES",
    "TESTS",
    "command_of",
    "gateway",
    "publishing",
    "served_before",
    "write_rules",
]

AUDIENCE = "https://mcp.test/mcp"
TESTS = Path(__file__).parent.parent

RULES = """
[rules]
hour = "time.read"
"delete_*" = "time.delete"
"*" = { authenticated = true }
"""


def command_of(line: Line = LINES[0]) -> list[str]:
    """Return the command that serves the upstream of the tests over stdio."""
    return [sys.executable, "-m", "support.upstream_server", line.name]


def write_rules(folder: Path, issuer: str, rules: str = RULES, **upstream: Any) -> Path:
    """Write a file of rules; settings are those of ``[upstream]``, as TOML."""
    path = folder / "rules.toml"
    settings = "\n".join(f"{key} = {value}" for key, value in upstream.items())
    head = f'issuer = "{issuer}"\naudience = "{AUDIENCE}"\n'
    path.write_text(f"{head}{rules}\n[upstream]\n{settings}\n")
    return path


@contextmanager
def publishing() -> Iterator[LocalIssuer]:
    """Serve an authorization server that publishes its keys."""
    with Loopback() as loopback:
        issuer = LocalIssuer(loopback.url, audience=AUDIENCE, algorithm="ES256")
        loopback.start(issuer.app)
        yield issuer


@contextmanager
def served_before(upstream: ASGIApp, issuer: str, rules: str, folder: Path) -> Iterator[str]:
    """Serve an upstream, and a gateway before it; yield the URL of the gateway's endpoint."""
    with Loopback(upstream) as behind:
        app = gateway(write_rules(folder, issuer, rules, url=f'"{behind.url}/mcp"'))
        with Loopback(app) as loopback:
            yield f"{loopback.url}/mcp"


def gateway(
    path: Path,
    environ: Mapping[str, str] | None = None,
    *,
    command: Sequence[str] = (),
    url: str | None = None,
) -> Starlette:
    """Return the application of the gateway that a file describes."""
    variables = {"PYTHONPATH": os.pathsep.join(sys.path), **(environ or {})}
    configuration = read_configuration(path, variables, command=command, url=url)
    return Gateway(configuration, anyio.run(survey, configuration)).app()
