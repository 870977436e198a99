"""The adapter for both lines of the official SDK: decisions in the managers' look-ups."""

from __future__ import annotations

import functools
import operator
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.operation import Operation, Revision
from toolguard.frameworks.overrides import check_overrides
from toolguard.frameworks.protocols import Prompt, Resource, ResourceTemplate, Tool
from toolguard.frameworks.serving import run
from toolguard.policies.operations import Kind

__all__ = ["SDKAdapter"]

# The methods between a message and the managers.
_METHODS = ("call_tool", "read_resource", "get_prompt")


class SDKAdapter(Adapter):
    """One server whose operations are registered with the SDK's managers."""

    def __init__(self, server: Any) -> None:
        internals.probe(server)
        super().__init__(server)
        self._tools = internals.tool_manager(server)
        self._resources = internals.resource_manager(server)
        self._prompts = internals.prompt_manager(server)
        self._get_prompt = self._prompts.get_prompt
        #: The objects that messages pass while the hooks of the guard are in place.
        self._guarded: tuple[object, ...] = ()

    def operations(self) -> Iterator[Operation]:
        """Yield tools, then resources and templates, then prompts."""
        yield from map(_tool, self._tools.list_tools())
        yield from map(_resource, self._resources.list_resources())
        yield from map(_resource, self._resources.list_templates())
        yield from map(_prompt, self._prompts.list_prompts())

    def revision(self) -> Revision:
        """Return a value that changes with the registered operations."""
        return Revision(
            (
                *self._tools.list_tools(),
                *self._resources.list_resources(),
                *self._resources.list_templates(),
                *self._prompts.list_prompts(),
            )
        )

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``; None if it is unknown."""
        del meta  # one name is one function here
        if kind == "tool":
            found = self._tools.get_tool(name)
        else:
            found = self._get_prompt(name) if kind == "prompt" else self._find_resource(name)
        return None if found is None else _DESCRIBED[kind](found)

    def find_early(self, name: str) -> Operation | None:
        """Return the tool, if only code of the SDK works on a message before its managers."""
        tool = self._tools.get_tool(name) if internals.is_plain(self.server, _METHODS) else None
        return None if tool is None else _tool(tool)

    async def find_completed(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that a completion is for, a template by its own text first."""
        templates = self._resources.list_templates() if kind == "resource" else ()
        named = next((each for each in templates if each.uri_template == name), None)
        return await self.find(kind, name, meta) if named is None else _resource(named)

    def _find_resource(self, uri: str) -> Any:
        """Return the resource or template that the manager would choose for ``uri``."""
        for resource in self._resources.list_resources():
            if str(resource.uri) == uri:
                return resource
        try:
            templates = self._resources.list_templates()
            return next((each for each in templates if self.is_match(each.matches(uri))), None)
        except ValueError:  # mcp 2.x ends its search at a template that refuses the URI
            return None

    def is_match(self, parameters: dict[str, Any] | None) -> bool:
        """Return whether the manager chooses the template that yields these parameters."""
        return parameters is not None

    def guard_managers(self) -> None:
        """Hook into the managers' look-ups: what they find is decided on, and then runs.

        Call this after the guard was installed around the messages, which must stay in place too.
        """
        check_overrides(self.server, _METHODS, "mcp")
        self._tools.call_tool = self._guarded_tools(self._tools.call_tool)
        self._resources.get_resource = self._guarded_resources(self._resources.get_resource)
        self._prompts.get_prompt = self._guarded_prompt
        self._guarded = internals.serving_parts(self.server, _METHODS)

    def _guarded_tools(self, call_tool: Callable[..., Awaitable[Any]]) -> Any:
        empty = type(self._tools)()  # has no tools, and raises the framework's error

        async def guarded(name: str, arguments: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            unknown = functools.partial(empty.call_tool, name, arguments, *args, **kwargs)
            tool = self._tools.get_tool(name)
            if tool is None:
                return await unknown()
            function = tool.fn

            async def proceed() -> Any:
                again = self._tools.get_tool(name)
                if again is not tool or again.fn is not function:  # replaced during the decision
                    return await guarded(name, arguments, *args, **kwargs)
                if getattr(tool, "resolved_params", None):
                    await self.decide_ahead(tool, arguments)
                return await call_tool(name, arguments, *args, **kwargs)

            return await run(self, _tool(tool), arguments, proceed, unknown)

        return guarded

    async def decide_ahead(self, tool: Tool, arguments: dict[str, Any]) -> None:
        """Decide on a tool before its dependencies run; the function's wrapper decides again.

        Raises:
            Exception: if the caller is refused, or the arguments are invalid.
        """
        del tool, arguments  # 1.x has no dependencies

    def _guarded_resources(self, get_resource: Callable[..., Awaitable[Any]]) -> Any:
        empty = type(self._resources)()

        async def guarded(uri: Any, *args: Any, **kwargs: Any) -> Any:
            unknown = functools.partial(empty.get_resource, uri, *args, **kwargs)
            found = self._find_resource(str(uri))
            if found is None:
                return await unknown()
            operation, sent = _resource(found), {"uri": str(uri)}
            if not hasattr(found, "matches"):  # its function runs when the resource is read
                return _Deciding(found, "read", self._running("resource", found, sent, unknown))

            async def proceed() -> Any:
                again = self._find_resource(str(uri))
                if again is not found or found.fn is not operation.function:
                    return await guarded(uri, *args, **kwargs)
                return await get_resource(uri, *args, **kwargs)

            return await run(self, operation, sent, proceed, unknown)

        return guarded

    def _guarded_prompt(self, name: str) -> Any:
        found = self._get_prompt(name)
        if found is None:
            return None

        async def unknown() -> Any:
            raise ValueError(f"Unknown prompt: {name}")  # the text of both lines

        return _Deciding(found, "render", self._running("prompt", found, None, unknown))

    def is_intact(self) -> bool:
        """Return whether messages and look-ups still pass the guard."""
        parts = internals.serving_parts(self.server, _METHODS)
        return len(parts) == len(self._guarded) and all(map(operator.is_, parts, self._guarded))

    def _running(
        self,
        kind: Kind,
        found: Any,
        sent: Mapping[str, Any] | None,
        unknown: Callable[[], Awaitable[Any]],
    ) -> Callable[..., Awaitable[Any]]:
        """Return a function that runs a found object's own method, if the caller is permitted."""

        async def running(method: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
            arguments = sent if sent is not None else (args[0] if args else None) or {}
            operation = _DESCRIBED[kind](found)

            async def proceed() -> Any:
                if getattr(found, "fn", None) is not operation.function:  # replaced in the meantime
                    return await running(method, *args, **kwargs)
                return await method(*args, **kwargs)

            return await run(self, operation, arguments, proceed, unknown)

        return running


class _Deciding:
    """A resource or prompt that was found, one method of which decides before it runs."""

    def __init__(self, found: Any, method: str, running: Callable[..., Awaitable[Any]]) -> None:
        self._found = found
        setattr(self, method, functools.partial(running, getattr(found, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._found, name)


def _tool(tool: Tool) -> Operation:
    return Operation("tool", tool.name, tool.fn, parameters=tool.parameters)


def _resource(resource: Resource | ResourceTemplate) -> Operation:
    uri = resource.uri_template if hasattr(resource, "uri_template") else resource.uri
    return Operation("resource", str(uri), getattr(resource, "fn", None))


def _prompt(prompt: Prompt) -> Operation:
    return Operation("prompt", prompt.name, prompt.fn)


_DESCRIBED: Mapping[Kind, Callable[[Any], Operation]] = {
    "tool": _tool,
    "resource": _resource,
    "prompt": _prompt,
}
