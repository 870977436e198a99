"""The adapter for both lines of fastmcp."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

import fastmcp
from fastmcp.exceptions import PromptError, ResourceError, ToolError
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.server.providers import Provider
from fastmcp.server.providers.addressing import parse_hashed_backend_name
from fastmcp.server.providers.fastmcp_provider import (
    FastMCPProviderPrompt,
    FastMCPProviderResource,
    FastMCPProviderResourceTemplate,
    FastMCPProviderTool,
)
from fastmcp.server.transforms import Transform
from fastmcp.utilities.versions import VersionSpec, version_sort_key
from starlette.applications import Starlette

from toolguard.calls.message import Frame
from toolguard.errors import ToolGuardError
from toolguard.frameworks import internals
from toolguard.frameworks.apps import guard_builder
from toolguard.frameworks.background import BackgroundTasks, TaskLine
from toolguard.frameworks.fastmcp_catalog import catalog_of
from toolguard.frameworks.fastmcp_components import described, parents, requested_version
from toolguard.frameworks.fastmcp_guard import AttachableAdapter, Attached, attach, servers_below
from toolguard.frameworks.fastmcp_queue import attend_extension, attend_workers
from toolguard.frameworks.operation import Catalog, Operation, Revision
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.policies.operations import Kind

__all__ = ["FastMCPAdapter"]

_OLDEST = {3: (3, 4, 8), 4: (4, 0, 11)}
_MOUNTED = (
    FastMCPProviderTool,
    FastMCPProviderResource,
    FastMCPProviderResourceTemplate,
    FastMCPProviderPrompt,
)
# The user interfaces of fastmcp's apps, which are made for each tool and not registered.
_INTERFACES = "ui://prefab/"

_Mounted: TypeAlias = tuple[Kind, int, str]


class FastMCPAdapter(AttachableAdapter):
    """One fastmcp server, with the servers mounted on it.

    Args:
        server: the ``fastmcp.FastMCP``.
        guard_messages: puts the guard around the messages of the low-level server.
        unknown: makes the framework's own error for an unknown operation.
        tasks: the background tasks of this line.

    Raises:
        ValueError: if this release of fastmcp, or this server, cannot be guarded.
        RuntimeError: if fastmcp lacks a private attribute that toolguard relies on.
    """

    server: FastMCPServer

    has_tags = True
    error_types = (ToolError, ResourceError, PromptError)

    def __init__(
        self,
        server: FastMCPServer,
        guard_messages: Callable[[FastMCPAdapter, ServerGuard], None],
        unknown: Callable[[str], Exception],
        tasks: TaskLine,
    ) -> None:
        check_version(fastmcp.__version__)
        wrapped = server.local_provider.wrap_transform(Transform())
        internals.probe_fastmcp(server, _MOUNTED, ToolInjectionMiddleware, wrapped)
        super().__init__(server)
        self._guard_messages = guard_messages
        self._unknown = unknown
        self._listings: tuple[Catalog, dict[_Mounted, list[Operation]]] | None = None
        self.tasks = BackgroundTasks(tasks)
        self._attached: Attached | None = None
        self._table: object = None

    def operations(self) -> Iterator[Operation]:
        """Yield the operations of the server and of the servers mounted on it, by own name."""
        for server in (self.server, *servers_below(self.server)):
            for provider in _local_providers(server):
                for component in internals.components_of(provider).values():
                    yield described(parents(component))

    def revision(self) -> Revision:
        """Return a value that changes with components, transforms and middleware of all servers."""
        parts: list[object] = []
        for server in (self.server, *servers_below(self.server)):
            parts += (server, *server.transforms, *server.middleware)
            for provider in _local_providers(server):
                parts += (provider, *internals.components_of(provider).values())
        return Revision(parts)

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``, also on a mounted server."""
        return await find_on(self.server, kind, name, meta)

    async def find_completed(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that a completion is for, a template by its own text first."""
        chain: list[Any] = []
        below = (self.server, name) if kind == "resource" else None
        while below is not None:
            server, uri_template = below
            provider = cast("Provider", server)  # every server of fastmcp is one
            templates = await Provider.list_resource_templates(provider)
            named = [each for each in templates if each.uri_template == uri_template]
            if not named:
                break
            chain.append(max(named, key=version_sort_key))
            below = internals.mounted(chain[-1])
        return described(chain) if chain else await self.find(kind, name, meta)

    def at(self, server: FastMCPServer) -> FastMCPAdapter:
        """Return the adapter for calls to ``server``, which is mounted below its own server."""
        if server is self.server:
            return self
        below = _Below.__new__(_Below)
        vars(below).update(vars(self), below=server)
        return below

    def listed_as(
        self, server: FastMCPServer, kind: Kind, name: str, reached_by: Sequence[str]
    ) -> Sequence[Operation]:
        """Return what an operation of a mounted server is to clients, for the rules."""
        if not self.rules.policies:
            return ()
        catalog = self.catalog()
        if self._listings is None or self._listings[0] is not catalog:
            self._listings = (catalog, _by_mount(catalog))
        listings = self._listings[1].get((kind, id(server), name), ())
        return () if any(each.name in reached_by for each in listings) else listings

    def names_below(self, kind: Kind, name: str) -> tuple[str, ...]:
        """Return the names on mounted servers of an operation that clients call ``name``."""
        if not self.rules.policies:
            return ()
        listed = self.catalog().operations
        found = (each for each in listed if (each.kind, each.name) == (kind, name))
        return tuple(other for each in found for _, other in each.mounts)

    def build_catalog(self) -> Catalog:
        """Return the operations, also of mounted servers, by the names that clients use."""
        return catalog_of(self.server)

    async def visible(self, door: Frame, method: str, listed: Sequence[Any]) -> Sequence[Any]:
        """Return the components of a list that are visible to the caller."""
        if door.guard.unauthorized_tools == "show":
            return listed
        return await self._lists.visible(door, method, listed)

    def install(self, guard: ServerGuard) -> None:
        """Install ``guard`` around every message, and every app and transport of the server."""
        attached = attach(self.server)
        attached.own = self
        attend_workers(attached)
        self.attend_queue()
        self._guard_messages(self, guard)
        self._attached, self._table = attached, internals.message_table(self.server)
        guard_builder(self, guard, "http_app", _paths)
        self.over_stdio(guard)

    def is_intact(self) -> bool:
        """Return whether messages and look-ups still pass the guard."""
        is_same = internals.message_table(self.server) is self._table
        return is_same and self._attached is not None and self._attached.is_intact()

    def attend_queue(self) -> None:
        """Have the queue of the server's background tasks decide by the guard."""
        attend_extension(self.server)

    async def is_foreign_task(self, door: Frame, params: Mapping[str, Any]) -> bool:
        """Return whether a message names a background task that is not its caller's."""
        return not await self.tasks.owns(self.required_guard, door.message, params.get("taskId"))

    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> BaseException:
        """Return an error that fastmcp passes on, even if it masks error details."""
        del nested  # a tool error can be caught by code of the user's
        return _RefusalError(refusal)

    def unknown(self, kind: Kind, name: str) -> Exception:
        """Return the framework's own error for an unknown operation."""
        return self._unknown(f"Unknown {kind}: {name!r}")

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp``, for tests."""
        app: Starlette = self.server.http_app(
            "/mcp", json_response=json_response, stateless_http=True
        )
        return app


class _Below(FastMCPAdapter):
    """An adapter for calls to a server that is mounted below its own."""

    below: Any

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        return await find_on(self.below, kind, name, meta)


class _RefusalError(ToolError, ResourceError, PromptError):
    """A refusal that passes through fastmcp, which logs it at debug level only."""

    def __init__(self, refusal: ToolGuardError) -> None:
        super().__init__(str(refusal))
        self.log_level = logging.DEBUG
        self.refusal = refusal
        self.__cause__ = refusal


def check_version(installed: str) -> None:
    """Check that this release of fastmcp does not bypass its transforms.

    Raises:
        ValueError: naming the release to install.

    >>> check_version("4.2.3")
    >>> check_version("4.0.10")
    Traceback (most recent call last):
    ValueError: fastmcp 4.0.10 finds some tools in a way that rules by name ... fastmcp>=4.0.11
    """
    found = tuple(map(int, re.findall(r"\d+", installed)[:3]))
    oldest = _OLDEST.get(found[0], _OLDEST[4])
    if found < oldest:
        wanted = ".".join(map(str, oldest))
        raise ValueError(
            f"fastmcp {installed} finds some tools in a way that rules by name cannot follow, so "
            f"they would not apply: install fastmcp>={wanted}"
        )


def _by_mount(catalog: Catalog) -> dict[_Mounted, list[Operation]]:
    """Return what is listed for each operation of a mounted server."""
    found: dict[_Mounted, list[Operation]] = {}
    for each in catalog.operations:
        for server, name in each.mounts:
            found.setdefault((each.kind, id(server), name), []).append(each)
    return found


def _local_providers(server: FastMCPServer) -> Iterator[Any]:
    """Yield the providers of a server, nested ones too, but not those of mounted servers."""
    todo = list(server.providers)
    while todo:
        provider = todo.pop(0)
        yield provider
        inner = internals.inner_provider(provider)
        todo += [] if inner is None else [inner]
        todo += getattr(provider, "providers", ())


async def find_on(server: FastMCPServer, kind: Kind, name: str, meta: object) -> Operation | None:
    """Return the operation that a server calls ``name``, with its names on mounted servers."""
    version = requested_version(meta)
    chain: list[Any] = []
    while True:
        found = await _component(server, kind, name, version)
        if found is None:
            break
        chain += parents(found)
        below = internals.mounted(chain[-1])
        if below is None:
            break
        if hasattr(found, "matches") and (parameters := found.matches(name)) is not None:
            made = await found.create_resource(name, parameters)
            below = internals.mounted(made) or below
        server, name = below
        version = VersionSpec(eq=found.version) if found.version else None
    if not chain:
        is_interface = kind == "resource" and name.startswith(_INTERFACES)
        return Operation(kind, name, None) if is_interface else None
    return described(chain)


async def _component(
    server: FastMCPServer, kind: Kind, name: str, version: VersionSpec | None
) -> Any:
    """Return the component that fastmcp's own look-up finds on a server."""
    if kind == "prompt":
        return await server.get_prompt(name, version)
    if kind == "resource":
        found = await server.get_resource(name, version)
        return found or await server.get_resource_template(name, version)
    for middleware in server.middleware:
        if isinstance(middleware, ToolInjectionMiddleware):
            injected = internals.injected_tools(middleware).get(name)
            if injected is not None:
                return injected
    hashed = parse_hashed_backend_name(name)
    found = await server.get_tool(name, version)
    return found or (await server.get_tool_by_hash(*hashed) if hashed is not None else None)


def _paths(app: Any, *_: Any, **__: Any) -> Collection[str]:
    messages = [fastmcp.settings.message_path] if app.state.transport_type == "sse" else []
    return [app.state.path, *messages]
