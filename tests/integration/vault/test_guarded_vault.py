"""Does a protected server serve the pages of its vault, and its tools the tokens?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.client_keys import private_key
from support.vault_world import ISSUER, ORIGIN, World, follow, in_world
from toolguard import ToolGuard, requires_scopes, with_connection
from toolguard.cli import main
from toolguard.errors import ConnectionRequiredError
from toolguard.telemetry import DecisionRecord, Records
from toolguard.testing import LocalIssuer
from toolguard.vault import Vault
from toolguard.vault.from_file import vault_from_file

FILE = """
database = "sqlite:///{folder}/vault.db"
[sign_in]
client_id = "mcp-server"
[connections.code]
provider = "github"
client_id = "Iv1"
client_secret_env = "GITHUB_SECRET"
scopes = ["read:user"]
"""
OF_SERVER = """
[connections.crm]
provider = "client_credentials"
token_endpoint = "https://crm.test/token"
client_id = "mcp"
client_secret_env = "CRM_SECRET"
scopes = ["read"]
[connections.ci]
provider = "github_installation"
app_id = "Iv23li"
private_key_env = "APP_KEY"
installation_id = 7
[connections.drive]
provider = "service_account"
key_env = "GOOGLE_KEY"
"""
ENVIRONMENT = {"TOOLGUARD_ISSUER": ISSUER, "MCP_SERVER_URL": f"{ORIGIN}/mcp"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TOOLGUARD_VAULT_KEYS", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    monkeypatch.setenv("GITHUB_SECRET", "s3cret")
    path = tmp_path / "vault.toml"
    path.write_text(FILE.format(folder=tmp_path))
    return path


def server() -> Any:
    fastmcp = pytest.importorskip("fastmcp")
    return fastmcp.FastMCP("calendar")


def test_a_protected_server_serves_the_connect_pages(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        mcp = server()

        @mcp.tool  # type: ignore[untyped-decorator]
        @with_connection("service")
        async def count(*, connection_token: str) -> int:
            return len(connection_token)

        vault = world.replica(public_url=None)
        guard = ToolGuard(issuer=ISSUER, audience=f"{ORIGIN}/mcp", connections=vault)
        guard.protect(mcp)
        assert vault.pages_url == f"{ORIGIN}/connections"
        world.transport.apps["127.0.0.1"] = mcp.http_app()
        async with world.browser() as browser:
            page = await follow(browser, await world.link("alice"))
        await vault.aclose()

        assert "You can close this window" in page.text
        assert (await world.fetch("alice")).token

    in_world(tmp_path_url, test)


def test_the_environment_names_the_file_of_a_vault(file: Path) -> None:
    guard = ToolGuard.from_env({**ENVIRONMENT, "TOOLGUARD_VAULT": str(file), "GITHUB_SECRET": "x"})

    assert isinstance(guard._vault, Vault)
    assert [*guard._vault.clients] == ["code"]
    assert guard._vault.clients["code"].provider.title == "GitHub"


def test_the_file_describes_connections_of_the_server_too(file: Path) -> None:
    rsa = private_key("RS256")
    pem = rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    key = {"type": "service_account", "client_email": "r@p", "private_key_id": "k"}
    environ = {"GITHUB_SECRET": "x", "CRM_SECRET": "y", "APP_KEY": pem}
    environ["GOOGLE_KEY"] = json.dumps({**key, "private_key": pem})
    file.write_text(file.read_text() + OF_SERVER)

    vault = vault_from_file(file, environ)

    assert "code, crm of the server, ci of the server, drive of the server in" in repr(vault)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (('provider = "github"', 'provider = "gitlab"'), "no provider 'gitlab'"),
        (('client_id = "Iv1"', ""), "missing: client_id"),
        (("client_secret_env =", "client_secret ="), "must not hold a secret"),
        (("GITHUB_SECRET", "NOWHERE"), "has no NOWHERE"),
        (("[sign_in]", "[signin]"), "nothing is called signin"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    file: Path, change: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text().replace(*change))

    assert main(["vault", "upgrade", "--file", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_what_happens_to_a_grant_is_on_record(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        records: list[DecisionRecord] = []
        guard = ToolGuard(
            issuer=ISSUER,
            audience=f"{ORIGIN}/mcp",
            connections=world.vault,
            clock=world.clock,
            on_decision=records.append,
        )
        await world.connect("alice")
        world.now += 3_590
        connection = await world.fetch("alice")
        await world.connect("bob")
        await world.vault.disconnect(ISSUER, "alice", "service")
        await world.vault.disconnect(ISSUER, "alice", "service")
        await world.vault.forget(ISSUER, "bob")

        assert guard.recorder.flush()
        assert [(each.verdict, each.subject) for each in records] == [
            ("connected", "alice"),
            ("refreshed", "alice"),
            ("connected", "bob"),
            ("disconnected", "alice"),
            ("disconnected", "bob"),
        ]
        assert {each.connections for each in records} == {("service",)}
        assert {(each.issuer, each.server) for each in records} == {(ISSUER, f"{ORIGIN}/mcp")}
        assert str(records[0]) == f"connected service for alice of {ISSUER}"
        for each in records:
            assert connection.token not in each.to_json()
            assert "refresh-" not in each.to_json()

    in_world(tmp_path_url, test)


def test_a_grant_of_a_tenant_is_on_record_with_its_connector(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        records: list[DecisionRecord] = []
        guard = ToolGuard(
            issuer=ISSUER,
            audience=f"{ORIGIN}/mcp",
            connections=world.vault,
            clock=world.clock,
            on_decision=Records(records.append, subjects="hashed"),
        )
        tenant = {"tenant_id": "acme"}
        await world.connect("alice", **tenant)
        world.now += 3_590
        await world.fetch("bob", **tenant)

        assert guard.recorder.flush()
        connected, refreshed = records
        assert (connected.verdict, connected.tenant) == ("connected", "acme")
        assert connected.subject == guard.recorder.name_of(ISSUER, "alice") != "alice"
        assert (refreshed.verdict, refreshed.tenant, refreshed.subject) == (
            "refreshed",
            "acme",
            None,
        )

    in_world(tmp_path_url, test, tenant_connectors={"service": requires_scopes("mcp:use")})


def test_refreshes_of_a_vault_are_counted_by_their_outcome(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect("alice")
        world.now += 3_590
        await world.fetch("alice")
        world.now += 3_590
        world.service.refresh_tokens.clear()
        with pytest.raises(ConnectionRequiredError):
            await world.fetch("alice")

        counted = [(each.name, dict(each.attributes), each.value) for each in world.vault.figures()]
        about = ("connections.refreshes", "service")
        assert counted == [
            (about[0], {"connection": about[1], "outcome": outcome}, 1)
            for outcome in ("success", "connection_required")
        ]

    in_world(tmp_path_url, test)


def test_a_server_is_not_ready_before_its_vault_is(tmp_path: Path) -> None:
    async def test(world: World) -> None:
        folder = tmp_path / "absent"
        vault = world.replica()
        guard = ToolGuard(issuer=ISSUER, audience=f"{ORIGIN}/mcp", connections=vault)
        guard.verifier = LocalIssuer(ISSUER).verifier()
        missing = (await guard.ready()).missing
        assert missing == {"connections": "ConnectionUnavailableError"}

        folder.mkdir()
        assert await guard.ready()

    in_world(f"sqlite:///{tmp_path}/absent/vault.db", test)
