"""A real MCP client that records its HTTP exchanges.

It is the client of the installed ``mcp`` package, line 1 or 2, with a recorder on its HTTP client.
The demo prints the recorded exchanges.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from mcp.client.auth import OAuthFlowError
from mcp.client.streamable_http import streamable_http_client

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

__all__ = ["HTTPExchange", "MCPClient", "Outcome", "Wire"]

# mcp 2 speaks through httpx2, mcp 1 through httpx; of what is used here the two are alike.
_IS_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
_mcp: Any = importlib.import_module("mcp")
_http: Any = importlib.import_module("httpx2" if _IS_LINE_2 else "httpx")
_exceptions: Any = importlib.import_module("mcp.shared.exceptions")
_types: Any = importlib.import_module("mcp.types")
_MCP_ERROR: Any = _exceptions.MCPError if _IS_LINE_2 else _exceptions.McpError
_FAILURES: tuple[type[BaseException], ...] = (
    *(_MCP_ERROR, _http.HTTPStatusError, OAuthFlowError),
    BaseExceptionGroup,
)
# MCP 2025-11-25, elicitation: the server cannot go on before the user has opened a URL.
_URL_ELICITATION_REQUIRED = -32042


@dataclass(frozen=True)
class HTTPExchange:
    """One HTTP request and its answer.

    Attributes:
        method: of the request.
        url: of the request.
        about: what was asked, in a word or two: ``"tools/call list_events"``, ``"refresh_token"``.
        status: of the answer.
        status_line: of the answer, as in ``HTTP/1.1 403 Forbidden``.
        headers: of the answer. The request's are not kept: they hold the token.
    """

    method: str
    url: str
    about: str
    status: int
    status_line: str
    headers: Mapping[str, str]


@dataclass
class Wire:
    """Remembers what passed, in its order."""

    exchanges: list[HTTPExchange] = field(default_factory=list)

    async def record(self, response: Any) -> None:
        """Remember one answer and its request; a response hook of the HTTP client."""
        request = response.request
        status_line = f"{response.http_version} {response.status_code} {response.reason_phrase}"
        self.exchanges.append(
            HTTPExchange(
                request.method,
                str(request.url),
                _about(request),
                response.status_code,
                status_line,
                dict(response.headers),
            )
        )

    def posts_to(self, url: str) -> list[HTTPExchange]:
        """Return the POST requests to ``url``, in their order."""
        return [each for each in self.exchanges if (each.method, each.url) == ("POST", url)]


@dataclass(frozen=True)
class Outcome:
    """What the client was told.

    Attributes:
        ok: whether the server did what it was asked.
        data: the structured result, None if there was none.
        text: what the tool or the client said about it; empty if the server refused at the HTTP
            level.
        connect_form: how the user is asked to open a link, to connect an account or to approve a
            call; None if they are not.
        connect_url: the link; None if the server does not say.
        exchanges: what passed on the wire for it.
        exchange: the last request of it to the MCP endpoint, and its answer.
    """

    ok: bool
    data: Any
    text: str
    connect_form: str | None
    connect_url: str | None
    exchanges: tuple[HTTPExchange, ...]
    exchange: HTTPExchange


class MCPClient:
    """An MCP client application of one user; every question is a session of its own.

    Args:
        url: of the MCP endpoint.
        token: a fixed access token, None for none.
        auth: or what gets one: an ``OAuthClientProvider``.
        protocol: ``"auto"`` for the newest protocol version both sides know, ``"legacy"`` for
            those that begin with a handshake (on mcp 1 there are no others).
    """

    def __init__(
        self, url: str, *, token: str | None = None, auth: Any = None, protocol: str = "auto"
    ) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._auth = auth
        self._protocol = protocol

    async def tools(self) -> Outcome:
        """List the tools; ``data`` holds the names of the parameters that each of them shows."""
        return await self._ask(_parameters)

    async def call(self, tool: str, /, **arguments: Any) -> Outcome:
        """Call a tool."""
        # A question to the user is an outcome here, not something to be answered unseen.
        undriven = {"allow_input_required": True} if _IS_LINE_2 else {}

        async def ask(session: Any) -> Mapping[str, Any]:
            return _dumped(await session.call_tool(tool, arguments, **undriven))

        return await self._ask(ask)

    async def _ask(self, ask: Callable[[Any], Awaitable[Mapping[str, Any]]]) -> Outcome:
        wire = Wire()
        result: Mapping[str, Any] = {"isError": True}
        last = None
        try:
            async with self._session(wire) as session:
                result = await ask(session)
                last = wire.posts_to(self._url)[-1]  # before the session is closed
        except _FAILURES as error:
            result = _refusal(error)
        text = "\n".join(part.get("text", "") for part in result.get("content", ()))
        connect_form, connect_url = _connection_asked(result, text)
        return Outcome(
            ok=not result.get("isError", False) and connect_form is None,
            data=_data(result, text),
            text=text,
            connect_form=connect_form,
            connect_url=connect_url,
            exchanges=tuple(wire.exchanges),
            exchange=last or wire.posts_to(self._url)[-1],
        )

    @asynccontextmanager
    async def _session(self, wire: Wire) -> AsyncIterator[Any]:
        hooks = {"request": [], "response": [wire.record]}
        async with _http.AsyncClient(
            headers=self._headers, auth=self._auth, event_hooks=hooks, timeout=30, trust_env=False
        ) as http:
            transport: Any = streamable_http_client(self._url, http_client=http)
            if _IS_LINE_2:
                async with _mcp.Client(
                    transport, mode=self._protocol, elicitation_callback=_decline
                ) as client:
                    yield client.session
                return
            async with (
                transport as streams,
                _mcp.ClientSession(*streams[:2], elicitation_callback=_decline) as session,
            ):
                await session.initialize()
                yield session


def _about(request: Any) -> str:
    kind: str = request.headers.get("content-type", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        # Of a form only this: the rest of it is secrets.
        form: dict[str, str] = dict(parse_qsl(request.content.decode()))
        return form.get("grant_type", "")
    is_json = kind.startswith("application/json")
    message: dict[str, Any] = json.loads(request.content) if is_json else {}
    name = message.get("params", {}).get("name", "")
    return f"{message.get('method', '')} {name}".strip()


async def _decline(*_: Any) -> Any:
    # Never called: it is there to say that this client can open a URL.
    return _types.ElicitResult(action="decline")


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


def _connection_asked(result: Mapping[str, Any], text: str) -> tuple[str | None, str | None]:
    """Return in which form the user is asked to connect an account, and where."""
    for asked in (result.get("inputRequests") or {}).values():  # 2026-07-28
        return "InputRequiredResult", asked["params"]["url"]
    for question in result.get("elicitations", ()):  # 2025-11-25
        return f"error {_URL_ELICITATION_REQUIRED}", question["url"]
    said = _data({}, text)
    if isinstance(said, dict) and said.get("error") == "connection_required":
        return "a tool error", said.get("connect_url")
    return None, None


def _refusal(error: BaseException) -> Mapping[str, Any]:
    """Return as a result what ended a session.

    Raises:
        BaseException: ``error`` itself, if it is not a refusal.
    """
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            result = _refusal(inner)
        return result
    if isinstance(error, OAuthFlowError):
        return {"isError": True, "content": [{"text": str(error)}]}
    if isinstance(error, _MCP_ERROR) and error.error.code == _URL_ELICITATION_REQUIRED:
        return {"isError": True, "elicitations": error.error.data["elicitations"]}
    if isinstance(error, (_MCP_ERROR, _http.HTTPStatusError)):
        return {"isError": True}
    raise error
