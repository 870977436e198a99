"""What is the same in both lines of fastmcp?"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import fastmcp
from fastmcp.exceptions import ResourceError, ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from fastmcp.utilities.versions import VersionSpec
from pydantic import BaseModel
from starlette.applications import Starlette

from toolguard.calls.context import Call
from toolguard.calls.current import outer_call, serving
from toolguard.errors import AccessDeniedError, ToolGuardError
from toolguard.frameworks.adapter import PROTECTED, Adapter
from toolguard.frameworks.admission import admit, operations_of
from toolguard.frameworks.apps import guard_builder
from toolguard.frameworks.fastmcp_catalog import catalog_of
from toolguard.frameworks.operation import Catalog, Operation
from toolguard.policies.operations import Kind
from toolguard.policies.published import LISTS

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["FastMCPAdapter"]

_log = logging.getLogger("toolguard")

# fastmcp.server.providers.addressing: how the user interface of an app calls its tools.
_ADDRESS = re.compile("([0-9a-f]{12})_(.+)", re.DOTALL)
# Transforms of fastmcp whose tools call tools, or read resources, that the client names.
_BY_NAME = frozenset(("CatalogTransform", "ResourcesAsTools", "PromptsAsTools"))
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
        version = _requested_version(meta)
        server, listed = self.server, None
        while True:
            found = await _component(server, kind, name, version)
            if found is None and kind == "tool":
                found = await _by_hash(server, name)
            if listed is None:
                listed = _listed_name(found, kind, name)
            while getattr(found, "parent_tool", None) is not None:  # a transformed tool
                found = found.parent_tool
            if getattr(found, "_server", None) is None:
                return Operation(kind, listed, getattr(found, "fn", None))
            server = found._server
            name = _inner_name(found, name)

    async def visible(self, call: Call, method: str, result: Any) -> Any:
        """Return the answer to ``call``; of a list, what its caller may see."""
        return await self._lists.visible(call, method, result) if method in LISTS else result

    def look_up(self) -> Catalog:
        """Return what clients can call, also on mounted servers, by the names they know."""
        return catalog_of(self.server)

    def report_rules(self) -> None:
        """Log the rules that match nothing, and who calls what they are about behind their back."""
        super().report_rules()
        for server, transform in self._calling_by_name() if self.rules.policies else ():
            _log.warning(
                "%s on %r calls by the names of that server, and the rules of %r are not asked: "
                "add it to %r instead, or protect %r as well",
                *(type(transform).__name__, server, self.server, self.server, server),
            )

    def _calling_by_name(self) -> Iterator[tuple[Any, Any]]:
        """Yield the mounted servers that nobody protects, and what calls their tools by name."""
        todo = list(self.server.providers)
        while todo:
            provider = todo.pop(0)
            todo += [inner] if (inner := getattr(provider, "_inner", None)) is not None else []
            server = getattr(provider, "server", None)
            todo += getattr(server, "providers", ())
            if server is not None and not hasattr(server, PROTECTED):
                for transform in server.transforms:
                    if _BY_NAME.intersection(each.__name__ for each in type(transform).__mro__):
                        yield server, transform

    def install(self, guard: ToolGuard) -> None:
        """Put ``guard`` around every message, and around every app and transport it runs."""
        self._guard_messages(self, guard)
        self.server.middleware.insert(0, _ServerGuard(self, guard))
        guard_builder(self, guard, "http_app", _paths)
        self.over_stdio(guard)

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp``, for tests."""
        app: Starlette = self.server.http_app(
            "/mcp", json_response=json_response, stateless_http=True
        )
        return app


class _ServerGuard(Middleware):
    """Decides on what is asked of a server inside of a message.

    By a server that it is mounted on; by a tool of its own that calls others by name, as those of
    fastmcp's transforms do: the name is one that a client sent.
    """

    def __init__(self, adapter: FastMCPAdapter, guard: ToolGuard) -> None:
        self._adapter = adapter
        self._guard = guard

    async def on_message(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        outer = outer_call()
        method, params = context.method or "", getattr(context.message, "__dict__", {})
        if outer is not None and outer.served is self._adapter and _is_about(outer, method, params):
            outer.served = None  # decided already; what comes after this is another message
            return await call_next(context)
        # On an unprotected server there is no request state, hence no caller: refused.
        state = outer.state if outer is not None else None
        call = Call(
            self._guard,
            state,
            self._adapter.refusal_error,
            is_current=outer.is_current if outer is not None else lambda: True,
            meta=params.get("meta"),
        )
        with serving(call):
            try:
                await admit(self._adapter, call, method, params)
            except ToolGuardError as refusal:
                raise call.refuse(refusal) from None
            result = await call_next(context)
            ended_in = call.settle(failed=False)
            if ended_in is not None:
                raise self._adapter.refusal_error(ended_in)
            return await self._adapter.visible(call, method, result)


async def _component(server: Any, kind: Kind, name: str, version: VersionSpec | None) -> Any:
    if kind == "tool":
        return await server.get_tool(name, version)
    if kind == "prompt":
        return await server.get_prompt(name, version)
    found = await server.get_resource(name, version)
    return found or await server.get_resource_template(name, version)


async def _by_hash(server: Any, name: str) -> Any:
    """Return the tool of an app that ``name`` is the address of, however it is listed."""
    match = _ADDRESS.fullmatch(name)
    look_up = getattr(server, "get_tool_by_hash", None)  # since 3.4
    return await look_up(match[1], match[2]) if match and look_up is not None else None


def _listed_name(found: Any, kind: Kind, name: str) -> str:
    if kind == "tool":  # which may have been asked for by its address
        return str(getattr(found, "name", name))
    return str(getattr(found, "uri_template", name))


def _is_about(call: Call, method: str, params: Mapping[str, Any]) -> bool:
    """Return whether a message is the one that ``call`` has admitted."""
    admitted = [] if call.operation is None else [call.operation]
    asked = list(operations_of(method, params))
    return [(a.kind, a.name) for a in asked] == [(a.kind, a.name) for a in admitted]


def _requested_version(meta: object) -> VersionSpec | None:
    """Return which version of a component the client asks for, in ``_meta.fastmcp.version``.

    Raises:
        AccessDeniedError: if that cannot be read. The framework takes the latest version then, and
            what is decided on has to be what is called.
    """
    if isinstance(meta, BaseModel):
        meta = meta.model_dump()
    for member in ("fastmcp", "version"):
        if meta is None:
            return None
        if not isinstance(meta, Mapping):
            raise AccessDeniedError("_meta.fastmcp.version must be a version, or be left out")
        meta = meta.get(member)
    if meta is None:
        return None
    if not isinstance(meta, str) or not meta:
        raise AccessDeniedError("_meta.fastmcp.version must be a version, or be left out")
    return VersionSpec(eq=meta)


def _inner_name(found: Any, name: str) -> str:
    """Return what the mounted server calls the component."""
    original = getattr(found, "_original_name", None) or getattr(found, "_original_uri", None)
    return str(original or name)


def _paths(app: Any, *_: Any, **__: Any) -> Collection[str]:
    messages = [fastmcp.settings.message_path] if app.state.transport_type == "sse" else []
    return [app.state.path, *messages]
