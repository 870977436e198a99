"""The examples run, on the frameworks they are written for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.services import Services, run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.story.people import ScriptedPerson
from toolguard.testing.loopback import Loopback

CALENDAR = Path(__file__).parents[3] / "examples" / "calendar"
IS_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
EVENT = {
    "title": "Review",
    "start": "2030-01-07T10:00:00Z",
    "end": "2030-01-07T11:00:00Z",
}
DAY = {"time_min": "2030-01-07T00:00:00Z", "time_max": "2030-01-08T00:00:00Z"}


@pytest.fixture
def url(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Services, str]]:
    """Serve the example of that name against development servers; yield its URL."""
    with Loopback() as listener, Store() as store:
        url = f"{listener.url}/mcp"
        with run_services(builtin_world().with_resources(url), store) as on:
            monkeypatch.syspath_prepend(CALENDAR)
            monkeypatch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", on.server.well_known_url)
            monkeypatch.setenv("MCP_SERVER_URL", url)
            monkeypatch.setenv("DESCOPE_MANAGEMENT_KEY", on.management_key)
            monkeypatch.setenv("GOOGLE_API_URL", on.google_url)
            mcp = importlib.import_module(request.param).mcp
            listener.start(application(mcp))
            yield on, url
    for name in (request.param, "google_calendar"):
        del sys.modules[name]


def application(mcp: Any) -> Any:
    return mcp.http_app() if hasattr(mcp, "http_app") else mcp.streamable_http_app()


async def use_it(url: str) -> list[Outcome]:
    """Let Alice's client list, create, list and delete."""
    browser = Browser()
    person = ScriptedPerson("alice@tenant-a.example", browser)
    with Callback() as callback:
        client = MCPClient(url, auth=SignedInClient(url, person, callback).auth)
        before = await client.call("list_calendar_events", **DAY)
        made = await client.call("create_calendar_event", **EVENT)
        busy = await client.call("query_availability", **DAY)
        other = await client.call("delete_calendar_event", event_id="../../primary")
        removed = await client.call("delete_calendar_event", event_id=made.data["id"])
    await browser.aclose()
    return [before, made, busy, other, removed]


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(
            "server", marks=pytest.mark.skipif(not IS_LINE_2, reason="it is written for mcp 2")
        ),
        pytest.param(
            "server_fastmcp",
            marks=pytest.mark.skipif(
                importlib.util.find_spec("fastmcp") is None, reason="fastmcp is not installed"
            ),
        ),
    ],
    indirect=True,
)
def test_the_example_serves_a_real_client(url: tuple[Services, str]) -> None:
    on, address = url

    before, made, busy, other, removed = anyio.run(use_it, address)

    assert before.data == []
    assert made.data["summary"] == "Review"
    assert made.data["extendedProperties"] == {"private": {"createdBy": "alice"}}
    assert busy.data == [{"start": EVENT["start"], "end": EVENT["end"]}]
    assert not other.ok
    assert removed.data == "deleted"
    assert on.google.events("alice@tenant-a.example") == []
    challenges = [each.headers.get("www-authenticate", "") for each in made.exchanges]
    assert any(
        'scope="mcp:calendar.readonly outbound.token.fetch mcp:calendar.write"' in challenge
        for challenge in challenges
    )


def test_the_two_examples_differ_in_the_framework_only() -> None:
    one, other = (
        (CALENDAR / name).read_text("utf-8").splitlines()
        for name in ("server.py", "server_fastmcp.py")
    )

    different = {line.split("(")[0].strip() for line in {*one} ^ {*other}}

    assert different == {
        '"""A guarded calendar server on ``MCPServer``',
        '"""The same guarded calendar server on ``FastMCP`` of fastmcp',
        "from mcp.server.mcpserver import MCPServer",
        "from fastmcp import FastMCP",
        "mcp = MCPServer",
        "mcp = FastMCP",
        "@mcp.tool",
        "mcp.run",
    }
