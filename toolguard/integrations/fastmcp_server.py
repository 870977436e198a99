"""What is the same in both lines of fastmcp?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import fastmcp
from fastmcp.exceptions import ResourceError, ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.utilities.versions import VersionSpec
from pydantic import BaseModel
from starlette.applications import Starlette

from toolguard.call import Call
from toolguard.errors import ToolGuardError
from toolguard.integrations.adapter import Adapter
from toolguard.integrations.admission import admit
from toolguard.integrations.apps import guard_builder
from toolguard.integrations.fastmcp_catalog import catalog_of
from toolguard.integrations.operation import Catalog, Operation
from toolguard.invocation import Kind
from toolguard.serving import outer_call, serving

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["FastMCPAdapter"]

_KINDS: Mapping[str, Kind] = {
    "tool": "tool",
    "resource": "resource",
    "template": "resource",
    "prompt": "prompt",
}


class FastMCPAdapter(Adapter):
    """One fastmcp server, with the servers mounted on it.

    Args:
        server: the ``fastmcp.FastMCP``.
        guard_messages: puts the guard around the messages of the low-level server.
    """

    error_types = (ToolError, ResourceError)

    def __init__(
        self, server: Any, guard_messages: Callable[[FastMCPAdapter, ToolGuard], None]
    ) -> None:
        super().__init__(server)
        self._guard_messages = guard_messages

    def operations(self) -> Iterator[Operation]:
        """Yield what is on the server and on the servers mounted on it, by its own name."""
        for components in self.registries():
            for key, component in components.items():
                kind = _KINDS.get(key.partition(":")[0])
                if kind is not None:
                    function = getattr(component, "fn", None)
                    uri = getattr(component, "uri_template", getattr(component, "uri", None))
                    yield Operation(kind, str(uri or component.name), function)

    def registries(self) -> Iterator[dict[Any, Any]]:
        """Yield the registries of the server and of the servers mounted on it."""
        todo = list(self.server.providers)
        while todo:
            provider = todo.pop(0)
            yield getattr(provider, "_components", {})
            todo += getattr(getattr(provider, "server", None), "providers", ())
            # A namespace or a transform wraps the provider of the mounted server.
            todo += [inner] if (inner := getattr(provider, "_inner", None)) is not None else []

    # Its stores of events keep those of one session to themselves.
    withheld_headers = (b"authorization",)

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``, also on a mounted server."""
        try:
            version = _requested_version(meta)
        except ValueError:
            return None
        server, listed = self.server, None
        while True:
            found = await _component(server, kind, name, version)
            if listed is None:
                listed = str(getattr(found, "uri_template", name))
            while getattr(found, "parent_tool", None) is not None:  # a transformed tool
                found = found.parent_tool
            if getattr(found, "_server", None) is None:
                return Operation(kind, listed, getattr(found, "fn", None))
            server = found._server
            name = _inner_name(found, name)

    def look_up(self) -> Catalog:
        """Return what clients can call, also on mounted servers, by the names they know."""
        return catalog_of(self.server)

    def install(self, guard: ToolGuard) -> None:
        """Put ``guard`` around every message, and around every app and transport it runs."""
        self._guard_messages(self, guard)
        self.server.middleware.insert(0, _MountedGuard(self, guard))
        guard_builder(self, guard, "http_app", _paths)
        self.over_stdio(guard)

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp``, for tests."""
        app: Starlette = self.server.http_app(
            "/mcp", json_response=json_response, stateless_http=True
        )
        return app


class _MountedGuard(Middleware):
    """Decides for a protected server that is mounted on another one."""

    def __init__(self, adapter: FastMCPAdapter, guard: ToolGuard) -> None:
        self._adapter = adapter
        self._guard = guard

    async def on_message(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        outer = outer_call()
        if outer is not None and outer.served is self._adapter:
            return await call_next(context)  # decided already
        # On an unprotected server there is no request state, hence no caller: refused.
        state = outer.state if outer is not None else None
        call = Call(
            self._guard,
            state,
            self._adapter.refusal_error,
            is_current=outer.is_current if outer is not None else lambda: True,
            meta=outer.meta if outer is not None else None,
        )
        call.served = self._adapter
        with serving(call):
            params = getattr(context.message, "__dict__", {})
            try:
                await admit(self._adapter, call, context.method or "", params)
            except ToolGuardError as refusal:
                raise call.refuse(refusal) from None
            return await call_next(context)


async def _component(server: Any, kind: Kind, name: str, version: VersionSpec | None) -> Any:
    if kind == "tool":
        return await server.get_tool(name, version)
    if kind == "prompt":
        return await server.get_prompt(name, version)
    found = await server.get_resource(name, version)
    return found or await server.get_resource_template(name, version)


def _requested_version(meta: object) -> VersionSpec | None:
    """Return which version of a component the client asks for, in ``_meta.fastmcp.version``.

    Raises:
        ValueError: if what it says there cannot be read.
    """
    if meta is not None and not isinstance(meta, Mapping):
        meta = meta.model_dump() if isinstance(meta, BaseModel) else None
    asked = meta.get("fastmcp") if isinstance(meta, Mapping) else None
    version = asked.get("version") if isinstance(asked, Mapping) else asked
    if version is None:
        return None
    if not isinstance(version, str):
        raise ValueError("unreadable version")  # noqa: TRY004 - of a client's message
    return VersionSpec(eq=version)


def _inner_name(found: Any, name: str) -> str:
    """Return what the mounted server calls the component."""
    original = getattr(found, "_original_name", None) or getattr(found, "_original_uri", None)
    return str(original or name)


def _paths(app: Any, *_: Any, **__: Any) -> Collection[str]:
    messages = [fastmcp.settings.message_path] if app.state.transport_type == "sse" else []
    return [app.state.path, *messages]
