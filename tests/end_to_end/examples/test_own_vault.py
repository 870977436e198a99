"""The example with a vault of its own: from no connection to one's issues, and no further."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from toolguard.dev.oauth.config import load_world
from toolguard.dev.services import Services, run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser, Page
from toolguard.dev.story.mcp_client import MCPClient, Outcome
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.story.people import ScriptedPerson
from toolguard.testing.loopback import Loopback

pytest.importorskip("fastmcp", reason="the example is written for fastmcp")
pytest.importorskip("sqlalchemy", reason="the vault needs it")
pytest.importorskip("aiosqlite", reason="the vault of the example needs it")

EXAMPLE = Path(__file__).parents[3] / "examples" / "own_vault"
ALICE, BOB = "alice@example.com", "bob@example.com"


@dataclass(frozen=True)
class Running:
    """The servers of the example, each on a port of its own."""

    url: str
    services: Services


def load(name: str) -> Any:
    """Run a file of the example as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"own_vault_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Where tools look up what their annotations name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def register(services: Services, redirect_uri: str) -> str:
    """Register the vault as the README does; return its client id."""
    metadata = {
        "client_name": "The vault of the issues server",
        "redirect_uris": [redirect_uri],
        "token_endpoint_auth_method": "none",
    }
    with httpx.Client(trust_env=False) as client:
        answer = client.post(f"{services.server.issuer}/register", json=metadata)
    client_id: str = answer.raise_for_status().json()["client_id"]
    return client_id


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Running]:
    """Serve the example as its README says."""
    with ExitStack() as stack:
        mcp, github = (stack.enter_context(Loopback()) for _ in range(2))
        url = f"{mcp.url}/mcp"
        world = load_world(EXAMPLE / "world.toml").with_resources(url)
        services = stack.enter_context(run_services(world, stack.enter_context(Store())))
        environ = {
            "TOOLGUARD_ISSUER": services.server.issuer,
            "MCP_SERVER_URL": url,
            "TOOLGUARD_VAULT_KEYS": "a2V5LWtleS1rZXkta2V5LWtleS1rZXkta2V5LWtleSE=",
            "VAULT_DATABASE": f"sqlite:///{tmp_path}/vault.db",
            "SIGN_IN_CLIENT_ID": register(services, f"{mcp.url}/connections/signed-in"),
            "GITHUB_URL": github.url,
            "GITHUB_CLIENT_ID": "imitation",
            "GITHUB_CLIENT_SECRET": "imitation-secret",
            "GITHUB_CALLBACK": f"{mcp.url}/connections/callback/github",
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        for name in ("DESCOPE_MCP_WELL_KNOWN_URL", "TOOLGUARD_AUDIENCE", "TOOLGUARD_VAULT"):
            monkeypatch.delenv(name, raising=False)
        github.start(load("github").app)
        mcp.start(load("server").mcp.http_app())
        yield Running(url, services)
    for name in ("github", "server"):
        del sys.modules[f"own_vault_{name}"]


class Human:
    """A person with an MCP client and a browser, signed in at the development server."""

    def __init__(self, running: Running, email: str, callback: Callback) -> None:
        self.browser = Browser()
        self._person = ScriptedPerson(email, self.browser)
        signed_in = SignedInClient(running.url, self._person, callback)
        self._client = MCPClient(running.url, auth=signed_in.auth)

    async def list_issues(self) -> Outcome:
        return await self._client.call("list_issues")

    async def my_account(self) -> Outcome:
        return await self._client.call("my_account")

    async def open(self, link: str) -> Page:
        """Open a connect link, and go through the sign-in of the vault; return what it leads to."""
        page = await self.browser.open(link)
        if page.heading.startswith("Allow"):  # the browser is signed in, and has not consented
            page = await self.browser.press(page, "Allow")
        return page

    async def connect(self, link: str, account: str) -> Page:
        page = await self.open(link)
        page = await self.browser.follow(page, "Continue to GitHub")
        return await self.browser.press(page, f"Authorize as {account}")


def test_the_example_lists_the_issues_of_a_caller_who_connects(running: Running) -> None:
    async def story() -> tuple[Outcome, Page, Outcome]:
        with Callback() as callback:
            alice = Human(running, ALICE, callback)
            before = await alice.list_issues()
            assert before.connect_url is not None
            page = await alice.connect(before.connect_url, "octo-alice")
            after = await alice.list_issues()
            await alice.browser.aclose()
        return before, page, after

    before, page, after = anyio.run(story)

    assert not before.ok
    assert page.heading == "You can close this window"
    assert f"GitHub (octo-alice) is connected for {ALICE}." in page.paragraphs
    assert [issue["title"] for issue in after.data] == [
        "The kettle is too loud",
        "Write more examples",
    ]


def test_the_example_steps_up_for_the_second_tool(running: Running) -> None:
    async def story() -> Outcome:
        with Callback() as callback:
            alice = Human(running, ALICE, callback)
            before = await alice.list_issues()
            assert before.connect_url is not None
            await alice.connect(before.connect_url, "octo-alice")
            outcome = await alice.my_account()
            await alice.browser.aclose()
        return outcome

    outcome = anyio.run(story)

    refused = [each for each in outcome.exchanges if each.status == 403]
    assert len(refused) == 1
    assert 'profile.read"' in refused[0].headers["www-authenticate"]
    assert (outcome.ok, outcome.data) == (True, "octo-alice")


def test_the_example_refuses_another_person_at_the_link(running: Running) -> None:
    async def story() -> tuple[Page, Outcome, Outcome]:
        with Callback() as callback:
            alice = Human(running, ALICE, callback)
            before = await alice.list_issues()
            assert before.connect_url is not None
        with Callback() as callback:
            bob = Human(running, BOB, callback)
            of_bob = await bob.list_issues()
            page = await bob.open(before.connect_url)
            after = await alice.list_issues()
            await alice.browser.aclose()
            await bob.browser.aclose()
        return page, of_bob, after

    page, of_bob, after = anyio.run(story)

    assert page.status == 403
    assert any("This link is for another person" in each for each in page.paragraphs)
    assert not of_bob.ok
    assert not after.ok
    assert after.connect_url is not None


def test_the_example_gives_each_caller_their_own_issues(running: Running) -> None:
    async def issues_of(email: str, account: str) -> list[str]:
        with Callback() as callback:
            human = Human(running, email, callback)
            before = await human.list_issues()
            assert before.connect_url is not None
            await human.connect(before.connect_url, account)
            outcome = await human.list_issues()
            await human.browser.aclose()
        return [issue["title"] for issue in outcome.data]

    assert len(anyio.run(issues_of, ALICE, "octo-alice")) == 2
    assert anyio.run(issues_of, BOB, "octo-bob") == ["The fridge hums"]


def test_the_imitation_answers_refusals_as_github_does(running: Running) -> None:
    github = load("github")
    form = {"client_id": "imitation", "client_secret": "imitation-secret", "code": "made-up"}
    with Loopback(github.app) as served, httpx.Client(base_url=served.url) as client:
        wrong_code = client.post("/login/oauth/access_token", data=form)
        wrong_secret = client.post(
            "/login/oauth/access_token", data={**form, "client_secret": "made-up"}
        )
        elsewhere = client.get(
            "/login/oauth/authorize",
            params={"client_id": "imitation", "redirect_uri": "https://evil.example/"},
        )
        stranger = client.get("/issues", headers={"authorization": "Bearer made-up"})

    assert (wrong_code.status_code, wrong_code.json()["error"]) == (200, "bad_verification_code")
    assert wrong_secret.json()["error"] == "incorrect_client_credentials"
    assert elsewhere.headers["location"].startswith(github.CALLBACK)
    assert (stranger.status_code, stranger.json()["message"]) == (401, "Bad credentials")
