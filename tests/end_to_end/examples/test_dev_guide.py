"""Does the page about `toolguard dev` show what its commands do? With its server, made to fit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from toolguard.audit import audit
from toolguard.cli import main
from toolguard.dev.fitting import fitted
from toolguard.dev.oauth.config import World, builtin_world
from toolguard.dev.services import Origins, run_services
from toolguard.dev.store import Store
from toolguard.testing.loopback import Loopback

pytest.importorskip("mcp.server.mcpserver", reason="the page shows the official SDK 2.x")

PAGE = (Path(__file__).parents[3] / ".docs/dev.md").read_text()
ISSUER, ORIGIN = "http://127.0.0.1:8800", "http://127.0.0.1:8000"
BLOCK = r"```{}\n(.*?)^```$"


def shown(language: str, about: str) -> str:
    """Return the block of a language that has some text in it."""
    found = re.findall(BLOCK.format(language), PAGE, re.DOTALL | re.MULTILINE)
    (block,) = (str(each) for each in found if about in each)
    return block


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """Serve the page's server with a world for it; yield where that is, by the page's origins."""
    with Loopback() as listener, Store() as store, pytest.MonkeyPatch.context() as patch:
        server = ModuleType("server")

        def world(origins: Origins) -> World:
            issuer = f"{origins.authorization}/P2dev"
            patch.delenv("TOOLGUARD_ISSUER", raising=False)
            well_known_url = f"{issuer}/.well-known/openid-configuration"
            patch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", well_known_url)
            patch.setenv("MCP_SERVER_URL", f"{listener.url}/mcp")
            exec(compile(shown("python", "MCPServer"), "server.py", "exec"), vars(server))
            return fitted(builtin_world(), audit(server.mcp), issuer=issuer).world

        with run_services(world, store) as on:
            listener.start(server.mcp.streamable_http_app())
            yield {ORIGIN: listener.url, ISSUER: on.server.origin}


def run(command: str, places: dict[str, str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Run a command of the page; return the streams as the page shows them."""
    for written, here in places.items():
        command = command.replace(written, here)
    program, *arguments = shlex.split(command)
    assert (program, main(arguments)) == ("toolguard", 0)
    texts = [*capsys.readouterr()]
    for written, here in places.items():
        texts = [text.replace(here, written) for text in texts]
    return texts


def test_the_call_is_told_as_the_page_shows_it(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    out, told = run(shown("sh", "toolguard call"), places, capsys)

    assert told == shown("text", "POST")
    assert "alice wrote 'tea'" in out


def test_the_token_is_printed_alone(
    places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"{shown('sh', 'toolguard token').strip()} --issuer {ISSUER}"

    out, told = run(command, places, capsys)

    assert re.fullmatch(r"eyJ[\w.-]+\n", out)
    assert "notes.read notes.write" in told
    assert told.endswith(", 300 seconds\n")
