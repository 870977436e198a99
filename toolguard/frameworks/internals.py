"""The private attributes of the frameworks that toolguard relies on, each in one function.

No other module uses one. :func:`probe` runs when a server is protected and reports which attribute
is missing in which version, instead of an ``AttributeError`` in the middle of a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from toolguard.frameworks.protocols import (
    FastMCPServer,
    PromptManager,
    ResourceManager,
    ToolManager,
)

__all__ = [
    "components_of",
    "custom_routes",
    "extension_of",
    "guarding_class",
    "injected_tools",
    "inner_provider",
    "is_plain",
    "list_untransformed",
    "lowlevel_server",
    "message_table",
    "mounted",
    "next_request_id",
    "probe",
    "probe_fastmcp",
    "prompt_manager",
    "resource_manager",
    "serve_by",
    "serving_parts",
    "token_verifier",
    "tool_manager",
]

_MANAGERS = {
    "_tool_manager": ("get_tool", "list_tools", "call_tool"),
    "_resource_manager": ("get_resource", "list_resources", "list_templates"),
    "_prompt_manager": ("get_prompt", "list_prompts"),
}


def probe(server: object) -> None:
    """Check that a server of the SDK has the private attributes that toolguard uses.

    Raises:
        RuntimeError: naming the missing attribute, and the version.
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
    kept = ["_token_verifier"]
    if not hasattr(server, "_lowlevel_server"):  # 1.x
        kept.append("_session_manager")
    gone += [name for name in kept if not hasattr(server, name)]
    if custom_routes(server) is None:
        gone.append("_custom_starlette_routes")
    if gone:
        raise RuntimeError(
            f"mcp {_version('mcp')} has no {', '.join(gone)} on {type(server).__name__}, which "
            "toolguard has to replace: nothing would be guarded. Use a release that toolguard knows"
        )


def tool_manager(server: Any) -> ToolManager:
    """Return the tool manager of an SDK server."""
    found: ToolManager = server._tool_manager
    return found


def resource_manager(server: Any) -> ResourceManager:
    """Return the resource manager of an SDK server."""
    found: ResourceManager = server._resource_manager
    return found


def prompt_manager(server: Any) -> PromptManager:
    """Return the prompt manager of an SDK server."""
    found: PromptManager = server._prompt_manager
    return found


def lowlevel_server(server: object) -> Any:
    """Return the low-level server of an SDK server (``FastMCP`` of 1.x, ``MCPServer`` of 2.x)."""
    return getattr(server, "_lowlevel_server", None) or getattr(server, "_mcp_server", server)


def next_request_id(session: object) -> int | None:
    """Return the id that a ``ClientSession`` will give its next request.

    None on 2.x, whose session cancels a request by itself when its task is cancelled.
    """
    found = getattr(session, "_request_id", None)
    return found if isinstance(found, int) else None


def serving_parts(server: Any, methods: Sequence[str]) -> tuple[object, ...]:
    """Return the objects that a message to an SDK server passes, each of which can be replaced.

    Args:
        server: the server.
        methods: its methods between a message and the managers.
    """
    # Read for each message: without the functions above.
    tools, resources = server._tool_manager, server._resource_manager
    prompts = server._prompt_manager
    return (
        *(tools, tools.call_tool, resources, resources.get_resource, prompts, prompts.get_prompt),
        *(message_table(server), type(server)),
        *map(vars(server).get, methods),
    )


def is_plain(server: object, methods: Sequence[str]) -> bool:
    """Return whether a message to an SDK server passes only code of the SDK before its managers.

    Args:
        server: the server.
        methods: its methods between a message and the managers.
    """
    own = [getattr(server, name) for name in methods]
    for each in (*lowlevel_server(server).middleware, *own):
        module = str(getattr(each, "__module__", ""))
        if module.partition(".")[0] != "mcp":
            return False
    return True


def message_table(server: object) -> object:
    """Return what all messages to a server pass: its table of handlers, or chain of middleware."""
    lowlevel = lowlevel_server(server)
    chain = getattr(lowlevel, "middleware", None)
    return lowlevel.request_handlers if chain is None else chain


def custom_routes(server: object) -> list[Any] | None:
    """Return the custom routes of a server; None if it cannot have any."""
    of_fastmcp = getattr(server, "_get_additional_http_routes", None)
    if of_fastmcp is not None:
        return list(of_fastmcp())
    return getattr(server, "_custom_starlette_routes", None)


