"""Which framework lines does this environment have, and how is a server of each one served?"""

from __future__ import annotations

import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal, Protocol, TypeVar

from starlette.applications import Starlette

from toolguard import ToolGuard

__all__ = [
    "ALL_MODES",
    "FASTMCP_LINES",
    "LEGACY_PROTOCOLS",
    "LINES",
    "MODERN_PROTOCOL",
    "MODES",
    "STATEFUL_MODES",
    "STATELESS_MODES",
    "Guarding",
    "Line",
    "Mode",
    "Serve",
    "ServeOnce",
    "Server",
]

Guarding = Callable[..., ToolGuard]
"""Makes a guard for tokens of the test's issuer; settings are those of ToolGuard."""

Serve = Callable[[Any], str]
"""Serves an application until the test ends; returns its origin."""

ServeOnce = Callable[[Hashable, Callable[[], Any]], str]
"""Serves what is known by some key until all tests have run; returns its origin."""

LEGACY_PROTOCOLS = ("2025-06-18", "2025-11-25")
MODERN_PROTOCOL = "2026-07-28"


FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


class Server(Protocol):
    """What the tests use of a server, the same in every line."""

    def tool(self, name: str | None = None) -> Callable[[FunctionT], FunctionT]:
        """Register a tool."""
        ...

    def resource(self, uri: str) -> Callable[[FunctionT], FunctionT]:
        """Register a resource, or a template of resources."""
        ...

    def prompt(self, name: str | None = None) -> Callable[[FunctionT], FunctionT]:
        """Register a prompt."""
        ...

    def run(self, transport: Literal["stdio"]) -> None:
        """Serve the process that started this one."""
        ...


@dataclass(frozen=True)
class Line:
    """One framework line.

    Attributes:
        name: ``mcp1``, ``mcp2``, ``fastmcp3`` or ``fastmcp4``.
        family: whose API its servers have.
        server: makes a server; settings are the framework's own.
        context: what a tool annotates a parameter with to get the framework's context.
        modern: whether it speaks 2026-07-28.
    """

    name: str
    family: Literal["sdk", "fastmcp"]
    server: Callable[..., Server]
    context: Any
    modern: bool

    def __str__(self) -> str:
        return self.name

    def http_app(self, server: Any, *, stateless: bool = False, json: bool = False) -> Starlette:
        """Return the streamable HTTP application of ``server``, with its endpoint at ``/mcp``."""
        if self.family == "fastmcp":
            app = server.http_app("/mcp", stateless_http=stateless, json_response=json)
        elif self.modern:
            app = server.streamable_http_app(stateless_http=stateless, json_response=json)
        else:
            server.settings.stateless_http, server.settings.json_response = stateless, json
            app = server.streamable_http_app()
        assert isinstance(app, Starlette)
        return app

    def complete_with(self, server: Any, *values: str) -> None:
        """Answer every completion with these values."""

        async def complete(*_: Any) -> list[str]:
            return list(values)

        self.complete_by(server, complete)

    def complete_by(self, server: Any, values: Callable[..., Awaitable[list[str]]]) -> None:
        """Answer every completion with what a function returns."""
        if self.name == "fastmcp4":
            server.completion(values)
            return
        types: Any = importlib.import_module("mcp_types" if self.modern else "mcp.types")

        async def complete(*about: Any) -> Any:
            return types.Completion(values=await values(*about))

        (server._mcp_server if self.family == "fastmcp" else server).completion()(complete)

    @asynccontextmanager
    async def in_memory(self, server: Any) -> AsyncIterator[Any]:
        """Connect the line's own in-memory client; yields what calls a tool."""
        if self.name == "mcp1":
            memory = importlib.import_module("mcp.shared.memory")
            connected = memory.create_connected_server_and_client_session(server._mcp_server)
        else:
            package: Any = importlib.import_module("mcp" if self.family == "sdk" else "fastmcp")
            connected = package.Client(server)
        async with connected as client:
            yield client.call_tool_mcp if self.family == "fastmcp" else client.call_tool

    def sse_app(self, server: Any) -> Starlette:
        """Return the application of the HTTP+SSE transport, with its endpoint at ``/sse``."""
        app = server.http_app(transport="sse") if self.family == "fastmcp" else server.sse_app()
        assert isinstance(app, Starlette)
        return app


@dataclass(frozen=True)
class Mode:
    """One way of speaking to one line."""

    line: Line
    protocol: str
    stateless: bool
    json: bool

    @property
    def has_sessions(self) -> bool:
        """Whether a client has to open a session before anything else."""
        return not self.stateless and self.protocol != MODERN_PROTOCOL

    def app(self, server: Any) -> Starlette:
        """Return the application of ``server`` that speaks so."""
        return self.line.http_app(server, stateless=self.stateless, json=self.json)

    def __str__(self) -> str:
        session = "stateless" if self.stateless else "stateful"
        return f"{self.line.name}-{self.protocol}-{session}-{'json' if self.json else 'sse'}"


def _installed_lines() -> list[Line]:
    """Return the lines of this environment; an empty list if there is none."""
    found = []
    mcp, fastmcp = _major("mcp"), _major("fastmcp")
    if mcp == 1:
        module = importlib.import_module("mcp.server.fastmcp")
        found.append(Line("mcp1", "sdk", _quiet(module.FastMCP), module.Context, modern=False))
    elif mcp == 2:
        module = importlib.import_module("mcp.server.mcpserver")
        found.append(Line("mcp2", "sdk", _quiet(module.MCPServer), module.Context, modern=True))
    if fastmcp in (3, 4):
        module = importlib.import_module("fastmcp")
        name, modern = f"fastmcp{fastmcp}", fastmcp == 4
        found.append(Line(name, "fastmcp", module.FastMCP, module.Context, modern=modern))
    return found


def _quiet(make: Callable[..., Any]) -> Callable[..., Any]:
    """Make servers of the SDK that log no more than warnings."""

    def server(name: str, **settings: Any) -> Any:
        return make(name, log_level="WARNING", **settings)

    return server


def _major(distribution: str) -> int | None:
    try:
        return int(version(distribution).partition(".")[0])
    except PackageNotFoundError:
        return None


LINES = _installed_lines()
FASTMCP_LINES = [line for line in LINES if line.family == "fastmcp"]
ALL_MODES = [
    Mode(line, protocol, stateless, json)
    for line in LINES
    for protocol in (*LEGACY_PROTOCOLS, *([MODERN_PROTOCOL] if line.modern else []))
    for stateless in (False, True)
    for json in (False, True)
]


def _is_tried(mode: Mode) -> bool:
    """Choose half of the modes: every pair of settings on each line, all three on one of two.

    The two lines of an environment have one transport, that of the SDK.
    """
    revision = (*LEGACY_PROTOCOLS, MODERN_PROTOCOL).index(mode.protocol)
    return (LINES.index(mode.line) + revision + mode.stateless + mode.json) % 2 == 0


# ``TOOLGUARD_MODES=all`` tries everything in every mode, as CI does each week.
MODES = [m for m in ALL_MODES if os.environ.get("TOOLGUARD_MODES") == "all" or _is_tried(m)]
STATEFUL_MODES = [mode for mode in MODES if mode.has_sessions]
STATELESS_MODES = [mode for mode in MODES if not mode.has_sessions]
