"""What is the same in both lines of fastmcp?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import fastmcp
from fastmcp.exceptions import ToolError
from fastmcp.server.middleware import CallNext, Middleware, MiddlewareContext
from starlette.applications import Starlette

from toolguard.call import Call, outer_call, serving
from toolguard.errors import ToolGuardError
from toolguard.integrations.adapter import Adapter, Operation
from toolguard.integrations.apps import guard_builder

if TYPE_CHECKING:
    from toolguard.guard import ToolGuard

__all__ = ["FastMCPAdapter", "refusal_error"]


class FastMCPAdapter(Adapter):
    """One fastmcp server, with the servers mounted on it.

    Args:
        server: the ``fastmcp.FastMCP``.
        guard_messages: puts the guard around the messages of the low-level server.
    """

    def __init__(
        self, server: Any, guard_messages: Callable[[FastMCPAdapter, ToolGuard], None]
    ) -> None:
        super().__init__(server)
        self._guard_messages = guard_messages

    def operations(self) -> Iterator[Operation]:
        """Yield the tools of the server and of the servers mounted on it, by their own names."""
        for components in self._registries():
            for component in components.values():
                if component.key.startswith("tool:") and hasattr(component, "fn"):
                    yield Operation(component.name, component.fn)

    def size(self) -> int:
        """Return how many operations there are, without going through them."""
        return sum(map(len, self._registries()))

    def _registries(self) -> Iterator[Mapping[str, Any]]:
        """Yield the registries of the server and of the servers mounted on it."""
        todo = list(self.server.providers)
        while todo:
            provider = todo.pop(0)
            yield getattr(provider, "_components", {})
            todo += getattr(getattr(provider, "server", None), "providers", ())
            # A namespace or a transform wraps the provider of the mounted server.
            todo += [inner] if (inner := getattr(provider, "_inner", None)) is not None else []

    def install(self, guard: ToolGuard) -> None:
        """Put ``guard`` around every message, and around every app and transport it runs."""
        self.claim(guard)
        self._guard_messages(self, guard)
        self.server.middleware.insert(0, _MountedGuard(self, guard))
        guard_builder(self, guard, "http_app", _paths)
        self.over_stdio(guard)

    def stateless_app(self) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp`` with JSON, for tests."""
        app: Starlette = self.server.http_app("/mcp", json_response=True, stateless_http=True)
        return app

    async def undeclared(self, method: str, name: object) -> bool:
        """Return whether the operation carries no guard."""
        if method != "tools/call" or not isinstance(name, str):
            return True
        tool = await self.server.get_tool(name)
        while getattr(tool, "_server", None) is not None:  # of a mounted server
            tool = await tool._server.get_tool(tool._original_name)
        return Operation(name, getattr(tool, "fn", None)).policy is None


class _MountedGuard(Middleware):
    """Decides for a protected server that is mounted on another protected server."""

    def __init__(self, adapter: FastMCPAdapter, guard: ToolGuard) -> None:
        self._adapter = adapter
        self._guard = guard

    async def on_message(
        self, context: MiddlewareContext[Any], call_next: CallNext[Any, Any]
    ) -> Any:
        outer = outer_call()
        if outer is None or outer.guard is self._guard:
            return await call_next(context)
        with serving(Call(self._guard, outer.state, refusal_error)) as call:
            method = context.method or ""
            if await self._adapter.undeclared(method, getattr(context.message, "name", None)):
                try:
                    await call.admit_undeclared(method)
                except ToolGuardError as refusal:
                    raise call.refuse(refusal) from None
            return await call_next(context)


def refusal_error(refusal: ToolGuardError) -> Exception:
    """Return what a fastmcp tool raises to say no; a refusal is no fault worth an error log."""
    return ToolError(refusal.to_json(), log_level=logging.INFO)


def _paths(app: Any, *_: Any, **__: Any) -> Collection[str]:
    messages = [fastmcp.settings.message_path] if app.state.transport_type == "sse" else []
    return [app.state.path, *messages]
