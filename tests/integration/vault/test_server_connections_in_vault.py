"""Does a vault give connections of the server beside those of users?"""

from __future__ import annotations

from typing import Any

import pytest

from support.server_endpoints import Endpoints
from support.vault_world import World, in_world
from toolguard import requires_machine, requires_scopes
from toolguard.connections import ClientSecretBasic, Connection, ConnectionRequest
from toolguard.connections.server import APIKey, ClientCredentialsGrant, ServerConnections
from toolguard.errors import ConnectionDeniedError, ConnectionResponseError
from toolguard.principal import Principal
from toolguard.vault import Vault, github

ROBOT = Principal(None, "https://auth.test", client_id="robot", scopes=("crm.use",))
CRM = ClientCredentialsGrant("https://crm.test/token", ClientSecretBasic("mcp", "s3cret"))


def vault(world: World, endpoints: Endpoints, **settings: Any) -> Vault:
    world.transport.apps["crm.test"] = endpoints.app
    connections = {"service": world.settings["connections"]["service"], "crm": CRM}
    return world.replica(connections=connections, **settings)


async def fetch(vault: Vault, caller: Principal = ROBOT, **more: Any) -> Connection:
    return await vault.fetch(ConnectionRequest("crm", (), caller, None, **more))


def test_a_connection_of_the_server_needs_no_user_and_no_link(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        endpoints = Endpoints("https://crm.test")
        both = vault(world, endpoints)

        tokens = {(await fetch(both, who)).token for who in (ROBOT, world.request().principal)}

        assert tokens == {"token-1"}
        assert repr(both).startswith("<Vault: service, crm of the server in ")
        assert await both.list("https://auth.test", "alice") == []

    in_world(tmp_path_url, test)


def test_users_connections_are_theirs_beside_one_of_the_server(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        both = vault(world, Endpoints("https://crm.test"))
        await world.connect("alice")

        assert (await both.fetch(world.request("alice"))).token.startswith("access-")

    in_world(tmp_path_url, test)


def test_allow_holds_for_a_connection_of_the_server_too(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        endpoints = Endpoints("https://crm.test")
        strict = vault(world, endpoints, allow={"crm": requires_scopes("crm.use")})
        machines = vault(world, endpoints, allow={"crm": requires_machine})

        assert (await fetch(strict)).token
        assert (await fetch(machines)).token
        for each in (strict, machines):
            with pytest.raises(ConnectionDeniedError):
                await fetch(each, world.request("alice").principal)

    in_world(tmp_path_url, test)


def test_a_tenant_does_not_get_the_connection_of_the_server(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        with pytest.raises(ConnectionDeniedError, match="leave tenant=True out"):
            await fetch(vault(world, Endpoints("https://crm.test")), tenant_id="acme")

    in_world(tmp_path_url, test)


def test_a_name_that_the_vault_does_not_have_is_told(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        request = ConnectionRequest("other", (), ROBOT, None)
        with pytest.raises(ConnectionResponseError, match="The vault has no other"):
            await vault(world, Endpoints("https://crm.test")).fetch(request)

    in_world(tmp_path_url, test)


def test_settings_of_the_server_s_connection_are_part_of_the_namespace(tmp_path_url: str) -> None:
    keys, url = [b"k" * 32], "https://crm.test/token"
    user = github("id", "secret")
    auth = ClientSecretBasic("mcp", "s3cret")

    one, other = (
        Vault(
            tmp_path_url,
            keys=keys,
            connections={"github": user, "crm": ClientCredentialsGrant(url, auth, scopes=[scope])},
        )
        for scope in ("a", "b")
    )

    assert one.cache_namespace != other.cache_namespace
    assert "s3cret" not in one.cache_namespace


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"connections": {"key": APIKey}}, "'key' is not an OAuthProvider"),
        ({"connections": {"key": ServerConnections({"a": CRM})}}, "'key' is not an OAuthProvider"),
        (
            {"connections": {"crm": CRM}, "tenant_connectors": {"crm": requires_machine}},
            "'crm' belongs to the server",
        ),
    ],
)
def test_a_wrong_connection_is_refused(settings: Any, told: str, tmp_path_url: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Vault(tmp_path_url, keys=[b"k" * 32], **settings)
