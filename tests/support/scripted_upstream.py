"""What does a gateway send to a server that is served elsewhere? One that answers by a script."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["ScriptedUpstream", "events", "text"]

Answered = dict[str, Any] | Response
Answer = Callable[[dict[str, Any]], Answered | Awaitable[Answered]]


def text(said: str) -> dict[str, Any]:
    """Return the result of a tool that says something."""
    return {"content": [{"type": "text", "text": said}]}


def events(*messages: dict[str, Any]) -> Response:
    """Return a stream of messages."""
    lines = "".join(f"event: message\ndata: {json.dumps(each)}\n\n" for each in messages)
    return Response(lines, media_type="text/event-stream")


class ScriptedUpstream:
    """An MCP server with some tools, which notes what it is sent.

    Attributes:
        requests: the headers of each POST, and the message in it.
        answers: by method, what is answered instead of the usual; ``DELETE`` for the end.
        session: the id of the sessions that it hands out.
        called: set when a tool is called.
        cancelled: set when it is told of a cancelled request.
        left: set when a session is ended.
    """

    def __init__(self, *tools: str) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.answers: dict[str, Answer] = {}
        self.session = "first"
        self.called, self.cancelled, self.left = (threading.Event() for _ in range(3))
        schema = {"type": "object", "properties": {"folder": {"type": "string"}}}
        self._tools = [{"name": name, "inputSchema": schema} for name in tools]
        self.app = Starlette(routes=[Route("/mcp", self._serve, methods=["POST", "DELETE"])])

    def sent(self, method: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        """Return the requests of one method."""
        return [each for each in self.requests if each[1].get("method") == method]

    async def _serve(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.left.set()
            leave = self.answers.get("DELETE")
            left = Response() if leave is None else leave({})
            left = await left if inspect.isawaitable(left) else left
            assert isinstance(left, Response)
            return left
        message = await request.json()
        self.requests.append((dict(request.headers), message))
        if message.get("method") == "notifications/cancelled":
            self.cancelled.set()
        if message.get("method") == "tools/call":
            self.called.set()
        if "id" not in message:
            return Response(status_code=202)
        made = self.answers.get(message["method"], self._usual)(message)
        if inspect.isawaitable(made):
            made = await made
        if isinstance(made, Response):
            return made
        envelope = {"jsonrpc": "2.0", "id": message["id"]}
        answer = made if "jsonrpc" in made else {**envelope, "result": made}
        return JSONResponse(answer, headers={"mcp-session-id": self.session})

    def _usual(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message["method"] == "initialize":
            return {
                "protocolVersion": message["params"]["protocolVersion"],
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted", "version": "1"},
            }
        if message["method"] == "tools/list":
            return {"tools": self._tools}
        return text("served")
