"""Token exchange with well-known servers: exactly what each is sent, and what its answers mean."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.client_keys import private_key
from support.token_endpoint import GOOD, TokenEndpoint, asked, fetch, giving, refusing
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.client_auth import ClientSecretPost, PrivateKeyJWT, PublicClient
from toolguard.connections.exchange.settings import ExchangeSettings
from toolguard.connections.exchange.vendors import (
    auth0_token_vault,
    connect_url_from,
    entra_on_behalf_of,
    google_sts,
    keycloak,
    keycloak_brokered,
    keycloak_external,
    okta,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
GRAPH_READ = "https://graph.microsoft.com/Calendars.Read"


async def kept_refresh_token(request: ConnectionRequest) -> str | None:
    return "v1.refresh"


def sent(exchange: ExchangeSettings, *scopes: str, **settings: Any) -> dict[str, str | list[str]]:
    """Return the parameters that the server is sent, whatever it makes of them."""
    endpoint = refusing("access_denied")
    with pytest.raises(ConnectionDeniedError):
        fetch(endpoint, asked(*scopes), exchange, **settings)
    return endpoint.form


def given(answer: dict[str, Any], exchange: ExchangeSettings, *scopes: str) -> Connection:
    return fetch(TokenEndpoint(httpx.Response(200, json=answer)), asked(*scopes), exchange)


def refused(
    endpoint: TokenEndpoint, exchange: ExchangeSettings, *scopes: str, **settings: Any
) -> ConnectionTokenError:
    with pytest.raises(ConnectionTokenError) as caught:
        fetch(endpoint, asked(*scopes), exchange, **settings)
    return caught.value


# What is sent ----------------------------------------------------------------------------------


def test_keycloak_is_asked_for_an_access_token_for_its_clients() -> None:
    assert sent(keycloak("calendar-api", "contacts-api"), "read") == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "audience": ["calendar-api", "contacts-api"],
        "scope": "read",
    }


def test_keycloak_is_asked_for_the_token_of_a_brokered_identity_provider() -> None:
    assert sent(keycloak_brokered("google")) == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": ACCESS_TOKEN,
        "requested_token_type": ACCESS_TOKEN,
        "requested_issuer": "google",
    }


def test_keycloak_is_shown_a_token_of_another_issuer() -> None:
    jwt_type = "urn:ietf:params:oauth:token-type:jwt"
    exchange = keycloak_external("partner", audience="calendar-api", subject_token_type=jwt_type)

    assert sent(exchange) == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": jwt_type,
        "requested_token_type": ACCESS_TOKEN,
        "audience": "calendar-api",
        "subject_issuer": "partner",
    }
    assert "audience" not in sent(keycloak_external("partner"))


def test_okta_is_asked_for_an_audience_with_scopes() -> None:
    assert sent(okta("api://calendar"), "calendar:read", "calendar:write") == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": ACCESS_TOKEN,
        "audience": "api://calendar",
        "scope": "calendar:read calendar:write",
    }


def test_auth0_is_asked_for_a_connection_and_no_scopes() -> None:
    assert sent(auth0_token_vault("google-oauth2"), "https://www.googleapis.com/auth/calendar") == {
        "grant_type": (
            "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
        ),
        "subject_token": "ey.caller",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": (
            "http://auth0.com/oauth/token-type/federated-connection-access-token"
        ),
        "connection": "google-oauth2",
    }


def test_auth0_may_be_shown_a_refresh_token() -> None:
    form = sent(auth0_token_vault("google-oauth2", refresh_token=kept_refresh_token))

    assert form["subject_token"] == "v1.refresh"
    assert form["subject_token_type"] == "urn:ietf:params:oauth:token-type:refresh_token"
    assert "ey.caller" not in str(form)


def test_entra_is_shown_an_assertion() -> None:
    auth = ClientSecretPost("6731de76-14a6", "s3cret")

    assert sent(entra_on_behalf_of(), GRAPH_READ, "offline_access", client_auth=auth) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": "ey.caller",
        "requested_token_use": "on_behalf_of",
        "scope": "https://graph.microsoft.com/Calendars.Read offline_access",
        "client_id": "6731de76-14a6",
        "client_secret": "s3cret",
    }


def test_entra_is_asked_for_something_even_where_the_tool_names_nothing() -> None:
    exchange = entra_on_behalf_of("https://graph.microsoft.com/.default")

    assert sent(exchange)["scope"] == "https://graph.microsoft.com/.default"
    assert sent(exchange, GRAPH_READ)["scope"] == GRAPH_READ


def test_a_signed_assertion_of_the_client_stands_beside_that_of_the_user() -> None:
    auth = PrivateKeyJWT("6731de76-14a6", private_key(), key_id="k1")

    form = sent(entra_on_behalf_of(), GRAPH_READ, client_auth=auth)

    assert form["assertion"] == "ey.caller"
    assert form["client_assertion"] != "ey.caller"
    assert form["client_assertion_type"] == (
        "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    )


# What the answers mean -------------------------------------------------------------------------


def test_keycloaks_answer_for_its_own_clients_is_the_standards() -> None:
    answer = {**GOOD, "refresh_expires_in": 0, "not-before-policy": 0, "scope": "read profile"}

    assert given(answer, keycloak("calendar-api"), "read").scopes == ("read", "profile")
    assert isinstance(
        refused(giving(issued_token_type=None), keycloak("calendar-api")), ConnectionResponseError
    )


def test_keycloaks_answer_with_a_brokered_token_leaves_out_what_it_does_not_know() -> None:
    answer = {
        "access_token": "ya29.google",
        "expires_in": 0,
        "refresh_expires_in": 0,
        "not-before-policy": 0,
        "issued_token_type": ACCESS_TOKEN,
        "account-link-url": "https://sso.example.com/realms/acme/broker/google/link?nonce=1",
    }

    assert given(answer, keycloak_brokered("google")) == Connection("ya29.google")
    with pytest.raises(ConnectionResponseError, match="without scopes="):
        given(answer, keycloak_brokered("google"), "calendar")


@pytest.mark.parametrize("code", ["not_linked", "token_expired"])
def test_who_has_not_linked_the_account_at_keycloak_is_told_where(code: str) -> None:
    link = "https://sso.example.com/realms/acme/broker/google/link?nonce=1&hash=x&client_id=mcp"
    members: dict[str, Any] = {"account-link-url": link}
    endpoint = refusing(code, **members)
    connect_url = connect_url_from("account-link-url", redirect_uri="https://app.example.com/a?b=c")

    error = refused(endpoint, keycloak_brokered("google"), connect_url=connect_url)

    assert isinstance(error, ConnectionRequiredError)
    assert error.connect_url == f"{link}&redirect_uri=https%3A%2F%2Fapp.example.com%2Fa%3Fb%3Dc"


@pytest.mark.parametrize(
    ("url", "parameters", "connect_url"),
    [
        ("https://a.example/link", {}, "https://a.example/link"),
        ("https://a.example/link", {"x": "1"}, "https://a.example/link?x=1"),
        ("https://a.example/link?y=2#z", {"x": "1"}, "https://a.example/link?y=2&x=1#z"),
        ("https://a.example/link?y=2#z", {}, "https://a.example/link?y=2#z"),
        ("http://a.example/link", {"x": "1"}, None),
        ("javascript:alert(1)//", {"x": "1"}, None),
        ("https://[", {"x": "1"}, None),
        (None, {"x": "1"}, None),
        (["https://a.example/link"], {}, None),
        (5, {"x": "1"}, None),
    ],
)
def test_a_refusals_connect_url_is_passed_on_only_if_secure(
    url: object, parameters: dict[str, str], connect_url: str | None
) -> None:
    endpoint = refusing("interaction_required", connect_url=url)
    settings = {"connect_url": connect_url_from("connect_url", **parameters)}

    error = refused(endpoint, okta("api://calendar"), **settings)

    assert isinstance(error, ConnectionRequiredError)
    assert error.connect_url == connect_url


def test_okta_does_not_accept_a_callers_token_that_no_connecting_would_mend() -> None:
    endpoint = refusing("invalid_grant", error_description="subject token is invalid")

    assert isinstance(refused(endpoint, okta("api://calendar")), ConnectionDeniedError)


def test_auth0s_answer_is_held_against_the_scopes_of_the_tool() -> None:
    read = "https://www.googleapis.com/auth/calendar.readonly"
    answer = {
        "access_token": "ya29.google",
        "scope": f"openid {read}",
        "expires_in": 3377,
        "issued_token_type": "http://auth0.com/oauth/token-type/federated-connection-access-token",
        "token_type": "Bearer",
    }
    vault = auth0_token_vault("google-oauth2")

    assert given(answer, vault, read).expires_at == 1_800_003_377.0
    with pytest.raises(ConnectionRequiredError) as caught:
        given(answer, vault, read, "https://www.googleapis.com/auth/calendar")
    assert caught.value.missing_scopes == ("https://www.googleapis.com/auth/calendar",)
    with pytest.raises(ConnectionResponseError):
        given({**answer, "issued_token_type": ACCESS_TOKEN}, vault, read)


@pytest.mark.parametrize(
    "code",
    [
        "federated_connection_refresh_token_not_found",
        "federated_connection_refresh_token_flow_failed",
    ],
)
def test_who_has_not_connected_the_account_at_auth0_has_to(code: str) -> None:
    error = refused(refusing(code, 401), auth0_token_vault("google-oauth2"))

    assert isinstance(error, ConnectionRequiredError)


def entra_answer(scope: str) -> dict[str, Any]:
    return {
        "token_type": "Bearer",
        "scope": scope,
        "expires_in": 3269,
        "ext_expires_in": 0,
        "access_token": "ey.graph",
    }


@pytest.mark.parametrize(
    ("granted", "asked_for", "missing"),
    [
        ("https://graph.microsoft.com/Calendars.Read", GRAPH_READ, ()),
        ("Calendars.Read profile openid email", GRAPH_READ, ()),
        ("https://graph.microsoft.com/calendars.read", "Calendars.Read", ()),
        ("Calendars.Read", "https://graph.microsoft.com/.default", ()),
        ("Calendars.Read", "offline_access", ()),
        ("Calendars.ReadWrite User.Read", GRAPH_READ, (GRAPH_READ,)),
        ("", GRAPH_READ, (GRAPH_READ,)),
    ],
)
def test_entra_writes_scopes_in_several_ways(
    granted: str, asked_for: str, missing: tuple[str, ...]
) -> None:
    endpoint = TokenEndpoint(httpx.Response(200, json=entra_answer(granted)))

    if not missing:
        assert fetch(endpoint, asked(asked_for), entra_on_behalf_of()).token == "ey.graph"
        return
    error = refused(endpoint, entra_on_behalf_of(), asked_for)
    assert isinstance(error, ConnectionRequiredError)
    assert error.missing_scopes == missing


@pytest.mark.parametrize(
    ("code", "members"),
    [
        ("interaction_required", {"error_codes": [50079], "claims": '{"access_token":{}}'}),
        ("invalid_grant", {"error_codes": [65001], "suberror": "consent_required"}),
        ("consent_required", {}),
    ],
)
def test_who_has_to_consent_at_entra_is_asked_to(code: str, members: dict[str, Any]) -> None:
    link = "https://login.microsoftonline.com/acme/oauth2/v2.0/authorize?client_id=1"

    error = refused(
        refusing(code, **members), entra_on_behalf_of(), GRAPH_READ, connect_url=lambda *_: link
    )

    assert isinstance(error, ConnectionRequiredError)
    assert error.connect_url == link


# Misuse ----------------------------------------------------------------------------------------


def test_terms_name_what_they_are_for() -> None:
    with pytest.raises(ValueError, match=r'write keycloak\("calendar-api"\)'):
        keycloak()
    with pytest.raises(ValueError, match=r'write keycloak_brokered\("google"\)'):
        keycloak_brokered("")
    with pytest.raises(ValueError, match=r'write keycloak_external\("google"\)'):
        keycloak_external("")
    with pytest.raises(ValueError, match=r'write okta\("api://calendar"\)'):
        okta("")
    with pytest.raises(ValueError, match=r'write auth0_token_vault\("google-oauth2"\)'):
        auth0_token_vault("")


# Without client authentication --------------------------------------------------------------

POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q"
CLOUD = "https://www.googleapis.com/auth/cloud-platform"


def test_google_is_sent_the_token_and_no_client() -> None:
    endpoint = TokenEndpoint(httpx.Response(200, json=GOOD))

    connection = fetch(endpoint, asked(), google_sts(POOL), client_auth=PublicClient())

    assert (connection.token, connection.scopes) == ("ya29.downstream", ())
    assert endpoint.form == {
        "grant_type": TOKEN_EXCHANGE,
        "audience": POOL,
        "requested_token_type": ACCESS_TOKEN,
        "subject_token": "ey.caller",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "scope": CLOUD,
    }
    assert "authorization" not in endpoint.requests[0].headers


def test_google_gets_the_scopes_of_the_tool() -> None:
    form = sent(google_sts(POOL, CLOUD), "https://www.googleapis.com/auth/devstorage.read_only")

    assert form["scope"] == "https://www.googleapis.com/auth/devstorage.read_only"


def test_a_token_that_the_pool_does_not_accept_is_denied() -> None:
    refusal = refused(refusing("invalid_grant"), google_sts(POOL), client_auth=PublicClient())

    assert isinstance(refusal, ConnectionDeniedError)


def test_a_provider_without_its_full_name_is_refused() -> None:
    with pytest.raises(ValueError, match="write the full name of the provider"):
        google_sts("projects/1/workloadIdentityPools/p")


def test_a_public_client_may_name_itself() -> None:
    form = sent(keycloak("calendar-api"), client_auth=PublicClient("mcp-server"))

    assert form["client_id"] == "mcp-server"
    assert not form.keys() & {"client_secret", "client_assertion"}
