"""The private attributes of the frameworks that toolguard relies on, each in one function.

Nothing else in the package touches one. :func:`probe` runs when a server is protected and says
which fact of which version is gone, instead of an ``AttributeError`` in the middle of a request.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

__all__ = [
    "lowlevel_server",
    "probe",
    "prompt_manager",
    "resource_manager",
    "serve_by",
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
    if _lowlevel_name(server) is None:
        gone.append("_lowlevel_server")
    if gone:
        raise RuntimeError(
            f"mcp {version('mcp')} has no {', '.join(gone)} on {type(server).__name__}, which "
            "toolguard stands in: nothing would be guarded. Use a release that toolguard knows"
        )


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
    name = _lowlevel_name(server)
    return getattr(server, name) if name is not None else server


def _lowlevel_name(server: Any) -> str | None:
    names = ("_lowlevel_server", "_mcp_server")
    return next((name for name in names if hasattr(server, name)), None)


def serve_by(server: Any, manager: Any) -> Any:
    """Have a ``FastMCP`` of 1.x build its next application around ``manager``; return the last."""
    kept, server._session_manager = server._session_manager, manager
    return kept