def token_verifier(server: object) -> Any:
    """Return what verifies tokens for an SDK server; None if nothing does."""
    return getattr(server, "_token_verifier", None)


def serve_by(server: Any, manager: Any) -> Any:
    """Have a ``FastMCP`` of 1.x build its next application around ``manager``; return the last."""
    kept, server._session_manager = server._session_manager, manager
    return kept


# --- fastmcp

# The methods that fastmcp's servers call on a component, then those which these call.
_ENTRIES = ("_run", "run", "_read", "read", "create_resource", "_render", "render")
_LISTINGS = ("_list_tools", "_list_resources", "_list_resource_templates", "_list_prompts")
_ORIGINALS = ("_original_name", "_original_uri", "_original_uri_template")

Around = Callable[[Any, str, Callable[[], Awaitable[Any]], tuple[Any, ...]], Awaitable[Any]]
"""Runs an entry of a component; takes it, the entry's name, its function and its arguments."""


def probe_fastmcp(
    server: FastMCPServer, mounts: tuple[type[Any], ...], injects: type[Any], wrapped: Any
) -> None:
    """Make sure that a server of fastmcp has what toolguard relies on.

    Args:
        server: the server.
        mounts: the classes of the components of mounted servers.
        injects: the class of the middleware that injects tools.
        wrapped: a provider that wraps another one.

    Raises:
        RuntimeError: naming the missing attribute, and the version.
    """
    needed = ("_mcp_server", "_get_additional_http_routes")
    gone = [name for name in needed if not hasattr(server, name)]
    if hasattr(server, "add_extension") and not hasattr(server, "_extensions"):  # 4.x
        gone.append("_extensions")
    local = server.local_provider
    kept = ("_components", *_LISTINGS)
    gone += [f"local_provider.{name}" for name in kept if not hasattr(local, name)]
    if not hasattr(wrapped, "_inner"):
        gone.append(f"{type(wrapped).__name__}._inner")
    for each in mounts:
        private = getattr(each, "__private_attributes__", {})
        if "_server" not in private or not any(name in private for name in _ORIGINALS):
            gone.append(f"{each.__name__}._server")
    if not hasattr(injects([]), "_tools_to_inject_by_name"):
        gone.append(f"{injects.__name__}._tools_to_inject_by_name")
    if gone:
        raise RuntimeError(
            f"fastmcp {_version('fastmcp')} has no {', '.join(gone)}, which toolguard relies on: "
            "rules by name would not apply. Use a release that toolguard knows"
        )


def mounted(component: Any) -> tuple[Any, str] | None:
    """Return the mounted server that a component of fastmcp belongs to, and its name there.

    None for a component that does not belong to a mounted server.
    """
    # Looked up in the class: pydantic is slow to report that an object lacks an attribute.
    has_server = "_server" in getattr(type(component), "__private_attributes__", ())
    server = getattr(component, "_server", None) if has_server else None
    if server is None:
        return None
    names = (getattr(component, name, None) for name in _ORIGINALS)
    return server, str(next(name for name in names if name is not None))


def inner_provider(provider: Any) -> Any:
    """Return the provider inside a namespace or a transform; None if there is none."""
    return getattr(provider, "_inner", None)


def components_of(provider: Any) -> dict[str, Any]:
    """Return the components that are registered with a provider itself, by their keys."""
    found: dict[str, Any] = getattr(provider, "_components", {})
    return found


def list_untransformed(provider: Any, many: str) -> Callable[[], Awaitable[list[Any]]]:
    """Return the function that lists the components of a provider before its transforms."""
    listing: Callable[[], Awaitable[list[Any]]] = getattr(provider, f"_list_{many}")
    return listing


def injected_tools(middleware: Any) -> dict[str, Any]:
    """Return the table of tools that a middleware injects, for its entries to be replaced."""
    table: dict[str, Any] = middleware._tools_to_inject_by_name
    return table


def extension_of(server: object, identifier: str) -> Any:
    """Return the extension of a server of 4.x with this identifier; None if there is none."""
    return getattr(server, "_extensions", {}).get(identifier)


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


def _version(package: str) -> str:
    """Return the installed version of a package."""
    from importlib.metadata import version  # noqa: PLC0415 - imports the email package

    return version(package)
