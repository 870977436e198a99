"""What is the same in both lines of the official SDK?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.operation import Operation
from toolguard.policies.operations import Kind

__all__ = ["SDKAdapter"]


class SDKAdapter(Adapter):
    """One server whose operations are kept by the SDK's managers."""

    def operations(self) -> Iterator[Operation]:
        """Yield tools, then resources and templates, then prompts."""
        for tool in self.server._tool_manager.list_tools():
            yield Operation("tool", tool.name, tool.fn)
        for resource in self.server._resource_manager.list_resources():
            yield Operation("resource", str(resource.uri), getattr(resource, "fn", None))
        for template in self.server._resource_manager.list_templates():
            yield Operation("resource", template.uri_template, template.fn)
        for prompt in self.server._prompt_manager.list_prompts():
            yield Operation("prompt", prompt.name, prompt.fn)

    def registries(self) -> Iterator[dict[Any, Any]]:
        """Yield what the managers keep."""
        yield self.server._tool_manager._tools
        yield self.server._resource_manager._resources
        yield self.server._resource_manager._templates
        yield self.server._prompt_manager._prompts

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``; None if there is none."""
        del meta  # one name is one function here
        found: Any
        if kind == "tool":
            found = self.server._tool_manager.get_tool(name)
        elif kind == "prompt":
            found = self.server._prompt_manager.get_prompt(name)
        else:
            found = self._find_resource(name)
        if found is None:
            return None
        listed = getattr(found, "uri_template", name)
        schema = found.parameters if kind == "tool" else None
        return Operation(kind, listed, getattr(found, "fn", None), parameters=schema)

    def _find_resource(self, uri: str) -> Any:
        manager = self.server._resource_manager
        exact = manager._resources.get(uri)
        if exact is not None:
            return exact
        templates = manager.list_templates()
        return next((each for each in templates if each.matches(uri) is not None), None)
