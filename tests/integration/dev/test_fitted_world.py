"""A world made for a server: its connections are connected, its scopes stepped up to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.gateways import AUDIENCE, command_of, write_rules
from support.lines import LINES
from toolguard import ToolGuard, requires_scopes, with_connection
from toolguard.audit import audit
from toolguard.cli import main
from toolguard.cli.targets import load_target
from toolguard.descope import DescopeConnections
from toolguard.dev.fitting import fitted, read_server
from toolguard.dev.oauth.config import World, builtin_world
from toolguard.dev.services import Origins, run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser
from toolguard.testing.loopback import Loopback

ALICE = "alice@tenant-a.example"
ISSUER = "http://127.0.0.1:8800/P2dev"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Return the URL of a protected server, beside development servers of a world for it."""
    server = LINES[0].server("notes")

    @server.tool()
    @requires_scopes("notes.write")
    @with_connection("git hub", scopes=["repo", "read:user"])
    async def push_note(*, connection_token: str) -> str:
        return f"pushed with {len(connection_token)}"

    with ExitStack() as running:
        listener = running.enter_context(Loopback())
        url = f"{listener.url}/mcp"

        def world(origins: Origins) -> World:
            issuer = f"{origins.authorization}/P2dev"
            well_known_url = f"{issuer}/.well-known/openid-configuration"
            connections = DescopeConnections(well_known_url)
            guard = ToolGuard(
                well_known_url=well_known_url, audience=url, connections=connections
            ).protect(server)
            return fitted(builtin_world(), audit(guard), issuer=issuer).world

        store = running.enter_context(Store())
        running.enter_context(run_services(world, store))
        listener.start(LINES[0].http_app(server))
        yield url


def test_a_call_leads_to_the_link_and_then_to_the_answer(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = main(["call", url, "push_note", "--as", "alice"])
    told = capsys.readouterr().err
    link = re.search(r"an account has to be connected first: open (\S+)", told)
    assert link is not None
    asyncio.run(connect(link[1]))
    after = main(["call", url, "push_note", "--as", "alice"])

    assert (before, after) == (1, 0)
    assert "pushed with" in capsys.readouterr().out


async def connect(link: str) -> None:
    """Sign in as Alice, and connect the account behind a link."""
    browser = Browser()
    try:
        page = await browser.press(await browser.open(link), "Continue", email=ALICE)
        page = await browser.press(page, "Sign in as")
        page = await browser.follow(page, "Continue to Git hub")
        assert page.paragraphs[0].startswith("This is not Google")
        page = await browser.press(page, "Allow")
        assert page.paragraphs[0] == f"Git hub is connected for {ALICE}."
    finally:
        await browser.aclose()


def test_a_world_fits_a_file_of_rules(tmp_path: Path) -> None:
    paths = f'{{ PYTHONPATH = "{os.pathsep.join(sys.path)}" }}'
    rules = write_rules(tmp_path, ISSUER, command=json.dumps(command_of()), env=paths)

    made = fitted(builtin_world(), read_server(str(rules), {}, load_target), issuer=ISSUER).world

    assert made.scopes["time.read"] == "Use hour"
    assert made.resources[0].url == AUDIENCE
