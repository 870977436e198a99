"""Low-level servers, written once for both lines of the SDK."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from toolguard import ToolGuard

__all__ = ["MCP", "Told", "in_memory", "lowlevel", "sse_app", "streamable_app"]

MCP = int(version("mcp").partition(".")[0])
types: Any = importlib.import_module("mcp.types" if MCP == 1 else "mcp_types")
_Server: Any = importlib.import_module("mcp.server.lowlevel").Server

Answer = Callable[[Mapping[str, Any]], Awaitable[str]]


@dataclass
class Told:
    """What a server is made of, and what its handlers have been told.

    Attributes:
        tools: the tools it lists, by name.
        unlisted: those that it answers and does not list.
        resources: the URIs it lists.
        templates: the URI templates it lists.
        prompts: the prompts it lists.
        calls: what its handlers were called with.
    """

    tools: Mapping[str, Answer] = field(default_factory=dict)
    unlisted: Mapping[str, Answer] = field(default_factory=dict)
    resources: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    calls: list[str] = field(default_factory=list)

    async def call(self, name: str, arguments: Mapping[str, Any] | None) -> str:
        self.calls.append(name)
        return await {**self.tools, **self.unlisted}[name](arguments or {})

    def listed_tools(self) -> list[Any]:
        schema = {"type": "object"}
        return [types.Tool(name=name, **{_of("inputSchema"): schema}) for name in self.tools]

    def listed_resources(self) -> list[Any]:
        return [types.Resource(uri=uri, name=uri) for uri in self.resources]

    def listed_templates(self) -> list[Any]:
        return [
            types.ResourceTemplate(name=uri, **{_of("uriTemplate"): uri}) for uri in self.templates
        ]

    def listed_prompts(self) -> list[Any]:
        return [types.Prompt(name=name) for name in self.prompts]

    def read(self, uri: str) -> Any:
        self.calls.append(uri)
        return types.TextResourceContents(uri=uri, text=f"text of {uri}")

    def prompt(self, name: str) -> Any:
        self.calls.append(name)
        content = types.TextContent(type="text", text=f"text of {name}")
        messages = [types.PromptMessage(role="user", content=content)]
        return types.GetPromptResult(messages=messages)


def _of(name: str) -> str:
    """Return how a field is called in the classes of this line."""
    if MCP == 1:
        return name
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in name)


def lowlevel(told: Told) -> Any:
    """Return a low-level server."""
    return _lowlevel1(told) if MCP == 1 else _lowlevel2(told)


def _lowlevel1(told: Told) -> Any:
    server = _Server("lowlevel")

    @server.list_tools()  # type: ignore[untyped-decorator,unused-ignore]
    async def list_tools() -> Any:
        return told.listed_tools()

    @server.call_tool()  # type: ignore[untyped-decorator,unused-ignore]
    async def call_tool(name: str, arguments: dict[str, Any]) -> Any:
        return [types.TextContent(type="text", text=await told.call(name, arguments))]

    @server.list_resources()  # type: ignore[untyped-decorator,unused-ignore]
    async def list_resources() -> Any:
        return told.listed_resources()

    @server.list_resource_templates()  # type: ignore[untyped-decorator,unused-ignore]
    async def list_resource_templates() -> Any:
        return told.listed_templates()

    @server.read_resource()  # type: ignore[untyped-decorator,unused-ignore]
    async def read_resource(uri: Any) -> Any:
        contents = importlib.import_module("mcp.server.lowlevel.helper_types")
        return [contents.ReadResourceContents(content=told.read(str(uri)).text)]

    @server.list_prompts()  # type: ignore[untyped-decorator,unused-ignore]
    async def list_prompts() -> Any:
        return told.listed_prompts()

    @server.get_prompt()  # type: ignore[untyped-decorator,unused-ignore]
    async def get_prompt(name: str, arguments: Any) -> Any:
        return told.prompt(name)

    return server


def _lowlevel2(told: Told) -> Any:
    async def call_tool(_: Any, params: Any) -> Any:
        text = await told.call(params.name, params.arguments)
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)])

    async def read_resource(_: Any, params: Any) -> Any:
        return types.ReadResourceResult(contents=[told.read(str(params.uri))])

    async def get_prompt(_: Any, params: Any) -> Any:
        return told.prompt(params.name)

    async def list_tools(_: Any, __: Any) -> Any:
        return types.ListToolsResult(tools=told.listed_tools())

    async def list_resources(_: Any, __: Any) -> Any:
        return types.ListResourcesResult(resources=told.listed_resources())

    async def list_templates(_: Any, __: Any) -> Any:
        return types.ListResourceTemplatesResult(resource_templates=told.listed_templates())

    async def list_prompts(_: Any, __: Any) -> Any:
        return types.ListPromptsResult(prompts=told.listed_prompts())

    return _Server(
        "lowlevel",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


def streamable_app(
    guard: ToolGuard, server: Any, *, stateless: bool = True, json: bool = True
) -> Starlette:
    """Return the application that a user of this line builds around a protected server."""
    if MCP == 2:
        app = server.streamable_http_app(stateless_http=stateless, json_response=json)
        assert isinstance(app, Starlette)
        return app
    managers = importlib.import_module("mcp.server.streamable_http_manager")
    manager = managers.StreamableHTTPSessionManager(server, json_response=json, stateless=stateless)
    return guard.protect_app(
        Starlette(
            routes=[
                Route("/mcp", endpoint=_Endpoint(manager)),
                Route("/health", endpoint=_health),
            ],
            lifespan=lambda _: manager.run(),
        ),
        server,
        paths=["/mcp"],
    )


class _Endpoint:
    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._manager.handle_request(scope, receive, send)


async def _health(_: Any) -> Response:
    return Response("well")


def sse_app(guard: ToolGuard, server: Any) -> Starlette:
    """Return the application of the HTTP+SSE transport around a protected server."""
    transport = importlib.import_module("mcp.server.sse").SseServerTransport("/messages/")

    async def listen(request: Any) -> Response:
        connected = transport.connect_sse(request.scope, request.receive, request._send)
        async with connected as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return Response()

    routes = [
        Route("/sse", endpoint=listen),
        Mount("/messages/", app=transport.handle_post_message),
    ]
    return guard.protect_app(Starlette(routes=routes), server, paths=["/sse", "/messages/"])


@asynccontextmanager
async def in_memory(server: Any) -> AsyncIterator[Any]:
    """Connect the SDK's own client to a server in this process."""
    if MCP == 1:
        memory = importlib.import_module("mcp.shared.memory")
        connected = memory.create_connected_server_and_client_session(server)
    else:
        client: Any = importlib.import_module("mcp").Client
        connected = client(server)
    async with connected as session:
        yield session
