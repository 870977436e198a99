"""A guarded server as it is deployed: stateless, with health routes and records on stderr."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.routing import Mount

from toolguard import ToolGuard, health_routes, requires_scopes
from toolguard.telemetry import JSONLines, OpenTelemetry, Records

mcp = MCPServer("notes")


@mcp.tool()
@requires_scopes("notes.read")
async def read_note(name: str, *, user_id: str) -> str:
    """Read one note."""
    return f"{name} of {user_id}"


guard = ToolGuard.from_env(
    on_decision=Records(OpenTelemetry(), JSONLines(sys.stderr), subjects="hashed")
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
