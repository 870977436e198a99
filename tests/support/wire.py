"""What does a client put on the wire, and what comes back? By hand, to see every byte."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from support.lines import LEGACY_PROTOCOLS, MODERN_PROTOCOL

__all__ = [
    "REFUSED",
    "Caller",
    "Connect",
    "Reply",
    "Visit",
    "asked_for",
    "denied_with",
    "message",
    "request_headers",
]

#: The code of the guard's JSON-RPC errors.
REFUSED = -32003

_META = "io.modelcontextprotocol/"
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ids = itertools.count(1)

Capabilities = Mapping[str, Any]


@dataclass(frozen=True)
class Reply:
    """One HTTP response.

    Attributes:
        status: the HTTP status.
        headers: the HTTP headers.
        content: the body as text.
        messages: the JSON values of the body: one, or the events of a stream.
    """

    status: int
    headers: httpx.Headers
    content: str
    messages: tuple[Any, ...]

    @classmethod
    def of(cls, response: httpx.Response) -> Reply:
        """Read a response to its end."""
        text = response.text
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            data = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
            parts = [part for part in data if part]
        else:
            parts = [text] if text.startswith(("{", "[")) else []
        return cls(
            response.status_code, response.headers, text, tuple(json.loads(part) for part in parts)
        )

    @property
    def challenge(self) -> str | None:
        """The WWW-Authenticate header; None if there is none."""
        found = self.headers.get_list("www-authenticate")
        assert len(found) <= 1, "two challenges"
        return found[0] if found else None

    @property
    def body(self) -> Any:
        """What a refusal says, or the JSON-RPC response: the last JSON value."""
        last = self.messages[-1]
        is_refusal = self.status >= 400 and last.get("error", {}).get("code") == REFUSED
        return self.refusal if is_refusal else last

    @property
    def refusal(self) -> Any:
        """The data of the JSON-RPC error of the guard; its form is held."""
        last = self.messages[-1]
        assert last.keys() == {"jsonrpc", "id", "error"}, self.content
        error = last["error"]
        assert error.keys() == {"code", "message", "data"}, self.content
        assert (last["jsonrpc"], error["code"]) == ("2.0", REFUSED), self.content
        assert error["message"] == error["data"]["error_description"]
        return error["data"]

    @property
    def denial(self) -> Any:
        """What a denial says: with 403 to clients that bear it, to others an error of MCP."""
        assert self.challenge is None
        if self.status == 200 and "error" in self.messages[-1]:
            return self.refusal
        if self.status == 200:
            last = self.messages[-1]
            if "error" in last:  # of another method than tools/call
                return self.refusal
            assert self.meta_challenges == []
            return json.loads(self.tool_error)
        assert self.status == 403, self.content
        return self.body

    @property
    def result(self) -> Any:
        """The JSON-RPC result."""
        assert "result" in self.body, f"{self.status} {self.content}"
        return self.body["result"]

    @property
    def text(self) -> str:
        """The text content of the result."""
        return "\n".join(item["text"] for item in self.result["content"])

    @property
    def value(self) -> str:
        """The text of a call that went well."""
        assert self.status == 200, f"{self.status} {self.content}"
        assert not self.result.get("isError", False), self.text
        return self.text

    @property
    def tool_error(self) -> str:
        """The text of a call whose result is an error."""
        assert self.status == 200, f"{self.status} {self.content}"
        assert self.result["isError"] is True, self.content
        return self.text

    @property
    def is_error(self) -> bool:
        """Whether nothing came of it: an error of JSON-RPC, or of a tool."""
        last = self.messages[-1]
        return "error" in last or last["result"].get("isError", False) is True

    @property
    def meta_challenges(self) -> list[str]:
        """The challenges in the result's metadata."""
        found = self.result.get("_meta", {}).get("mcp/www_authenticate", [])
        assert isinstance(found, list)
        return found


