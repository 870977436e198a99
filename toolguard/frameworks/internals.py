"""The private attributes of the frameworks that toolguard relies on, each in one function.

Nothing else in the package touches one. :func:`probe` runs when a server is protected and says
which fact of which version is gone, instead of an ``AttributeError`` in the middle of a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

__all__ = [
    "components_of",
    "custom_routes",
    "guarding_class",
    "injected_tools",
    "inner_provider",
    "list_untransformed",
    "lowlevel_server",
    "mounted",
    "probe",
    "probe_fastmcp",
    "prompt_manager",
    "resource_manager",
    "serve_by",
    "serving_parts",
    "tool_manager",
]

_MANAGERS = {
    "_tool_manager": ("get_tool", "list_tools", "call_tool"),
    "_resource_manager": ("get_resource", "list_resources", "list_templates"),
    "_prompt_manager": ("get_prompt", "list_prompts"),
}


def probe(server: Any) -> None:
    """Make sure that a server of the SDK has what toolguard relies on.

    Raises:
        RuntimeError: naming what is gone, and in which version.
    """
    facts = {attribute: getattr(server, attribute, None) for attribute in _MANAGERS}
    gone = [
        f"{attribute}.{method}"
        for attribute, manager in facts.items()
        for method in _MANAGERS[attribute]
        if not callable(getattr(manager, method, None))
    ]
    if lowlevel_server(server) is server:
        gone.append("_lowlevel_server")
    if custom_routes(server) is None:
        gone.append("_custom_starlette_routes")
    if gone:
        raise RuntimeError(
            f"mcp {_installed('mcp')} has no {', '.join(gone)} on {type(server).__name__}, which "
            "toolguard stands in: nothing would be guarded. Use a release that toolguard knows"
        )


def _installed(distribution: str) -> str:
    from importlib.metadata import version  # noqa: PLC0415 - slow, and for an error only

    return version(distribution)


def tool_manager(server: Any) -> Any:
    """Return what an SDK server looks tools up in."""
    return server._tool_manager


def resource_manager(server: Any) -> Any:
    """Return what an SDK server looks resources and templates up in."""
    return server._resource_manager


def prompt_manager(server: Any) -> Any:
    """Return what an SDK server looks prompts up in."""
    return server._prompt_manager


def lowlevel_server(server: Any) -> Any:
    """Return the low-level server of an SDK server (``FastMCP`` of 1.x, ``MCPServer`` of 2.x)."""
    return getattr(server, "_lowlevel_server", None) or getattr(server, "_mcp_server", server)


def serving_parts(server: Any) -> tuple[object, ...]:
    """Return what a message to an SDK server passes, each an object that may be replaced."""
    tools, resources = server._tool_manager, server._resource_manager
    prompts, lowlevel = server._prompt_manager, lowlevel_server(server)
    chain = getattr(lowlevel, "middleware", None)
    return (
        *(tools, tools.call_tool, resources, resources.get_resource, prompts, prompts.get_prompt),
        *(lowlevel, lowlevel.request_handlers if chain is None else chain),
    )


def custom_routes(server: Any) -> list[Any] | None:
    """Return the routes that a server serves beside its endpoint; None if it cannot have any."""
    of_fastmcp = getattr(server, "_get_additional_http_routes", None)
    if of_fastmcp is not None:
        return list(of_fastmcp())
    return getattr(server, "_custom_starlette_routes", None)


def serve_by(server: Any, manager: Any) -> Any:
    """Have a ``FastMCP`` of 1.x build its next application around ``manager``; return the last."""
    kept, server._session_manager = server._session_manager, manager
    return kept


# --- fastmcp

# What the servers of fastmcp call on a component, then what that calls in turn.
_ENTRIES = ("_run", "run", "_read", "read", "create_resource", "_render", "render")
_ORIGINALS = ("_original_name", "_original_uri", "_original_uri_template")

Around = Callable[[Any, str, Callable[[], Awaitable[Any]], tuple[Any, ...]], Awaitable[Any]]
"""Runs an entry of a component: given it, the entry's name, what runs it, and its arguments."""


def probe_fastmcp(server: Any, mounts: tuple[type[Any], ...], injects: type[Any]) -> None:
    """Make sure that a server of fastmcp has what toolguard relies on.

    Args:
        server: the server.
        mounts: the classes of the components of mounted servers.
        injects: the class of the middleware that injects tools.

    Raises:
        RuntimeError: naming what is gone, and in which version.
    """
    needed = ("_mcp_server", "_get_additional_http_routes")
    gone = [name for name in needed if not hasattr(server, name)]
    if not hasattr(server.local_provider, "_components"):
        gone.append("local_provider._components")
    for each in mounts:
        private = getattr(each, "__private_attributes__", {})
        if "_server" not in private or not any(name in private for name in _ORIGINALS):
            gone.append(f"{each.__name__}._server")
    if not hasattr(injects([]), "_tools_to_inject_by_name"):
        gone.append(f"{injects.__name__}._tools_to_inject_by_name")
    if gone:
        raise RuntimeError(
            f"fastmcp {_installed('fastmcp')} has no {', '.join(gone)}, which toolguard relies on: "
            "rules by name would not apply. Use a release that toolguard knows"
        )


def mounted(component: Any) -> tuple[Any, str] | None:
    """Return the mounted server that a component of fastmcp is of, and its name there.

    None for a component that is not of a mounted server.
    """
    # Asked of the class: pydantic takes long to say that an object has no such attribute.
    has_server = "_server" in getattr(type(component), "__private_attributes__", ())
    server = getattr(component, "_server", None) if has_server else None
    if server is None:
        return None
    names = (getattr(component, name, None) for name in _ORIGINALS)
    return server, str(next(name for name in names if name is not None))


def inner_provider(provider: Any) -> Any:
    """Return the provider that a namespace or a transform wraps; None if it wraps none."""
    return getattr(provider, "_inner", None)


def components_of(provider: Any) -> dict[str, Any]:
    """Return the components that are registered with a provider itself, by their keys."""
    found: dict[str, Any] = getattr(provider, "_components", {})
    return found


def list_untransformed(provider: Any, many: str) -> Callable[[], Awaitable[list[Any]]]:
    """Return what lists the components of a provider before its transforms."""
    listing: Callable[[], Awaitable[list[Any]]] = getattr(provider, f"_list_{many}")
    return listing


def injected_tools(middleware: Any) -> dict[str, Any]:
    """Return the table of tools that a middleware injects, for its entries to be replaced."""
    table: dict[str, Any] = middleware._tools_to_inject_by_name
    return table


def guarding_class(cls: type[Any], around: Around) -> type[Any]:
    """Return a subclass of a component's class whose entries run inside of ``around``."""
    entries = {name: _entry(cls, name, around) for name in _ENTRIES if hasattr(cls, name)}
    metaclass: Any = type(cls)
    made: type[Any] = metaclass(cls.__name__, (cls,), {"__module__": cls.__module__, **entries})
    return made


def _entry(cls: type[Any], name: str, around: Around) -> Callable[..., Awaitable[Any]]:
    async def entry(component: Any, *args: Any, **kwargs: Any) -> Any:
        proceed = partial(getattr(cls, name), component, *args, **kwargs)
        return await around(component, name, proceed, (*args, *kwargs.values()))

    return entry
