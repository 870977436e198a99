"""Do the steps of the tutorial lead where it says? With its files, and people who are scripted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import anyio
import pytest

from toolguard.dev.oauth.config import parse_world
from toolguard.dev.services import run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.story.people import ScriptedPerson
from toolguard.testing.loopback import Loopback

pytest.importorskip("fastmcp", reason="the tutorial is written for fastmcp")

PAGE = (Path(__file__).parents[3] / ".docs/tutorial.md").read_text()
FILES = dict(
    re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the tutorial's server, with its people; yield its URL."""
    with Loopback() as listener, Store() as store, pytest.MonkeyPatch.context() as patch:
        url = f"{listener.url}/mcp"
        with run_services(parse_world(FILES["people.toml"]).with_resources(url), store) as on:
            patch.delenv("DESCOPE_MCP_WELL_KNOWN_URL", raising=False)
            patch.setenv("TOOLGUARD_ISSUER", on.server.issuer)
            patch.setenv("MCP_SERVER_URL", url)
            server = ModuleType("server")
            exec(compile(FILES["server.py"], "server.py", "exec"), vars(server))
            listener.start(server.mcp.http_app())
            yield url


def call_both(url: str, email: str) -> list[Outcome]:
    """Let a person's client read notes, and write one."""

    async def both() -> list[Outcome]:
        browser = Browser()
        with Callback() as callback:
            signed_in = SignedInClient(url, ScriptedPerson(email, browser), callback)
            client = MCPClient(url, auth=signed_in.auth)
            read = await client.call("list_notes")
            wrote = await client.call("add_note", text="tea")
        await browser.aclose()
        return [read, wrote]

    return anyio.run(both)


def test_alice_reads_and_steps_up_to_write(url: str) -> None:
    read, wrote = call_both(url, "alice@example.com")

    assert read.data == ["a note of alice"]
    assert wrote.data == "alice wrote 'tea'"
    assert 403 in [each.status for each in wrote.exchanges]


def test_bob_reads_and_cannot_step_up(url: str) -> None:
    read, wrote = call_both(url, "bob@example.com")

    assert read.data == ["a note of bob"]
    assert not wrote.ok
