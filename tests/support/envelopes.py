"""What does a client put into the body of a request, and how is it read?"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from toolguard.http.jsonrpc import MCPMessage, name_spellings, read_message

__all__ = ["CALL", "JSON", "Headers", "body", "called", "encoded", "envelope", "named", "read"]

Headers = Sequence[tuple[bytes, bytes]]
JSON: Headers = [(b"content-type", b"application/json")]


def envelope(**members: Any) -> bytes:
    """Return the body of a message with these members."""
    return json.dumps({"jsonrpc": "2.0", "id": 1, **members}).encode()


def body(method: str, params: object) -> bytes:
    """Return the body of a request."""
    return envelope(method=method, params=params)


def read(content: bytes, headers: Headers = JSON) -> MCPMessage:
    """Read a message."""
    return read_message(content, headers)


def named(message: MCPMessage) -> list[tuple[str, ...]]:
    """Return the spellings of each operation that a message names."""
    return [name_spellings(asked) for asked in message.asked]


def called(name: str, *headers: tuple[bytes, bytes]) -> MCPMessage:
    """Read a call of a tool."""
    return read(body("tools/call", {"name": name}), [*JSON, *headers])


#: A call of a tool.
CALL = body("tools/call", {"name": "list_notes", "arguments": {}})


def encoded(name: str) -> bytes:
    """Return what Mcp-Name has for a name that no header can hold."""
    return b"=?base64?" + base64.b64encode(name.encode()) + b"?="
