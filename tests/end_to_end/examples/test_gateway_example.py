"""Do the files of rules work that the guide and the example of gateways show?"""

from __future__ import annotations

import importlib.util
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import anyio
import pytest

from support.gateways import command_of, gateway
from toolguard.audit import audit
from toolguard.dev.oauth.config import load_world
from toolguard.dev.services import run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.story.people import ScriptedPerson
from toolguard.gateway.configuration import read_configuration
from toolguard.gateway.gateway import Gateway
from toolguard.gateway.survey import survey
from toolguard.testing.loopback import Loopback

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "gateway"
BLOCKS = re.findall(
    r"^```toml\n(.*?)^```$", (ROOT / ".docs/proxy.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_file_of_rules_in_the_guide_is_read(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLGUARD_VAULT_KEYS", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    path = tmp_path / "rules.toml"
    path.write_text(block)

    found = read_configuration(path, {"GITHUB_CLIENT_SECRET": "s3cret"})

    assert found.guard.resource == "https://mcp.example.com/mcp"
    assert found.guard.default == "deny"


def test_the_world_of_the_example_grants_what_its_rules_ask_for() -> None:
    world = load_world(EXAMPLE / "world.toml")
    found = read_configuration(EXAMPLE / "rules.toml", {})

    asked = {
        scope
        for guard in found.rules.values()
        for scope in (guard.policy.formula.scopes if guard.policy.formula is not None else ())
    }
    assert asked == set(world.scopes)
    assert found.guard.resource in {str(each.url) for each in world.resources}
    assert found.guard.issuer == f"http://127.0.0.1:8800/{world.project_id}"


def test_every_rule_of_the_example_names_a_tool_of_the_server() -> None:
    if importlib.util.find_spec("mcp_server_time") is None:
        pytest.skip("mcp-server-time is not installed here; it requires mcp<2")
    command = [sys.executable, "-m", "mcp_server_time"]
    configuration = read_configuration(EXAMPLE / "rules.toml", {}, command=command)

    assert audit(Gateway(configuration, anyio.run(survey, configuration)).server).findings == ()


def test_a_client_signs_in_steps_up_and_is_served(tmp_path: Path) -> None:
    pytest.importorskip("aiosqlite", reason="the development server needs it")
    rules = (EXAMPLE / "rules.toml").read_text().partition("[upstream]")[0]
    names = {"get_current_time": "hour", "convert_time": "count"}
    with Loopback() as loopback, ExitStack() as stack:
        url = f"{loopback.url}/mcp"
        world = load_world(EXAMPLE / "world.toml").with_resources(url)
        services = stack.enter_context(run_services(world, stack.enter_context(Store())))
        addresses = {
            "http://127.0.0.1:8800/P2dev": services.server.issuer,
            "http://127.0.0.1:8000/mcp": url,
        }
        for name, other in {**names, **addresses}.items():
            rules = rules.replace(name, other)
        path = tmp_path / "rules.toml"
        path.write_text(f'{rules}\n[upstream]\npass_env = ["PYTHONPATH"]\n')
        loopback.start(gateway(path, command=command_of()))

        async def story() -> tuple[list[Outcome], list[str]]:
            with Callback() as callback:
                browser = Browser()
                alice = ScriptedPerson("alice@example.com", browser)
                client = MCPClient(url, auth=SignedInClient(url, alice, callback).auth)
                outcomes = [await client.call(each) for each in ("hour", "count", "count")]
                await browser.aclose()
            return outcomes, alice.visits

        outcomes, visits = anyio.run(story)

    assert [each.ok for each in outcomes] == [True, True, True]
    first, stepped_up, again = ([e.status for e in each.exchanges] for each in outcomes)
    assert 401 in first
    assert 403 in stepped_up
    assert not {401, 403} & set(again)
    assert len(visits) == 2
