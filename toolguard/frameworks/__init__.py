"""Adapt toolguard to the MCP frameworks, one file for each framework line. Private.

An adapter finds the caller of a message and the operation it calls, and reports refusals in the
form of its framework. No other folder of the package depends on a framework's classes.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from toolguard.frameworks.adapter import PROTECTED, Adapter
from toolguard.frameworks.operation import Operation

__all__ = ["Adapter", "Operation", "adapter_for", "sdk_server_class"]

# A server's class is recognised by its module, so that only its own framework is imported.
_LINES = {
    ("fastmcp.server.server", "3"): "toolguard.frameworks.fastmcp3",
    ("fastmcp.server.server", "4"): "toolguard.frameworks.fastmcp4",
    ("mcp.server.fastmcp.server", None): "toolguard.frameworks.mcp1",
    ("mcp.server.mcpserver.server", None): "toolguard.frameworks.mcp2",
    ("mcp.server.lowlevel.server", None): "toolguard.frameworks.lowlevel",
}


def adapter_for(server: object) -> Adapter:
    """Return the adapter for ``server``.

    Raises:
        TypeError: if it is not a server of a supported framework.
    """
    known = getattr(server, PROTECTED, None)
    if isinstance(known, Adapter):
        return known
    fastmcp = str(getattr(sys.modules.get("fastmcp"), "__version__", ""))
    defined_in = {each.__module__ for each in type(server).__mro__}
    for (module, major), adapter in _LINES.items():
        if module in defined_in and major in (None, fastmcp.partition(".")[0]):
            found: Adapter = importlib.import_module(adapter).adapter(server)
            return found
    raise TypeError(
        f"protect() takes an MCPServer (mcp 2), a FastMCP (mcp 1), a low-level mcp.server.Server "
        f"(either), or a FastMCP of fastmcp 3 or 4, not {type(server).__qualname__}; put any "
        "other ASGI app behind guard.asgi(app)"
    )


def sdk_server_class() -> Any:
    """Return the server class of the installed official SDK: of its line 2, else of its line 1."""
    if importlib.util.find_spec("mcp.server.mcpserver") is not None:
        return importlib.import_module("mcp.server.mcpserver").MCPServer
    return importlib.import_module("mcp.server.fastmcp").FastMCP
