"""The responses that the guard sends instead of the application.

A JSON-RPC request gets a JSON-RPC error: newer clients show its message to the caller, and older
ones are not affected by it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.types import Send

from toolguard.errors import MalformedMessageError, NonceRequiredError, ToolGuardError
from toolguard.http.challenge import Challenge

__all__ = [
    "Headers",
    "build_error",
    "not_found",
    "respond",
    "respond_in_protocol",
    "send_empty",
    "send_json",
]

Headers = Sequence[tuple[bytes, bytes]]
"""Raw headers (ASGI)."""

# From the range that JSON-RPC reserves for servers; no client treats it specially.
_REFUSED = -32003
_NOT_FOUND = -32600


def build_error(refusal: ToolGuardError, message_id: str | int | None) -> dict[str, Any]:
    """Return ``refusal`` as a JSON-RPC error."""
    code = _REFUSED
    if isinstance(refusal, MalformedMessageError):
        code, message_id = refusal.code, refusal.message_id
    error = {"code": code, "message": refusal.error_description, "data": refusal.to_dict()}
    return {"jsonrpc": "2.0", "id": message_id, "error": error}


async def respond(
    send: Send,
    refusal: ToolGuardError,
    challenge: Challenge | None,
    *,
    status: int | None = None,
    is_message: bool = True,
    message_id: str | int | None = None,
) -> None:
    """Send a refusal as an HTTP status.

    Args:
        send: the ASGI ``send``.
        refusal: the refusal.
        challenge: the ``WWW-Authenticate`` challenge; None for none.
        status: the status, if it is not the refusal's own.
        is_message: whether the request may carry a JSON-RPC message.
        message_id: the id of the message, if it is known.
    """
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.header.encode("ascii")))
        # Fetch: a browser client cannot read the challenge unless it is exposed.
        exposed = b"WWW-Authenticate"
        if isinstance(refusal, NonceRequiredError):
            headers.append((b"dpop-nonce", refusal.nonce.encode("ascii")))
            exposed += b", DPoP-Nonce"
        headers.append((b"access-control-expose-headers", exposed))
    retry_after = getattr(refusal, "retry_after", None)
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode("ascii")))
    body = build_error(refusal, message_id) if is_message else refusal.to_dict()
    await send_json(send, status or refusal.status or 500, headers, body)


async def respond_in_protocol(
    send: Send, refusal: ToolGuardError, method: str, message_id: str | int, *, revision: str | None
) -> None:
    """Send a refusal as an MCP server reports errors: as a tool error, or a JSON-RPC error."""
    body = build_error(refusal, message_id)
    if method == "tools/call":
        content = [{"type": "text", "text": refusal.to_json()}]
        result: dict[str, Any] = {"content": content, "isError": True}
        if (revision or "") >= "2026-07-28":
            result["resultType"] = "complete"
        body = {"jsonrpc": "2.0", "id": message_id, "result": result}
    await send_json(send, 200, [(b"content-type", b"application/json")], body)


async def not_found(send: Send, what: str) -> None:
    """Send 404: an object of another caller looks like one that does not exist."""
    headers = [(b"content-type", b"application/json")]
    error = {"code": _NOT_FOUND, "message": f"{what} not found"}
    await send_json(send, 404, headers, {"jsonrpc": "2.0", "id": None, "error": error})


async def send_json(send: Send, status: int, headers: Headers, body: dict[str, Any]) -> None:
    """Send one JSON object."""
    content = json.dumps(body).encode()
    headers = [*headers, (b"content-length", str(len(content)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def send_empty(send: Send, status: int, headers: Headers = ()) -> None:
    """Send a response without a body."""
    await send({"type": "http.response.start", "status": status, "headers": [*headers]})
    await send({"type": "http.response.body", "body": b""})
