"""Do the steps of the tutorial lead where it says? With its server, and a world made for it."""

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

pytest.importorskip("fastmcp", reason="the tutorial is written for fastmcp")

PAGE = (Path(__file__).parents[3] / ".docs/tutorial.md").read_text()
(SERVER,) = re.findall(
    r"^<!-- file: server\.py -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
)
CALLS = re.findall(r"^toolguard call .*$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve the tutorial's server, with its people; yield its URL."""
    with Loopback() as listener, Store() as store, pytest.MonkeyPatch.context() as patch:
        server, url = ModuleType("server"), f"{listener.url}/mcp"

        def world(origins: Origins) -> World:
            issuer = f"{origins.authorization}/P2dev"
            patch.delenv("TOOLGUARD_ISSUER", raising=False)
            where = f"{issuer}/.well-known/openid-configuration"
            patch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", where)
            patch.setenv("MCP_SERVER_URL", url)
            exec(compile(SERVER, "server.py", "exec"), vars(server))
            return fitted(builtin_world(), audit(server.mcp), issuer=issuer).world

        with run_services(world, store):
            listener.start(server.mcp.http_app())
            yield url


def called(person: str, url: str) -> int:
    """Run the call that the tutorial shows for a person; return its exit code."""
    (call,) = (each for each in CALLS if each.endswith(f" --as {person}"))
    return main(shlex.split(call.replace("http://127.0.0.1:8000/mcp", url))[1:])


def test_alice_steps_up_and_is_served(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("alice", url) == 0

    out, told = capsys.readouterr()
    assert "alice wrote 'tea'" in out
    assert [each for each in ("401", "403", "200") if f"  {each} " not in told] == []


def test_bob_is_refused_by_the_policy(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("bob", url) == 1

    assert "does not grant notes.write" in capsys.readouterr().err
