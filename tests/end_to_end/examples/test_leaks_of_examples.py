"""Do the examples keep the tokens of their callers to themselves?"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.testing import Loopback, assert_no_leaks

CALENDAR = Path(__file__).parents[3] / "examples" / "calendar"
NEEDS = {"server": "mcp.server.mcpserver", "server_fastmcp": "fastmcp"}


async def _google(request: Request) -> Response:
    """Answer as an empty calendar does, to everybody who sends a token."""
    assert request.headers["authorization"].startswith("Bearer ")
    if request.method == "DELETE":
        return Response(status_code=204)
    return JSONResponse({"items": [], "calendars": {"primary": {"busy": []}}})


@pytest.fixture
def calendar(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The example of that name, before a stand-in for Google."""
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", _google, methods=methods)])
    with Loopback(app) as google:
        monkeypatch.syspath_prepend(CALENDAR)
        monkeypatch.setenv("GOOGLE_API_URL", google.url)
        monkeypatch.setenv("MCP_SERVER_URL", "https://mcp.test/mcp")
        well_known = "https://issuer.test/P1/.well-known/openid-configuration"
        monkeypatch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", well_known)
        yield importlib.import_module(request.param).mcp
    for name in (request.param, "google_calendar"):
        del sys.modules[name]


@pytest.mark.parametrize(
    "calendar",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(
                importlib.util.find_spec(framework) is None, reason=f"there is no {framework}"
            ),
        )
        for name, framework in NEEDS.items()
    ],
    indirect=True,
)
def test_the_calendar_leaks_nothing(calendar: Any) -> None:
    report = assert_no_leaks(calendar)

    assert set(report.ran) == {
        "list_calendar_events",
        "query_availability",
        "create_calendar_event",
        "delete_calendar_event",
    }
    assert (report.failed, report.refused) == ({}, {})
