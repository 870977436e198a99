"""Descope: a tenant's connections, the options, and with whose credential they are asked for."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from support.vaults import (
    NOT_CONNECTED,
    NOW,
    READ,
    TOKEN,
    WELL_KNOWN,
    Vault,
    answering,
    asked,
    provider,
)
from toolguard import Connection, ConnectionRequest, Principal
from toolguard.connections.retries import Retries
from toolguard.descope import (
    DescopeConnections,
    TenantTokenRequest,
    TokenResponse,
    UserTokenRequest,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionUnavailableError,
)

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


# Again -----------------------------------------------------------------------------------------


class Passing(Vault):
    """A vault that is away when it is asked first."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = super().__call__(request)
        return httpx.Response(503) if len(self.requests) == 1 else answer


async def at_once(_: float) -> None:
    """Wait for nothing."""


def passing() -> Passing:
    return Passing(granted().answers)


def test_a_request_without_an_answer_is_sent_again_where_that_is_set() -> None:
    vault = passing()

    connection = fetch(vault, of_tenant(), retries=Retries(sleep=at_once))

    assert connection.token == "ya29.third-party"
    assert [path for path, _ in vault.sent] == [LATEST_TENANT_TOKEN] * 2


def test_a_request_without_an_answer_is_sent_once_where_nothing_is_set() -> None:
    vault = passing()

    with pytest.raises(ConnectionUnavailableError):
        fetch(vault, of_tenant())

    assert len(vault.requests) == 1


def test_a_refresh_is_not_asked_for_twice() -> None:
    vault = passing()

    with pytest.raises(ConnectionUnavailableError):
        fetch(vault, of_tenant(fresh=True), retries=Retries(sleep=at_once))

    assert len(vault.requests) == 1


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


def test_providers_with_and_without_management_key_share_no_cache() -> None:
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
