"""A server of the shape of the official reference servers: made by the function that serves it.

Usage: ``python -m support.served_by_function MODULE RULES``: its ``serve()`` over stdio, adopted by
a guard that has the issuer's keys from ``TEST_JWKS``. RULES: scopes by pattern, as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

import anyio

from support.lowlevel_servers import Told, lowlevel
from toolguard import JWTVerifier, ToolGuard, requires_scopes
from toolguard.tokens.keys import StaticKeys

AUDIENCE = "https://mcp.test/mcp"


async def _hour(_: Mapping[str, Any]) -> str:
    return "noon"


async def serve() -> None:
    """Make a server and serve it over stdio, until standard input ends."""
    server = lowlevel(Told(tools={"hour": _hour}))
    stdio = importlib.import_module("mcp.server.stdio")
    async with stdio.stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def main(module: str, rules: str) -> None:
    """Serve the server of a module, guarded."""
    keys = StaticKeys(json.loads(os.environ["TEST_JWKS"]))
    verifier = JWTVerifier(issuer="https://issuer.test", audience=AUDIENCE, keys=keys)
    guard = ToolGuard(verifier=verifier, audience=AUDIENCE)
    scopes = json.loads(rules)
    with guard.adopting(rules={name: requires_scopes(each) for name, each in scopes.items()}):
        anyio.run(importlib.import_module(module).serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
