"""What does a connection cost: kept, fetched, and asked for by a thousand calls at once?

The baseline is an HTTP client that is made for one request to the vault and closed after it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
from ratios import Ratio, compare

from toolguard import Principal
from toolguard.connections import ConnectionRequest
from toolguard.connections.cache import CachedConnections
from toolguard.descope import DescopeConnections, DescopeProject
from toolguard.testing import Loopback

__all__ = ["comparisons"]

_SIZE = 5
_CROWD = 1_000
_ISSUER = "https://api.descope.com/v1/apps/P2abc"
_PATH = "/v1/mgmt/outbound/app/user/token/latest"
_BODY = {"appId": "google-calendar", "userId": "alice"}
_ANSWER = json.dumps({"token": {"accessToken": "ya29.token", "scopes": []}}).encode()


async def _vault(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Give everybody the same token (an ASGI application)."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


def _request(user_id: str) -> ConnectionRequest:
    principal = Principal(user_id, _ISSUER, scopes=("calendar.read", "outbound.token.fetch"))
    return ConnectionRequest("google-calendar", (), principal, "x" * 1_000)


async def _client_per_call(url: str) -> None:
    async with httpx.AsyncClient() as client:
        response = await client.post(url + _PATH, json=_BODY, headers={"Authorization": "Bearer x"})
        response.json()


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[str, CachedConnections]]:
    with Loopback(_vault) as vault:
        project = DescopeProject(vault.url, "P2abc", None, vault.url)
        provider = DescopeConnections(project)
        yield vault.url, CachedConnections(provider, max_age=3_600)
        await provider.aclose()


async def _compare(
    name: str, aim: str, fetch: Callable[[CachedConnections], Awaitable[None]]
) -> Ratio:
    async with _served() as (url, connections):

        async def baseline() -> None:
            for _ in range(_SIZE):
                await _client_per_call(url)

        async def measured() -> None:
            for _ in range(_SIZE):
                await fetch(connections)

        return await compare(name, aim, measured, baseline, size=_SIZE)


async def kept() -> Ratio:
    """A connection that is at hand."""
    request = _request("alice")

    async def fetch(connections: CachedConnections) -> None:
        await connections.fetch(request)

    return await _compare("kept connection / client made per call", "< 0.01", fetch)


async def missed() -> Ratio:
    """A connection that has to be fetched, each time for another user."""
    users = count()

    async def fetch(connections: CachedConnections) -> None:
        await connections.fetch(_request(f"user-{next(users)}"))

    return await _compare("fetched connection / client made per call", "< 0.5", fetch)


async def a_thousand_at_once() -> Ratio:
    """A thousand calls of one user with nothing at hand, against one call with its own client."""
    users = count()

    async with _served() as (url, connections):

        async def measured() -> None:
            request = _request(f"user-{next(users)}")
            await asyncio.gather(*(connections.fetch(request) for _ in range(_CROWD)))

        async def baseline() -> None:
            await _client_per_call(url)

        name = f"{_CROWD:,} calls that miss at once / one client made per call"
        return await compare(name, "< 10", measured, baseline, size=1)


comparisons: tuple[Callable[[], Awaitable[Ratio]], ...] = (kept, missed, a_thousand_at_once)
