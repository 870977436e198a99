"""What does a caller get who calls this tool?

The call goes through the server's own HTTP application, the middleware, the verifier and the
wrapper, in process and without a socket; the answer has the status and the challenge of the wire.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.from_thread
import httpx

from toolguard.challenge import Challenge, parse
from toolguard.guard import ToolGuard
from toolguard.integrations import adapter_for
from toolguard.testing.issuer import LocalIssuer

__all__ = ["Answer", "call_as", "call_as_async"]

# Loopback, because the frameworks hold Host against it while they are not deployed.
_ORIGIN = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class Answer:
    """What came back over the wire.

    Attributes:
        status: the HTTP status.
        challenge: the WWW-Authenticate challenge, None if there was none.
        body: the JSON body: of the refusal, or the JSON-RPC response.
    """

    status: int
    challenge: Challenge | None
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the tool ran and did not report an error."""
        return self.status == 200 and not self.result.get("isError", True)  # noqa: PLR2004

    @property
    def result(self) -> Mapping[str, Any]:
        """The JSON-RPC result; empty if there was none."""
        result = self.body.get("result", {})
        return result if isinstance(result, Mapping) else {}

    @property
    def text(self) -> str:
        """The text content of the result."""
        content = self.result.get("content", ())
        return "\n".join(item["text"] for item in content if item.get("type") == "text")


def call_as(
    server: Any,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    user: str | None = "alice",
    scopes: Sequence[str] = (),
    token: str | None = None,
) -> Answer:
    """Call a tool of a protected server as some user; for use outside an event loop.

    Args:
        server: the server, after ``guard.protect(server)``.
        tool: its name.
        arguments: what the client sends.
        user: the subject of the token; None sends no token at all.
        scopes: the scopes of the token.
        token: instead of both, the token to send, for the guard's own verifier.

    Returns:
        The answer, as it would be on the wire.

    Raises:
        ValueError: if the server is not protected.

    Example::

        assert call_as(server, "delete_event", {"id": "1"}, scopes=["read"]).status == 403
    """
    call = functools.partial(
        call_as_async, server, tool, arguments, user=user, scopes=scopes, token=token
    )
    with anyio.from_thread.start_blocking_portal() as portal:
        return portal.call(call)


async def call_as_async(
    server: Any,
    tool: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    user: str | None = "alice",
    scopes: Sequence[str] = (),
    token: str | None = None,
) -> Answer:
    """Do what :func:`call_as` does, from inside an event loop."""
    adapter = adapter_for(server)
    guard = adapter.guard
    if not isinstance(guard, ToolGuard):
        raise ValueError("protect the server first: ToolGuard(...).protect(server)")  # noqa: TRY004
    if token is not None or user is None:
        return await _send(adapter.stateless_app(), token, tool, arguments)
    issuer = _issuer(guard.resource)
    with _trusting(guard, issuer):
        minted = issuer.mint(user, scopes=scopes)
        return await _send(adapter.stateless_app(), minted, tool, arguments)


@functools.lru_cache(maxsize=32)
def _issuer(audience: str) -> LocalIssuer:
    return LocalIssuer(audience=audience, algorithm="ES256")


@contextmanager
def _trusting(guard: ToolGuard, issuer: LocalIssuer) -> Iterator[None]:
    """Let the guard verify tokens of ``issuer`` for the duration of a call, for real."""
    verifier, guard.verifier = guard.verifier, issuer.verifier()
    try:
        yield
    finally:
        guard.verifier = verifier


async def _send(
    app: Any, token: str | None, tool: str, arguments: Mapping[str, Any] | None
) -> Answer:
    headers = {"accept": "application/json, text/event-stream"}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": dict(arguments or {})},
    }
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url=_ORIGIN) as client,
    ):
        response = await client.post("/mcp", headers=headers, json=message)
    header = response.headers.get("www-authenticate")
    return Answer(
        int(response.status_code),
        parse(header) if header is not None else None,
        json.loads(response.content or b"{}"),
    )
