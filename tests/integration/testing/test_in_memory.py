"""What can be done with a protected server in process, where no request says who calls?"""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from support.calendar_server import calendar
from support.lines import Guarding, Line


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("whoami", {}), ("list_events", {"day": "monday"}), ("weather", {"city": "oslo"})],
)
def test_a_call_that_nobody_makes_is_refused(
    line: Line, guarding: Guarding, tool: str, arguments: dict[str, str]
) -> None:
    server = guarding().protect(calendar(line))

    async def main() -> dict[str, Any]:
        async with line.in_memory(server) as call:
            result = await call(tool, arguments)
        dumped = result.model_dump(mode="json", by_alias=True)
        assert isinstance(dumped, dict)
        return dumped

    result = anyio.run(main)
    assert result["isError"] is True
    said = json.loads(result["content"][0]["text"])
    assert said["error"] == "guard_not_configured"
    assert "toolguard.testing.signed_in" in said["error_description"]
