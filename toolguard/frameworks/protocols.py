"""What toolguard relies on in the public API of the frameworks' servers, as protocols.

The private attributes are in :mod:`toolguard.frameworks.internals`. Where a file serves one line
only, it names the class of that line instead. What a line's own classes carry from one of its
functions to another one is Any: arguments, results, contexts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

__all__ = [
    "FastMCPServer",
    "Prompt",
    "PromptManager",
    "Resource",
    "ResourceManager",
    "ResourceTemplate",
    "Tool",
    "ToolManager",
]


class Tool(Protocol):
    """A tool of the official SDK, 1.x and 2.x."""

    name: str
    fn: Callable[..., Any]
    parameters: dict[str, Any]


class Resource(Protocol):
    """A resource of the official SDK; one that is made of a function has ``fn`` as well."""

    @property
    def uri(self) -> object:
        """Its URI: a string in 2.x, an object of pydantic in 1.x."""
        ...


class ResourceTemplate(Protocol):
    """A resource template of the official SDK."""

    uri_template: str
    fn: Callable[..., Any]

    def matches(self, uri: str) -> dict[str, Any] | None:
        """Return the parameters in a URI; None if it is not one of the template."""
        ...


class Prompt(Protocol):
    """A prompt of the official SDK."""

    name: str

    @property
    def fn(self) -> Callable[..., Any]:
        """The function that renders it."""
        ...


class ToolManager(Protocol):
    """The tools of a server of the official SDK; ``call_tool`` is replaced on the instance."""

    call_tool: Callable[..., Awaitable[Any]]

    def get_tool(self, name: str) -> Tool | None:
        """Return the tool of this name."""
        ...

    def list_tools(self) -> Sequence[Tool]:
        """Return all tools."""
        ...


class ResourceManager(Protocol):
    """The resources of a server of the official SDK; ``get_resource`` is replaced."""

    get_resource: Callable[..., Awaitable[Any]]

    def list_resources(self) -> Sequence[Resource]:
        """Return all resources."""
        ...

    def list_templates(self) -> Sequence[ResourceTemplate]:
        """Return all templates."""
        ...


class PromptManager(Protocol):
    """The prompts of a server of the official SDK; ``get_prompt`` is replaced."""

    get_prompt: Callable[[str], Any]

    def list_prompts(self) -> Sequence[Prompt]:
        """Return all prompts."""
        ...


class FastMCPServer(Protocol):
    """A server of fastmcp, 3.x and 4.x, protected or mounted."""

    providers: list[Any]
    """Where its components come from; a server is one of its own providers' kind."""
    middleware: list[Any]
    """Replaced by a list in which the guard's stays first."""

    @property
    def transforms(self) -> list[Any]:
        """The transforms of the components that it looks up; changed in place."""
        ...

    @property
    def local_provider(self) -> Any:
        """The provider of the components that are registered with the server itself."""
        ...

    async def get_tool(self, name: str, version: Any = None) -> Any:
        """Return the tool that clients call ``name``."""
        ...

    async def get_tool_by_hash(self, *address: Any) -> Any:
        """Return the tool at an address of an app."""
        ...

    async def get_resource(self, uri: str, version: Any = None) -> Any:
        """Return the resource at ``uri``."""
        ...

    async def get_resource_template(self, uri: str, version: Any = None) -> Any:
        """Return the template that matches ``uri``."""
        ...

    async def get_prompt(self, name: str, version: Any = None) -> Any:
        """Return the prompt that clients call ``name``."""
        ...

    async def get_tasks(self) -> Sequence[Any]:
        """Return the components that may run as background tasks."""
        ...

    @property
    def http_app(self) -> Callable[..., Any]:
        """The function that returns the ASGI application that serves it; replaced."""
        ...

    def add_transform(self, transform: Any) -> None:
        """Add a transform; replaced by a function that keeps the guard's one last."""
        ...