def message(
    protocol: str,
    method: str,
    params: Mapping[str, Any] | None = None,
    *,
    capabilities: Capabilities | None = None,
) -> dict[str, Any]:
    """Return the JSON-RPC request (a notification if the method is one)."""
    filled = dict(params or {})
    if protocol == MODERN_PROTOCOL:
        filled["_meta"] = {
            **filled.get("_meta", {}),
            f"{_META}protocolVersion": protocol,
            f"{_META}clientCapabilities": dict(capabilities or {}),
            f"{_META}clientInfo": {"name": "wire", "version": "1"},
        }
    made: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": filled}
    return made if method.startswith("notifications/") else {**made, "id": next(_ids)}


def request_headers(
    protocol: str,
    body: Mapping[str, Any] | None = None,
    *,
    token: str | None = None,
    session: str | None = None,
) -> dict[str, str]:
    """Return the headers of a request; the first ``initialize`` names no revision yet."""
    headers = {"accept": "application/json, text/event-stream"}
    method = body["method"] if body is not None else ""
    if method != "initialize":
        headers["mcp-protocol-version"] = protocol
    if protocol == MODERN_PROTOCOL and body is not None:
        headers["mcp-method"] = method
        if method in _NAMED_BY:
            headers["mcp-name"] = body["params"][_NAMED_BY[method]]
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if session is not None:
        headers["mcp-session-id"] = session
    return headers


def denied_with(protocol: str) -> int:
    """Return the status of a denial to a client that speaks this revision."""
    return 403 if protocol == MODERN_PROTOCOL else 200


def asked_for(protocol: str, required: str, held: str) -> str:
    """Return the scopes that a challenge names to a client that speaks this revision."""
    if protocol == MODERN_PROTOCOL:
        return required
    return " ".join(dict.fromkeys([*held.split(), *required.split()]))


class Caller:
    """One MCP client with one access token, which may be swapped at any time.

    Args:
        http: sends the requests.
        endpoint: the URL of the MCP endpoint.
        protocol: the revision it speaks.
        token: what it sends as bearer token; None for no Authorization header.
        capabilities: what it tells the server it can do.
    """

    def __init__(
        self,
        http: httpx.Client,
        endpoint: str,
        protocol: str = LEGACY_PROTOCOLS[-1],
        *,
        token: str | None = None,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.http = http
        self.endpoint = endpoint
        self.protocol = protocol
        self.token = token
        self.capabilities = dict(capabilities or {})
        self.session: str | None = None

    def open(self) -> Reply:
        """Initialize; remember the session if the server hands one out."""
        params = {
            "protocolVersion": self.protocol,
            "capabilities": self.capabilities,
            "clientInfo": {"name": "wire", "version": "1"},
        }
        reply = self.send("initialize", params)
        self.session = reply.headers.get("mcp-session-id")
        if reply.status == 200:
            assert self.send("notifications/initialized").status == 202
        return reply

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None, **meta: Any) -> Reply:
        """Call a tool; ``meta`` goes into the request's ``_meta``."""
        params = {"name": tool, "arguments": dict(arguments or {})}
        return self.send("tools/call", {**params, "_meta": meta} if meta else params)

    def tools(self) -> dict[str, Any]:
        """Return the listed tools by name."""
        return {tool["name"]: tool for tool in self.send("tools/list").result["tools"]}

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> Reply:
        """Send one message."""
        body = message(self.protocol, method, params, capabilities=self.capabilities)
        return self.post(body, self.headers(body))

    def headers(self, body: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Return the headers this client sends with ``body``."""
        return request_headers(self.protocol, body, token=self.token, session=self.session)

    def post(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Send exactly this."""
        return Reply.of(self.http.post(self.endpoint, json=body, headers=headers))


Connect = Callable[..., Caller]
"""Makes a caller of the shared calendar with a token, ready to call tools."""

Visit = Callable[..., Caller]
"""Makes a caller of the server that is made by a function, served once under a name."""
