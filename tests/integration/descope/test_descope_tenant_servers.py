"""Descope: does a tool get the connection of its caller's tenant, on every framework line?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.projects import APP, KEY, MCP, SLACK, Project, call, on_each_line
from toolguard import Connection, ConnectionRequest, Principal, ToolGuard, with_connection
from toolguard.descope import DescopeConnections


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with Project.served() as served:
        yield served


@pytest.fixture
def served(project: Project) -> Project:
    project.asked.clear()
    return project


def slack_server(project: Project, make: Callable[[str], Any], **settings: Any) -> Any:
    server = make("slack")

    @server.tool()  # type: ignore[untyped-decorator]
    @with_connection(SLACK, scopes=["chat:write"], tenant=True, as_="workspace")
    async def workspace(tenant_id: str = "", *, workspace: Connection) -> str:
        return workspace.token

    guard = ToolGuard(
        verifier=project.issuer.verifier(),
        issuer=project.issuer.issuer,
        resource=MCP,
        connections=DescopeConnections(project.well_known_url, **settings),
    )
    return guard.protect(server)


@on_each_line
def test_a_tool_gets_the_connection_of_the_tenant_that_the_token_names(
    served: Project, make: Callable[[str], Any]
) -> None:
    server = slack_server(served, make)
    alice, bob = served.token("alice", dct="acme"), served.token("bob", dct="globex")

    assert call(server, "workspace", token=alice).text == "xoxb.acme"
    assert call(server, "workspace", token=bob).text == "xoxb.globex"
    assert served.asked == [
        ("tenant/token", f"Bearer Plocal:{alice}"),
        ("tenant/token", f"Bearer Plocal:{bob}"),
    ]


@on_each_line
def test_a_tenant_that_a_client_names_counts_for_nothing(
    served: Project, make: Callable[[str], Any]
) -> None:
    server = slack_server(served, make, management_key=KEY, management_key_for_tenants=True)
    token = served.token("alice", dct="acme")

    assert call(server, "workspace", {"tenant_id": "globex"}, token=token).text == "xoxb.acme"


@on_each_line
def test_a_token_without_a_tenant_gets_no_tenants_connection(
    served: Project, make: Callable[[str], Any]
) -> None:
    server = slack_server(served, make, management_key=KEY, management_key_for_tenants=True)

    answer = call(server, "workspace", token=served.token("alice"))

    assert (answer.ok, answer.error) == (False, "access_denied")
    assert served.asked == []


def test_the_vault_makes_a_fresh_token_where_it_is_asked_to(served: Project) -> None:
    connections = DescopeConnections(served.well_known_url)
    principal = Principal("dave", served.issuer.issuer)
    request = ConnectionRequest(APP, (), principal, served.token("dave"), fresh=True)

    async def once() -> Connection:
        try:
            return await connections.fetch(request)
        finally:
            await connections.aclose()

    assert asyncio.run(once()).token == "ya29.dave.fresh"
