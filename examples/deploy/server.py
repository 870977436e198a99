"""A guarded server as it is deployed: stateless, with health routes and records on stderr.

The GitHub accounts that users connect are in Postgres; replicas share fetched tokens on Redis.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Mount

from toolguard import (
    CachedConnections,
    Connection,
    ToolGuard,
    health_routes,
    requires_scopes,
    with_connection,
)
from toolguard.connections.redis import RedisTokenCache
from toolguard.telemetry import JSONLines, OpenTelemetry, Records
from toolguard.vault import OpenIDSignIn, Vault, github

mcp = MCPServer("notes")


@mcp.tool()
@requires_scopes("notes.read")
async def read_note(name: str, *, user_id: str) -> str:
    """Read one note."""
    return f"{name} of {user_id}"


@mcp.tool()
@requires_scopes("notes.read")
@with_connection("github", scopes=["repo"], as_="account")
async def list_issues(*, account: Connection) -> list[str]:
    """List the titles of the issues that are assigned to the user."""
    async with httpx.AsyncClient(auth=account.auth) as client:
        answer = await client.get("https://api.github.com/issues")
    return [issue["title"] for issue in answer.raise_for_status().json()]


vault = Vault(
    os.environ["DATABASE_URL"],
    connections={
        "github": github(os.environ["GITHUB_CLIENT_ID"], os.environ["GITHUB_CLIENT_SECRET"])
    },
    sign_in=OpenIDSignIn(os.environ["SIGN_IN_CLIENT_ID"], os.environ["SIGN_IN_CLIENT_SECRET"]),
)
guard = ToolGuard.from_env(
    connections=CachedConnections(vault, cache=RedisTokenCache(os.environ["REDIS_URL"])),
    on_decision=Records(OpenTelemetry(), JSONLines(sys.stderr), subjects="hashed"),
)
guard.protect(mcp)
# The proxy in front of it checks the Host header.
_security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
_served = mcp.streamable_http_app(stateless_http=True, transport_security=_security)


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    await guard.warm_up()
    async with _served.router.lifespan_context(_served):
        yield


app = Starlette(routes=[*health_routes(guard), Mount("/", app=_served)], lifespan=_lifespan)
