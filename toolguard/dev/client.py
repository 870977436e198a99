"""What does a real MCP client do here, and what passes on its wire?

The client of the installed ``mcp`` package, of its line 1 or 2, with a recorder on its HTTP
client. What is told of a step is what went over the socket.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import mcp
from mcp.client.streamable_http import streamable_http_client

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["Exchange", "MCPClient", "Outcome", "Wire"]

T = TypeVar("T")

# mcp 2 speaks through httpx2, mcp 1 through httpx; of what is used here the two are alike.
_IS_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
_http: Any = importlib.import_module("httpx2" if _IS_LINE_2 else "httpx")
_exceptions: Any = importlib.import_module("mcp.shared.exceptions")
_REFUSALS: tuple[type[Exception], ...] = (
    _exceptions.MCPError if _IS_LINE_2 else _exceptions.McpError,
    _http.HTTPStatusError,
)
_FAILURES: tuple[type[BaseException], ...] = (*_REFUSALS, BaseExceptionGroup)


@dataclass(frozen=True)
class Exchange:
    """One HTTP request and its answer.

    Attributes:
        method: of the request.
        url: of the request.
        status: of the answer.
        status_line: of the answer, as in ``HTTP/1.1 403 Forbidden``.
        headers: of the answer. The request's are not kept: they hold the token.
    """

    method: str
    url: str
    status: int
    status_line: str
    headers: Mapping[str, str]


@dataclass
class Wire:
    """Remembers what passed, in its order."""

    exchanges: list[Exchange] = field(default_factory=list)

    async def record(self, response: Any) -> None:
        """Remember one answer and its request; a response hook of the HTTP client."""
        request = response.request
        status_line = f"{response.http_version} {response.status_code} {response.reason_phrase}"
        self.exchanges.append(
            Exchange(
                request.method,
                str(request.url),
                response.status_code,
                status_line,
                dict(response.headers),
            )
        )

    def posts_to(self, url: str) -> list[Exchange]:
        """Return the POST requests to ``url``, in their order."""
        return [each for each in self.exchanges if (each.method, each.url) == ("POST", url)]


@dataclass(frozen=True)
class Outcome:
    """What the client was told.

    Attributes:
        ok: whether the tool ran and reported no error.
        data: the structured result of the tool, None if there was none.
        text: the text of the result; empty if the server refused at the HTTP level.
        exchanges: what passed on the wire for it.
        exchange: the last request to the MCP endpoint and its answer.
    """

    ok: bool
    data: Any
    text: str
    exchanges: tuple[Exchange, ...]
    exchange: Exchange


class MCPClient:
    """An MCP client application of one user.

    Args:
        url: of the MCP endpoint.
        token: a fixed access token, None for none.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}

    async def tools(self) -> Outcome:
        """List the tools; ``data`` holds the names of the parameters that each of them shows."""
        return await self._ask(_parameters)

    async def call(self, tool: str, /, **arguments: Any) -> Outcome:
        """Call a tool."""

        async def ask(session: Any) -> Mapping[str, Any]:
            return _dumped(await session.call_tool(tool, arguments))

        return await self._ask(ask)

    async def _ask(self, ask: Callable[[Any], Any]) -> Outcome:
        wire = Wire()
        result: Mapping[str, Any] = {"isError": True}
        last = None
        try:
            async with self._session(wire) as session:
                result = await ask(session)
                last = wire.posts_to(self._url)[-1]  # before the session is closed
        except _FAILURES as error:
            if not _is_refusal(error):
                raise
        text = "\n".join(part.get("text", "") for part in result.get("content", ()))
        return Outcome(
            not result.get("isError", False),
            _data(result, text),
            text,
            tuple(wire.exchanges),
            last or wire.posts_to(self._url)[-1],
        )

    @asynccontextmanager
    async def _session(self, wire: Wire) -> AsyncIterator[Any]:
        hooks = {"request": [], "response": [wire.record]}
        async with _http.AsyncClient(
            headers=self._headers, event_hooks=hooks, timeout=30, trust_env=False
        ) as http:
            transport: Any = streamable_http_client(self._url, http_client=http)
            if _IS_LINE_2:
                async with mcp.Client(transport) as client:
                    yield client
            else:
                async with transport as streams, mcp.ClientSession(*streams[:2]) as session:
                    await session.initialize()
                    yield session


async def _parameters(session: Any) -> Mapping[str, Any]:
    tools = _dumped(await session.list_tools())["tools"]
    return {
        "structuredContent": {tool["name"]: [*tool["inputSchema"]["properties"]] for tool in tools}
    }


def _dumped(result: Any) -> Mapping[str, Any]:
    dumped: Mapping[str, Any] = result.model_dump(mode="json", by_alias=True)
    return dumped


def _data(result: Mapping[str, Any], text: str) -> Any:
    structured = result.get("structuredContent")
    if structured is None:
        return json.loads(text) if text.startswith("{") else None
    # A list or a string travels in a wrapper: structured content is an object.
    return structured["result"] if set(structured) == {"result"} else structured


def _is_refusal(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_refusal(inner) for inner in error.exceptions)
    return isinstance(error, _REFUSALS)
