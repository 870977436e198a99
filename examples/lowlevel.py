"""A guarded server on the SDK's low-level ``Server`` (mcp 2.x), whose handlers know names only.

Run it: ``python lowlevel.py`` with TOOLGUARD_ISSUER and MCP_SERVER_URL set.
"""

from __future__ import annotations

from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server

from toolguard import ToolGuard, current_principal, public, requires_scopes


async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
    """List the tools: a tool that is neither listed nor named by a rule is refused."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    names = ("forecast", "warn_everybody", "about")
    return types.ListToolsResult(
        tools=[types.Tool(name=name, input_schema=schema) for name in names]
    )


async def call_tool(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Run a tool; the guard has decided on the call before."""
    if params.name == "about":
        text = "the weather of everywhere"
    else:
        text = f"{params.name} for {current_principal().user_id}"
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


server = Server("weather", on_list_tools=list_tools, on_call_tool=call_tool)
guard = ToolGuard.from_env()
guard.protect(
    server,
    rules={
        "forecast": requires_scopes("weather.read"),
        "warn_*": requires_scopes("weather.warn"),
        "about": public,
    },
)

if __name__ == "__main__":
    uvicorn.run(server.streamable_http_app(), port=8000)
