"""Descope: a tenant's connections, the options, and with whose credential they are asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from projects import APP, KEY, MCP, SLACK, Project, call, on_each_line
from vaults import NOT_CONNECTED, NOW, READ, TOKEN, WELL_KNOWN, Vault, answering, asked, provider

from toolguard import Connection, ConnectionRequest, Principal, ToolGuard, with_connection
from toolguard.descope import (
    DescopeConnections,
    TenantTokenRequest,
    TokenResponse,
    UserTokenRequest,
)
from toolguard.errors import ConnectionDeniedError, ConnectionRequiredError

TENANT_TOKEN = "/v1/mgmt/outbound/app/tenant/token"
LATEST_TENANT_TOKEN = "/v1/mgmt/outbound/app/tenant/token/latest"
LOG = "toolguard.connections"


def tenants(answer: httpx.Response) -> Vault:
    return Vault({TENANT_TOKEN: answer, LATEST_TENANT_TOKEN: answer})


def granted(**changes: Any) -> Vault:
    token = {**TOKEN, "userId": "", "tenantId": "acme", **changes}
    return tenants(httpx.Response(200, json={"token": token}))


def of_tenant(
    *scopes: str,
    user_id: str | None = "U1",
    access_token: str | None = "ey.caller",
    fresh: bool = False,
) -> ConnectionRequest:
    principal = Principal(user_id, "https://api.descope.com/v1/apps/P2abc", tenant_id="acme")
    return ConnectionRequest(
        "google-calendar", scopes, principal, access_token, tenant_id="acme", fresh=fresh
    )


def fetch(vault: Vault, request: ConnectionRequest, **settings: Any) -> Connection:
    connections = provider(transport=httpx.MockTransport(vault), **settings)

    async def once() -> Connection:
        try:
            return await connections.fetch(request)
        finally:
            await connections.aclose()

    return asyncio.run(once())


def ask(
    vault: Vault, request: UserTokenRequest | TenantTokenRequest, **settings: Any
) -> TokenResponse:
    connections = provider(transport=httpx.MockTransport(vault), **settings)

    async def once() -> TokenResponse:
        try:
            return await connections.token(request, access_token="ey.caller")
        finally:
            await connections.aclose()

    return asyncio.run(once())


# What is sent ----------------------------------------------------------------------------------


def test_a_tenants_token_is_asked_for_by_scopes() -> None:
    vault = granted()

    connection = fetch(vault, of_tenant(READ))

    assert connection.token == "ya29.third-party"
    assert vault.sent == [
        (
            TENANT_TOKEN,
            {
                "appId": "google-calendar",
                "tenantId": "acme",
                "scopes": [READ],
                "options": {"withRefreshToken": False, "forceRefresh": False},
            },
        )
    ]


def test_without_scopes_the_tenants_latest_token_is_asked_for() -> None:
    vault = granted()

    fetch(vault, of_tenant())

    assert vault.sent == [
        (
            LATEST_TENANT_TOKEN,
            {
                "appId": "google-calendar",
                "tenantId": "acme",
                "options": {"withRefreshToken": False, "forceRefresh": False},
            },
        )
    ]


@pytest.mark.parametrize("fresh", [False, True])
def test_a_fresh_connection_is_refreshed_by_the_vault(fresh: bool) -> None:
    vault = granted()

    fetch(vault, of_tenant(fresh=fresh))

    ((_, body),) = vault.sent
    assert body["options"] == {"withRefreshToken": False, "forceRefresh": fresh}


def test_refresh_tokens_are_asked_for_only_where_that_is_set() -> None:
    vault = answering(token=TOKEN)

    fetch(vault, asked(READ), with_refresh_token=True)

    ((_, body),) = vault.sent
    assert body["options"] == {"withRefreshToken": True, "forceRefresh": False}


def test_a_tenants_token_needs_no_user() -> None:
    assert fetch(granted(), of_tenant(user_id=None)).scopes == tuple(TOKEN["scopes"])


# With whose credential -------------------------------------------------------------------------


def test_the_callers_token_comes_first_for_a_tenant_as_well(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger=LOG)
    vault = granted()

    fetch(vault, of_tenant(), management_key="K2key")

    assert [sent.headers["Authorization"] for sent in vault.requests] == ["Bearer P2abc:ey.caller"]
    assert [entry for entry in caplog.records if entry.name == LOG] == []


@pytest.mark.parametrize(
    ("request_", "settings"),
    [
        (of_tenant(access_token=None), {}),
        (of_tenant(), {"management_key_for_tenants": True}),
        (of_tenant(access_token=None), {"management_key_for_tenants": True}),
    ],
)
def test_every_use_of_the_management_key_for_a_tenant_is_logged(
    request_: ConnectionRequest, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOG)
    vault = granted()

    fetch(vault, request_, management_key="K2key", **settings)

    assert [sent.headers["Authorization"] for sent in vault.requests] == ["Bearer P2abc:K2key"]
    assert [entry.getMessage() for entry in caplog.records if entry.name == LOG] == [
        "management key used for connection 'google-calendar' of tenant 'acme'"
    ]


def test_the_key_for_tenants_is_not_for_users() -> None:
    vault = answering(token=TOKEN)

    fetch(vault, asked(), management_key="K2key", management_key_for_tenants=True)

    assert vault.requests[0].headers["Authorization"] == "Bearer P2abc:ey.caller"


def test_a_key_for_tenants_that_is_missing_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="needs management_key="):
        DescopeConnections(WELL_KNOWN, management_key_for_tenants=True)


def test_what_the_policy_refuses_is_not_tried_again_with_the_key() -> None:
    vault = tenants(httpx.Response(403, json={"errorCode": "E403"}))

    with pytest.raises(ConnectionDeniedError):
        fetch(vault, of_tenant(), management_key="K2key")

    assert [sent.headers["Authorization"] for sent in vault.requests] == ["Bearer P2abc:ey.caller"]


# What is missing -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vault", "text"),
    [
        (
            tenants(NOT_CONNECTED),
            "Ask an administrator of your tenant to connect google-calendar first, then try again",
        ),
        (
            granted(scopes=[]),
            (
                "Ask an administrator of your tenant to connect google-calendar again and allow "
                "what is missing"
            ),
        ),
        (
            granted(accessTokenExpiry=str(int(NOW))),
            (
                "The access to google-calendar has expired: ask an administrator of your tenant "
                "to connect it again"
            ),
        ),
    ],
)
def test_nobody_is_sent_to_connect_their_own_account_for_a_tenant(vault: Vault, text: str) -> None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(vault, of_tenant(READ))

    assert str(caught.value) == text
    assert caught.value.connect_url is None
    assert [path for path, _ in vault.sent] == [TENANT_TOKEN]


# Tokens for whoever a request names ------------------------------------------------------------


def test_a_response_has_the_token_and_what_else_the_vault_said() -> None:
    response = ask(granted(), TenantTokenRequest(app_id="google-calendar", tenant_id="acme"))

    assert response == TokenResponse(
        token="ya29.third-party",
        expires_at=1_800_003_600,
        scopes=TOKEN["scopes"],
        metadata={
            "id": "OT1",
            "appId": "google-calendar",
            "tenantId": "acme",
            "tokenSub": "1234",
            "accessTokenType": "Bearer",
            "hasRefreshToken": True,
        },
    )


@pytest.mark.parametrize(
    ("options", "settings", "shown"),
    [
        (None, {}, None),
        ({"withRefreshToken": True}, {}, "1//refresh"),
        (None, {"with_refresh_token": True}, "1//refresh"),
        ({"withRefreshToken": False}, {"with_refresh_token": True}, None),
    ],
)
def test_a_refresh_token_comes_only_if_it_was_asked_for(
    options: Any, settings: Any, shown: str | None
) -> None:
    request = TenantTokenRequest(app_id="google-calendar", tenant_id="acme", options=options)

    response = ask(granted(refreshToken="1//refresh"), request, **settings)

    assert (response.metadata or {}).get("refreshToken") == shown
    assert "1//refresh" not in repr(response)
    assert "ya29" not in repr(response)


def test_a_users_token_may_be_asked_for_in_one_tenant() -> None:
    vault = answering(token=TOKEN)

    ask(vault, UserTokenRequest(app_id="google-calendar", user_id="U1", tenant_id="acme"))

    ((path, body),) = vault.sent
    assert path == "/v1/mgmt/outbound/app/user/token/latest"
    assert (body["userId"], body["tenantId"]) == ("U1", "acme")


# Its name for a cache --------------------------------------------------------------------------


def test_a_cache_is_shared_by_the_servers_of_one_project() -> None:
    one = DescopeConnections(WELL_KNOWN)
    other = DescopeConnections("https://api.descope.com/P2abc/.well-known/openid-configuration")
    third = DescopeConnections("https://api.descope.com/P2xyz/.well-known/openid-configuration")

    assert one.cache_namespace == other.cache_namespace == "https://api.descope.com/P2abc"
    assert third.cache_namespace == "https://api.descope.com/P2xyz"


def test_a_cache_is_not_shared_by_who_uses_the_management_key_and_who_does_not() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"management_key": "K2key"},
        {"management_key": "K2key", "management_key_for_tenants": True},
    ]
    names = [DescopeConnections(WELL_KNOWN, **each).cache_namespace for each in settings]

    assert len(set(names)) == 3
    assert "K2key" not in str(names)
    renewed = DescopeConnections(WELL_KNOWN, management_key="K2renewed")
    assert renewed.cache_namespace == names[1]


# A real vault ----------------------------------------------------------------------------------


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

    assert (answer.status, answer.body["error"]) == (403, "access_denied")
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
