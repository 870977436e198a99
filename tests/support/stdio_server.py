"""Which server do the tests run in a process of its own?

Usage: ``python -m support.stdio_server LINE RULE``, with the issuer's keys in ``TEST_JWKS``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from support.calendar_server import calendar, connect
from support.lines import LINES
from toolguard import JWTVerifier, ToolGuard, TrustedUser, public
from toolguard.telemetry import JSONLines
from toolguard.tokens.keys import StaticKeys

AUDIENCE = "https://mcp.test/mcp"


@public
def secrets_of_child() -> str:
    """Start a process; return the names of the secrets that it finds in its environment."""
    show = "import os; print(*(n for n in os.environ if n.startswith(('TOOLGUARD_', 'DESCOPE_'))))"
    child = subprocess.run(
        [sys.executable, "-c", show], check=True, timeout=120, capture_output=True, text=True
    )
    return f"found: {child.stdout.strip()}"


def main(name: str, rule: str) -> None:
    """Serve the calendar over stdio."""
    line = next(line for line in LINES if line.name == name)
    keys = StaticKeys(json.loads(os.environ["TEST_JWKS"]))
    verifier = JWTVerifier(issuer="https://issuer.test", audience=AUDIENCE, keys=keys)
    trusted: dict[str, Any] = {"stdio": TrustedUser("operator")}
    settings: dict[str, Any] = trusted if rule == "trusted" else {}
    settings["on_decision"] = JSONLines(sys.stderr)
    guard = ToolGuard(verifier=verifier, audience=AUDIENCE, connections=connect, **settings)
    server = guard.protect(calendar(line))
    server.tool()(secrets_of_child)
    server.run(transport="stdio")


if __name__ == "__main__":
    main(*sys.argv[1:])
