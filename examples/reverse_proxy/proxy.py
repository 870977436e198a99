"""A guard in front of an MCP server that is written in any language: a reverse proxy.

Requests that the guard lets through go to the server at ``UPSTREAM_URL``, and its answers come
back piece by piece. See README.md for how to run it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import aclosing, asynccontextmanager

import anyio
import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from toolguard import ToolGuard, requires_auth, requires_scopes

# Who may do what, by the name of the tool; all rules that match apply.
RULES = {
    "delete_*": requires_scopes("notes.write"),
    "resource:notes://private/*": requires_scopes("notes.read"),
    "*": requires_auth,
}
UPSTREAM = httpx.URL(os.environ.get("UPSTREAM_URL", "http://127.0.0.1:9000"))

# RFC 9110 §7.6.1: what is about one connection, and what the next one gets anew.
HOP_BY_HOP = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding")
) | {b"upgrade", b"expect", b"host", b"date", b"server"}
# The caller's token is for this server: it goes nowhere else.
CREDENTIALS = frozenset((b"authorization", b"proxy-authorization"))

guard = ToolGuard.from_env()
upstream = httpx.AsyncClient(
    timeout=httpx.Timeout(10, read=None),  # a stream may be silent for long
    limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
    trust_env=False,  # straight to the server, through no other proxy
)


async def forward(scope: Scope, receive: Receive, send: Send) -> None:
    """Pass a request on, and its answer back as it comes (ASGI)."""
    async with anyio.create_task_group() as group:

        async def hang_up_with_client() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            group.cancel_scope.cancel()

        async def body() -> AsyncIterator[bytes]:
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    group.cancel_scope.cancel()
                    await anyio.sleep_forever()
                yield message.get("body", b"")
                more = message.get("more_body", False)
            group.start_soon(hang_up_with_client)

        has_body = scope["method"] == "POST"  # MCP knows no others with one
        if not has_body:
            group.start_soon(hang_up_with_client)
        request = request_of(scope, body() if has_body else None)
        await exchange(request, scope, receive, send)
        group.cancel_scope.cancel()


def request_of(scope: Scope, body: AsyncIterator[bytes] | None = None) -> httpx.Request:
    """Return the request to the server."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    dropped = set(CREDENTIALS)
    if body is None or any(name == b"transfer-encoding" for name, _ in scope["headers"]):
        dropped.add(b"content-length")
    # Not with `upstream.build_request`, which adds headers and one caller's cookies to all.
    return httpx.Request(
        scope["method"],
        UPSTREAM.copy_with(raw_path=scope["raw_path"] + query),
        headers=end_to_end(scope["headers"], dropped),
        content=body,
    )


async def exchange(request: httpx.Request, scope: Scope, receive: Receive, send: Send) -> None:
    """Send ``request``, and what comes back to the client."""
    try:
        answer = await upstream.send(request, stream=True)
    except httpx.HTTPError:
        await JSONResponse({"error": "bad_gateway"}, 502)(scope, receive, send)
        return
    async with aclosing(answer):
        headers = end_to_end(answer.headers.raw)
        start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
        await send(start)
        async for piece in answer.aiter_raw():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def end_to_end(
    headers: Iterable[tuple[bytes, bytes]], dropped: Collection[bytes] = ()
) -> list[tuple[bytes, bytes]]:
    """Return the headers that are meant for the other end."""
    lowered = [(name.lower(), value) for name, value in headers]
    options = [value.lower().split(b",") for name, value in lowered if name == b"connection"]
    named = {option.strip() for each in options for option in each}
    return [pair for pair in lowered if pair[0] not in HOP_BY_HOP | named | {*dropped}]


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Keep connections to the server open as long as this one runs."""
    async with upstream:
        yield


proxy = Starlette(routes=[Mount("/", forward)], lifespan=lifespan)
app = guard.asgi(proxy, rules=RULES)

if __name__ == "__main__":
    uvicorn.run(app)  # http://127.0.0.1:8000/mcp
