"""How does a test talk to an ASGI application without a server?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["App", "Exchange", "Message", "Receive", "Scope", "Send", "exchange", "http_scope"]

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Exchange:
    """What an application sent, message by message."""

    messages: Sequence[Message]

    @property
    def starts(self) -> list[Message]:
        return [m for m in self.messages if m["type"] == "http.response.start"]

    @property
    def status(self) -> int:
        (start,) = self.starts
        return int(start["status"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.messages)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def refusal(self) -> Any:
        """The data of the JSON-RPC error that answers a refused message; its form is held."""
        assert self.json.keys() == {"jsonrpc", "id", "error"}
        error = self.json["error"]
        assert error.keys() == {"code", "message", "data"}
        assert error["message"] == error["data"]["error_description"]
        return error["data"]

    def header(self, name: str) -> str | None:
        """Return the one header of this name; None if there is none."""
        (start,) = self.starts
        values = [value for key, value in start["headers"] if key == name.encode()]
        if not values:
            return None
        (value,) = values
        return str(value.decode("ascii"))


def http_scope(
    method: str = "POST",
    *,
    token: str | None = None,
    session: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
    path: str = "/mcp",
) -> Scope:
    """Return the scope of a request as a server makes it."""
    sent = [(b"host", b"mcp.example.com"), *headers]
    if token is not None:
        sent.append((b"authorization", f"Bearer {token}".encode()))
    if session is not None:
        sent.append((b"mcp-session-id", session.encode()))
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": sent}


def exchange(app: App, scope: Scope, body: bytes = b"") -> Exchange:
    """Send one request to ``app`` and return what came back."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    async def serve() -> None:
        await app(scope, receive, send)

    asyncio.run(serve())
    return Exchange(messages)
