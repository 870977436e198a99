"""One tool call over streamable HTTP, by hand: nothing is retried, and every answer is kept.

MCP 2025-11-25 begins with a handshake and may have a session; MCP 2026-07-28 sends the call alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import httpx

from toolguard.http.challenge import Challenge, parse
from toolguard.parsing.strict_json import lenient_object
from toolguard.testing.server_answer import ServerAnswer

__all__ = ["REVISIONS", "CallAnswer", "CallRevision", "ToolCaller"]

CallRevision: TypeAlias = Literal["2025-11-25", "2026-07-28"]

REVISIONS: tuple[CallRevision, ...] = ("2025-11-25", "2026-07-28")
"""The protocol revisions that a call can be made in."""

_REVISION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_META = "io.modelcontextprotocol/"
_CLIENT = {"name": "toolguard call", "version": "1"}
# With these a server says where an account is connected, instead of failing.
_CAPABILITIES: Mapping[str, Any] = {"elicitation": {"form": {}, "url": {}}}


@dataclass(frozen=True)
class CallAnswer:
    """One request and its answer.

    Attributes:
        about: the method, and the tool of a call.
        status: the HTTP status.
        reason: its words.
        header: the challenge as sent: a header, or in the result of a call; None for none.
        location: where a redirect leads; None for none.
        answer: the answer.
    """

    about: str
    status: int
    reason: str
    header: str | None
    location: str | None
    answer: ServerAnswer

    @property
    def challenge(self) -> Challenge | None:
        """The challenge; None if there is none that can be read."""
        return self.answer.challenge


class ToolCaller:
    """A client of one server.

    Args:
        url: its MCP endpoint.
        http: sends the requests, and limits what it reads; it must not follow redirects, which
            could take a token along.
        revision: the protocol revision.
    """

    def __init__(self, url: str, http: httpx.AsyncClient, revision: CallRevision) -> None:
        self._url = url
        self._http = http
        self._revision: str = revision
        self._has_handshake = revision == REVISIONS[0]
        self._session: str | None = None
        self._ids = itertools.count(1)

    async def call(self, tool: str, arguments: Mapping[str, Any], token: str | None) -> CallAnswer:
        """Return the exchange that ends a call: the answer of the tool, or what refused before.

        Raises:
            httpx.HTTPError: if the server does not answer.
        """
        if self._has_handshake:
            refused = await self._shake_hands(token)
            if refused is not None:
                return refused
        params: dict[str, Any] = {"name": tool, "arguments": dict(arguments)}
        return await self._post("tools/call", params, token, name=tool)

    async def end(self, token: str | None) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            await self._http.delete(self._url, headers=self._headers(token))

    async def _shake_hands(self, token: str | None) -> CallAnswer | None:
        """Initialize, unless that is done; return the exchange if it is refused."""
        params = {
            "protocolVersion": self._revision,
            "capabilities": _CAPABILITIES,
            "clientInfo": _CLIENT,
        }
        exchange = await self._post("initialize", params, token)
        if "result" not in exchange.answer.body:
            return exchange
        self._has_handshake = False
        agreed = str(exchange.answer.result.get("protocolVersion"))
        self._revision = agreed if _REVISION.fullmatch(agreed) else self._revision
        notification = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        await self._http.post(self._url, json=notification, headers=self._headers(token))
        return None

    async def _post(
        self, method: str, params: dict[str, Any], token: str | None, *, name: str | None = None
    ) -> CallAnswer:
        number = next(self._ids)
        headers = self._headers(token)
        if self._revision == REVISIONS[1]:
            params = {**params, "_meta": self._meta()}
            headers |= {"mcp-method": method, "mcp-name": name or ""}
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        async with self._http.stream("POST", self._url, json=message, headers=headers) as response:
            body = await _answer_of(response, number)
            self._session = response.headers.get("mcp-session-id", self._session)
        about = method if name is None else f"{method} {name}"
        return _exchange(about, response, body)

    def _headers(self, token: str | None) -> dict[str, str]:
        headers = {"accept": "application/json, text/event-stream"}
        headers["mcp-protocol-version"] = self._revision
        if self._session is not None:
            headers["mcp-session-id"] = self._session
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return headers

    def _meta(self) -> dict[str, Any]:
        return {
            f"{_META}protocolVersion": self._revision,
            f"{_META}clientInfo": _CLIENT,
            f"{_META}clientCapabilities": _CAPABILITIES,
        }


def _exchange(about: str, response: httpx.Response, body: Mapping[str, Any]) -> CallAnswer:
    header = response.headers.get("www-authenticate")
    if header is None:
        # A refusal that came too late for a status.
        carried = ServerAnswer.read(response.status_code, None, body).result.get("_meta", {})
        sent = carried.get("mcp/www_authenticate") if isinstance(carried, dict) else None
        header = sent[0] if isinstance(sent, list) and sent and isinstance(sent[0], str) else None
    try:
        challenge = None if header is None else parse(header)
    except ValueError:
        challenge = None
    return CallAnswer(
        about,
        response.status_code,
        response.reason_phrase,
        header,
        response.headers.get("location"),
        ServerAnswer.read(response.status_code, challenge, body),
    )


async def _answer_of(response: httpx.Response, number: int) -> dict[str, Any]:
    """Return the JSON-RPC response to the request of that number; empty if there is none.

    A stream is read until the response: the server may keep it open.
    """
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        async with aclosing(_events(response)) as events:
            async for data in events:
                message = lenient_object(data) or {}
                if message.get("id") == number:
                    return message
        return {}
    return lenient_object((await response.aread()).decode("utf-8", "replace")) or {}


async def _events(response: httpx.Response) -> AsyncGenerator[str, None]:
    """Yield the data of the events of a stream (HTML, server-sent events)."""
    data: list[str] = []
    async for line in response.aiter_lines():
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield "\n".join(data)
            data = []
