"""What does a guard cost over HTTP?"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import fastmcp
import httpx
from fastmcp import FastMCP
from fastmcp.server.auth import require_scopes
from fastmcp.server.auth.providers.jwt import JWTVerifier
from ratios import Batch, Ratio, compare

from toolguard import ToolGuard, requires_scopes
from toolguard.testing import LocalIssuer, Loopback

_SIZE = 40
_ISSUER = LocalIssuer()
_GOOD = _ISSUER.mint("alice", scopes=["calendar.write"])
_POOR = _ISSUER.mint("alice", scopes=["calendar.read"])


async def _echo(text: str) -> str:
    return text


def _server(tools: int = 1, *, guarded: bool = False) -> FastMCP:
    server: FastMCP = FastMCP("benchmark")
    for number in range(tools):

        async def echo(text: str) -> str:
            return text

        tool = requires_scopes("calendar.write")(echo) if guarded else echo
        server.tool(tool, name="echo" if number == tools - 1 else f"echo_{number}")
    if guarded:
        ToolGuard(verifier=_ISSUER.verifier(), audience=_ISSUER.audience).protect(server)
    return server


def _fastmcp_auth() -> FastMCP:
    key = _public_pem()
    verifier = JWTVerifier(public_key=key, issuer=_ISSUER.issuer, audience=_ISSUER.audience)
    server: FastMCP = FastMCP("own auth", auth=verifier)
    server.tool(_echo, name="echo", auth=require_scopes("calendar.write"))
    return server


def _public_pem() -> str:
    import jwt  # noqa: PLC0415 - only for this
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
    )

    key = jwt.PyJWK(_ISSUER.jwks()["keys"][0]).key
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode()


@asynccontextmanager
async def _served(server: FastMCP, token: str) -> AsyncIterator[Batch]:
    app = server.http_app("/mcp", json_response=True, stateless_http=True)
    headers = {
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
    }
    message = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": "x"}},
        }
    )
    async with AsyncExitStack() as stack:
        loopback = stack.enter_context(Loopback(app))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=loopback.url))

        async def batch() -> None:
            for _ in range(_SIZE):
                await client.post("/mcp", content=message, headers=headers)

        yield batch


async def _compare(
    name: str, aim: str, measured: tuple[FastMCP, str], baseline: tuple[FastMCP, str]
) -> Ratio:
    async with _served(*measured) as one, _served(*baseline) as other:
        return await compare(name, aim, one, other, size=_SIZE)


async def guarded_against_unguarded() -> Ratio:
    """A guarded call against the same call without a guard."""
    return await _compare(
        "guarded call / unguarded call, over HTTP",
        "<= 1.05",
        (_server(guarded=True), _GOOD),
        (_server(), _GOOD),
    )


async def refused_against_served() -> Ratio:
    """A refusal against a served call."""
    return await _compare(
        "refused call / served call, over HTTP",
        "< 1",
        (_server(guarded=True), _POOR),
        (_server(guarded=True), _GOOD),
    )


async def guard_against_fastmcp_auth() -> Ratio:
    """The extra cost of toolguard against the extra cost of fastmcp's own auth."""
    async with (
        _served(_server(guarded=True), _GOOD) as ours,
        _served(_fastmcp_auth(), _GOOD) as theirs,
        _served(_server(), _GOOD) as plain,
    ):
        guard = await compare("", "", ours, plain, size=_SIZE)
        auth = await compare("", "", theirs, plain, size=_SIZE)
    extra, their_extra = (
        guard.seconds - guard.baseline_seconds,
        auth.seconds - auth.baseline_seconds,
    )
    return Ratio(
        f"extra cost of toolguard / of fastmcp {fastmcp.__version__} auth",
        "< 0.5",
        extra / their_extra,
        (guard.low - 1) / (auth.high - 1),
        (guard.high - 1) / (auth.low - 1),
        extra,
        their_extra,
    )


async def many_tools_against_few() -> Ratio:
    """What a guard adds to a call on a server with 5,000 tools, against one with 10."""
    few = await _compare("", "", (_server(10, guarded=True), _GOOD), (_server(10), _GOOD))
    many = await _compare("", "", (_server(5_000, guarded=True), _GOOD), (_server(5_000), _GOOD))
    return Ratio(
        "guarded / unguarded with 5,000 tools, beside 10 tools",
        "flat (1)",
        many.median / few.median,
        many.low / few.high,
        many.high / few.low,
        many.seconds - many.baseline_seconds,
        few.seconds - few.baseline_seconds,
    )
