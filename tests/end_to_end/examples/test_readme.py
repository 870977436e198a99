"""Does the README's code run as it stands?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

MCPServer = pytest.importorskip(
    "mcp.server.mcpserver", reason="the README shows the official SDK 2.x"
).MCPServer

_README = Path(__file__).parents[3] / "README.md"
_BLOCKS = re.findall(r"^```python\n(.*?)^```$", _README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def namespace() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "readme", "other": MCPServer("other")}
    environ = {
        "MCP_SERVER_URL": "https://mcp.test/mcp",
        "DESCOPE_MCP_WELL_KNOWN_URL": (
            "https://api.descope.com/P2abc/.well-known/openid-configuration"
        ),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        patch.delenv("TOOLGUARD_ISSUER", raising=False)
        for number, block in enumerate(_BLOCKS):
            exec(compile(block, f"README.md, block {number}", "exec"), names)
    return names


def test_every_code_block_runs_as_it_stands(namespace: dict[str, Any]) -> None:
    assert len(_BLOCKS) == 7
    assert callable(namespace["create_event"])


def test_the_example_test_passes(namespace: dict[str, Any]) -> None:
    namespace["test_writing_needs_the_write_scope"]()
    namespace["test_my_whole_server"]()


def test_the_tool_of_the_readme_shows_no_injected_parameter(namespace: dict[str, Any]) -> None:
    tools = namespace["mcp"]._tool_manager.list_tools()

    assert [sorted(tool.parameters["properties"]) for tool in tools] == [["start", "title"]]
