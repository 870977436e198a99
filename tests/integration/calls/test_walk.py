"""How far does one plain call walk through the package?"""

from __future__ import annotations

import asyncio
import sys
from itertools import pairwise
from pathlib import Path
from types import FrameType

import httpx
import pytest

import toolguard
from benchmarks.arms import LINES, SCOPE, Trust, app
from toolguard.testing import LocalIssuer

_PACKAGE = Path(toolguard.__file__).parent
_AUDIENCE = "http://127.0.0.1:8000/mcp"
_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"text": "hello"}},
}
# Functions entered, and changes from one file to another, for a token that was seen before.
_BUDGETS = {"mcp1": (81, 35), "mcp2": (75, 35), "fastmcp3": (121, 61), "fastmcp4": (114, 59)}


class _Walk:
    """Which functions of the package have been entered; a coroutine that goes on counts once."""

    def __init__(self) -> None:
        self.entered: list[str] = []
        self._seen: list[FrameType] = []  # kept, so that no frame gets the place of another
        self._ids: set[int] = set()

    def note(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        path = Path(code.co_filename)
        if event != "call" or _PACKAGE not in path.parents or id(frame) in self._ids:
            return
        self._ids.add(id(frame))
        self._seen.append(frame)
        if not code.co_name.startswith("<"):
            self.entered.append(str(path.relative_to(_PACKAGE)))

    @property
    def functions(self) -> int:
        return len(self.entered)

    @property
    def changes_of_file(self) -> int:
        return sum(one != other for one, other in pairwise(self.entered))


async def _walked(line: str) -> _Walk:
    issuer = LocalIssuer(audience=_AUDIENCE)
    trust = Trust(issuer.issuer, issuer.audience, issuer.algorithm, issuer.jwks()["keys"][0])
    served = app(line, "toolguard", "JSON", trust, 2)
    headers = {
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {issuer.mint('alice', scopes=[SCOPE])}",
    }
    transport = httpx.ASGITransport(served)
    async with (
        served.router.lifespan_context(served),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        for walk in (_Walk(), _Walk()):
            sys.setprofile(walk.note)
            try:
                response = await client.post("/mcp", headers=headers, json=_CALL)
            finally:
                sys.setprofile(None)
            assert response.status_code == 200, response.text
    return walk


@pytest.mark.parametrize("line", LINES)
def test_a_plain_call_enters_few_functions(line: str) -> None:
    walk = asyncio.run(_walked(line))

    functions, changes = _BUDGETS[line]
    assert walk.functions <= functions
    assert walk.changes_of_file <= changes
