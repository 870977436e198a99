"""What can be done with a protected server in process, where no request says who calls?"""

from __future__ import annotations

import importlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from calendar_server import calendar
from lines import Guarding, Line


@asynccontextmanager
async def _in_memory(line: Line, server: Any) -> AsyncIterator[Any]:
    """Connect the line's own in-memory client; yields what calls a tool."""
    if line.name == "mcp1":
        memory = importlib.import_module("mcp.shared.memory")
        connected = memory.create_connected_server_and_client_session(server._mcp_server)
    else:
        package: Any = importlib.import_module("mcp" if line.family == "sdk" else "fastmcp")
        connected = package.Client(server)
    async with connected as client:
        yield client.call_tool_mcp if line.family == "fastmcp" else client.call_tool


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("whoami", {}), ("list_events", {"day": "monday"}), ("weather", {"city": "oslo"})],
)
def test_a_call_that_nobody_makes_is_refused(
    line: Line, guarding: Guarding, tool: str, arguments: dict[str, str]
) -> None:
    server = guarding().protect(calendar(line))

    async def main() -> dict[str, Any]:
        async with _in_memory(line, server) as call:
            result = await call(tool, arguments)
        dumped = result.model_dump(mode="json", by_alias=True)
        assert isinstance(dumped, dict)
        return dumped

    result = anyio.run(main)
    assert result["isError"] is True
    assert json.loads(result["content"][0]["text"]) == {
        "error": "guard_not_configured",
        "error_description": "No request is being served here, so there is no caller; "
        "a task that outlives its call has none either",
    }
