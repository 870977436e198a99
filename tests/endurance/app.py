"""What a worker serves: a guarded server with a vault, whose clock is moved by a file.

Its environment is that of a deployed server, and ``ENDURANCE_CLOCK``, ``ENDURANCE_RECORDS`` and
``ENDURANCE_SERVICE``.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from support.lines import LINES
from toolguard import (
    CachedConnections,
    ToolGuard,
    health_routes,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.connections.redis import RedisTokenCache
from toolguard.telemetry import JSONLines, Records
from toolguard.vault import Endpoints, OAuthProvider, Vault

__all__ = ["app"]

_OFFSET = Path(os.environ["ENDURANCE_CLOCK"])
_SERVICE = os.environ["ENDURANCE_SERVICE"]
# Connections are fetched and refreshed again and again.
_MAX_AGE = 0.2


def clock() -> float:
    """Return the time, moved by what the file says."""
    return time.time() + float(_OFFSET.read_text("ascii"))


def _make() -> tuple[Any, Starlette]:
    line = LINES[0]
    # The proxy in front of it checks the Host header.
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    server: Any = line.server(
        "endurance", **({} if line.modern else {"transport_security": security})
    )

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_scopes("notes.read")
    async def read(tag: str, *, user_id: str) -> str:
        return f"{user_id} {tag}"

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_scopes("notes.write")
    async def write(tag: str, *, user_id: str) -> str:
        return f"{user_id} {tag}"

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_auth
    @with_connection("mail")
    async def mail(tag: str, *, user_id: str, connection_token: str) -> str:
        return f"{user_id} {tag} {connection_token}"

    service = OAuthProvider(
        title="Mail",
        client_id="vault",
        client_secret="hidden",
        endpoints=Endpoints(f"{_SERVICE}/authorize", f"{_SERVICE}/token"),
    )
    vault = Vault(os.environ["DATABASE_URL"], connections={"mail": service}, clock=clock)
    cache = RedisTokenCache(os.environ["REDIS_URL"], wall_clock=clock)
    records = Path(os.environ["ENDURANCE_RECORDS"]).open("a", encoding="utf-8")  # noqa: SIM115 - as long as it serves
    guard = ToolGuard.from_env(
        connections=CachedConnections(vault, cache=cache, max_age=_MAX_AGE, clock=clock),
        on_decision=Records(JSONLines(records)),
        clock=clock,
    )
    guard.protect(server)
    if line.modern:
        settings = {"stateless_http": True, "json_response": True, "transport_security": security}
        return guard, server.streamable_http_app(**settings)
    return guard, line.http_app(server, stateless=True, json=True)


guard, _served = _make()


async def _figures(_: Request) -> JSONResponse:
    return JSONResponse({"lost": guard.recorder.lost})


@asynccontextmanager
async def _lifespan(_: Starlette) -> AsyncIterator[None]:
    await guard.warm_up()
    async with _served.router.lifespan_context(_served):
        yield


app = Starlette(
    routes=[
        *health_routes(guard),
        Route("/figures", _figures),
        Mount("/", app=_served),
    ],
    lifespan=_lifespan,
)
