"""Token exchange: what is asked of an authorization server, for whom, and what is kept quiet."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import pytest

from support.client_keys import private_key
from support.token_endpoint import (
    CALENDAR,
    GOOD,
    TokenEndpoint,
    asked,
    fetch,
    giving,
    provider,
    refusing,
)
from toolguard.connections import Connection, ConnectionProvider, ConnectionRequest
from toolguard.connections.client_auth import ClientSecretPost, PrivateKeyJWT
from toolguard.connections.exchange import TokenExchangeConnections
from toolguard.connections.exchange.settings import JWT, REFRESH_TOKEN, ActorToken, ExchangeSettings
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionUnavailableError,
)

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


async def own_token(request: ConnectionRequest) -> str | None:
    return "ey.server"


async def no_token(request: ConnectionRequest) -> str | None:
    return None


# The request -----------------------------------------------------------------------------------


def test_the_callers_token_is_exchanged_at_the_token_endpoint_and_nowhere_else() -> None:
    endpoint = giving()

    assert fetch(endpoint) == Connection("ya29.downstream", expires_at=1_800_000_300.0)
    (sent,) = endpoint.requests
    assert (sent.method, str(sent.url)) == ("POST", "https://auth.example.com/token")
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert (
        sent.headers["Authorization"] == "Basic " + base64.b64encode(b"mcp-server:secret").decode()
    )
    assert endpoint.form == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": ACCESS_TOKEN,
        "audience": "calendar-api",
    }


def test_everything_that_rfc_8693_knows_can_be_asked_for() -> None:
    exchange = ExchangeSettings(
        audience=("calendar-api", "contacts-api"),
        resource=("https://calendar.example.com/", "https://contacts.example.com/"),
        requested_token_type=JWT,
        actor=ActorToken(own_token, JWT),
        extra={"tier": "gold & more"},
    )
    endpoint = giving(issued_token_type=JWT)

    fetch(endpoint, asked("read", "write"), exchange)

    assert endpoint.form == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "ey.caller",
        "subject_token_type": ACCESS_TOKEN,
        "actor_token": "ey.server",
        "actor_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": ["calendar-api", "contacts-api"],
        "resource": ["https://calendar.example.com/", "https://contacts.example.com/"],
        "requested_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "scope": "read write",
        "tier": "gold & more",
    }


def test_scopes_are_the_tools_and_the_default_only_where_it_names_none() -> None:
    exchange = ExchangeSettings(default_scopes=("everything",))
    with_scopes, without = giving(), giving()

    fetch(with_scopes, asked("read"), exchange)
    fetch(without, asked(), exchange)

    assert with_scopes.form["scope"] == "read"
    assert without.form["scope"] == "everything"


def test_a_client_may_show_its_secret_in_the_form() -> None:
    endpoint = giving()

    fetch(endpoint, client_auth=ClientSecretPost("mcp-server", "s3cret"))

    assert endpoint.form["client_id"] == "mcp-server"
    assert endpoint.form["client_secret"] == "s3cret"
    assert "Authorization" not in endpoint.requests[0].headers


def test_each_attempt_shows_an_assertion_of_its_own() -> None:
    endpoint = TokenEndpoint(
        httpx.ConnectError("x"), httpx.Response(503), httpx.Response(200, json=GOOD)
    )
    auth = PrivateKeyJWT("mcp-server", private_key(), key_id="k1")

    fetch(endpoint, client_auth=auth)

    assert len({str(form["client_assertion"]) for form in endpoint.forms}) == 3
    assert {str(form["subject_token"]) for form in endpoint.forms} == {"ey.caller"}


def test_an_exchange_may_start_from_a_kept_user_token() -> None:
    async def kept(request: ConnectionRequest) -> str | None:
        return f"refresh-of-{request.principal.user_id}"

    endpoint = giving()
    exchange = ExchangeSettings(subject_token=kept, subject_token_type=REFRESH_TOKEN)

    fetch(endpoint, exchange=exchange)

    assert endpoint.form == {
        "grant_type": TOKEN_EXCHANGE,
        "subject_token": "refresh-of-U1",
        "subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token",
    }


def test_a_token_that_may_be_good_for_once_is_not_shown_twice() -> None:
    exchange = ExchangeSettings(subject_token=own_token, subject_token_type=REFRESH_TOKEN)
    endpoint = TokenEndpoint(httpx.Response(503))

    with pytest.raises(ConnectionUnavailableError):
        fetch(endpoint, exchange=exchange)

    assert len(endpoint.requests) == 1


# For whom --------------------------------------------------------------------------------------


def denied(request: ConnectionRequest, exchange: ExchangeSettings = CALENDAR) -> str:
    """Return why nothing was asked at all."""
    endpoint = giving()
    with pytest.raises(ConnectionDeniedError) as caught:
        fetch(endpoint, request, exchange)
    assert endpoint.requests == []
    return str(caught.value)


def test_without_a_token_of_the_caller_nothing_is_asked() -> None:
    with_own = ExchangeSettings(subject_token=own_token)

    assert denied(asked(access_token=None)) == "calendar needs an access token of the caller"
    assert denied(asked(access_token=None), with_own) == denied(asked(access_token=None))


@pytest.mark.parametrize("token", ["", " ", "ey caller", "ey.caller\r\n", "caf\xe9", "\ud800"])
def test_a_token_that_cannot_be_one_is_not_sent(token: str) -> None:
    assert denied(asked(access_token=token)) == "calendar needs a token that can be sent"


def test_a_tenant_has_a_connection_only_where_the_terms_say_how() -> None:
    assert denied(asked(tenant_id="acme")) == "calendar belongs to users here, not to tenants"


def test_the_tenant_of_the_callers_token_takes_the_place_the_terms_give_it() -> None:
    exchange = ExchangeSettings(
        audience=("calendar-api",),
        tenant={"organization": "{tenant_id}", "audience": "calendar:{tenant_id}:{tenant_id}"},
    )
    of_tenant, of_user = giving(), giving()

    fetch(of_tenant, asked(tenant_id="acme"), exchange)
    fetch(of_user, asked(), exchange)

    assert of_tenant.form["organization"] == "acme"
    assert of_tenant.form["audience"] == "calendar:acme:acme"
    assert "organization" not in of_user.form
    assert of_user.form["audience"] == "calendar-api"


@pytest.mark.parametrize("tenant_id", ["", "a b", "acme\n", "\ud800"])
def test_a_tenant_that_cannot_be_named_has_no_connection(tenant_id: str) -> None:
    exchange = ExchangeSettings(tenant={"organization": "{tenant_id}"})

    assert (
        denied(asked(tenant_id=tenant_id), exchange) == "calendar needs a tenant that can be named"
    )


def test_braces_in_the_name_of_a_tenant_are_not_filled_in_again() -> None:
    endpoint = giving()

    fetch(
        endpoint, asked(tenant_id="{tenant_id}{0}"), ExchangeSettings(tenant={"o": "x{tenant_id}"})
    )

    assert endpoint.form["o"] == "x{tenant_id}{0}"


def test_an_actor_without_a_token_acts_for_nobody() -> None:
    assert denied(asked(), ExchangeSettings(actor=ActorToken(no_token))) == (
        "calendar needs a token that can be sent"
    )


def test_a_user_for_whom_no_token_is_kept_has_to_connect() -> None:
    endpoint = giving()

    with pytest.raises(ConnectionRequiredError, match="Connect calendar first"):
        fetch(endpoint, exchange=ExchangeSettings(subject_token=no_token))

    assert endpoint.requests == []


def test_a_connection_without_terms_is_not_asked_for() -> None:
    endpoint = giving()

    with pytest.raises(ConnectionResponseError) as caught:
        fetch(endpoint, asked(name="github"))

    assert str(caught.value) == (
        "There are no settings for github: write connections={'github': ExchangeSettings(...)}"
    )
    assert endpoint.requests == []


# Where to connect ------------------------------------------------------------------------------


def connect_url(endpoint: TokenEndpoint, *scopes: str, **settings: Any) -> str | None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(endpoint, asked(*scopes), **settings)
    return caught.value.connect_url


def test_who_has_to_connect_is_told_where_as_the_server_says_it() -> None:
    def link(request: ConnectionRequest, refusal: Any) -> str:
        return f"https://app.example.com/connect/{request.name}?hint={refusal.get('error')}"

    refused = refusing("interaction_required")

    assert connect_url(refused, connect_url=link) == (
        "https://app.example.com/connect/calendar?hint=interaction_required"
    )
    assert connect_url(refused) is None


def test_where_to_connect_is_said_without_the_token_that_has_too_few_scopes() -> None:
    given: list[dict[str, Any]] = []

    def link(request: ConnectionRequest, refusal: Any) -> str:
        given.append(dict(refusal))
        return "https://app.example.com/connect"

    assert connect_url(giving(scope="read"), "write", connect_url=link) == (
        "https://app.example.com/connect"
    )
    assert given == [{}]


@pytest.mark.parametrize(
    "url", ["http://app.example.com/", "javascript:alert(1)", "", None, 5, "https://a@b.example/"]
)
def test_a_place_to_connect_that_is_not_secure_is_not_passed_on(url: Any) -> None:
    assert connect_url(refusing("invalid_grant"), connect_url=lambda *_: url) is None


# Misuse ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.example.com/token",
        "https://auth.example.com/token#x",
        "https://user:password@auth.example.com/token",
        "auth.example.com/token",
        "",
    ],
)
def test_a_token_endpoint_to_which_no_token_may_go_is_refused(url: str) -> None:
    auth = ClientSecretPost("mcp-server", "secret")

    with pytest.raises(ValueError, match=r'write "https://auth\.example\.com/token"') as caught:
        TokenExchangeConnections(url, client_auth=auth, connections={"calendar": CALENDAR})

    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"client_auth": "secret"}, TypeError, "write client_auth=ClientSecretBasic"),
        ({"connections": {}}, ValueError, r"write connections=\{"),
        ({"connections": {"calendar": "calendar-api"}}, TypeError, "'calendar' needs"),
        ({"timeout": 0}, ValueError, "write timeout="),
    ],
)
def test_a_provider_that_cannot_work_is_not_made(
    settings: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        provider(giving(), **settings)


@pytest.mark.parametrize(
    ("terms", "kind", "message"),
    [
        ({"audience": "calendar"}, TypeError, r"write audience=\('calendar',\)"),
        ({"resource": "https://a.example"}, TypeError, r"write resource=\('https://a\.example',\)"),
        ({"resource": ("calendar",)}, ValueError, "absolute URI without a fragment"),
        ({"resource": ("https://a.example/#x",)}, ValueError, "absolute URI without a fragment"),
        ({"extra": {"client_secret": "x"}}, ValueError, "client_secret has a setting of its own"),
        ({"extra": {"audience": "x"}}, ValueError, "audience has a setting of its own"),
        ({"tenant": {"subject_token": "{tenant_id}"}}, ValueError, "subject_token has a setting"),
        ({"tenant": {"organization": "acme"}}, ValueError, "name the tenant: write tenant="),
        ({"grant_type": ""}, ValueError, "leave grant_type"),
        ({"subject_token_type": ""}, ValueError, "leave grant_type"),
    ],
)
def test_terms_that_cannot_be_sent_are_not_made(
    terms: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ExchangeSettings(**terms)


def test_an_actor_is_a_function_and_has_a_type() -> None:
    with pytest.raises(TypeError, match="where own_token is an async function"):
        ActorToken("ey.server")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="an actor token has a type"):
        ActorToken(own_token, "")


def test_a_later_change_of_what_was_given_changes_nothing() -> None:
    extra, table = {"tier": "gold"}, {"calendar": ExchangeSettings()}
    table["calendar"] = ExchangeSettings(extra=extra)
    endpoint = giving()
    connections = provider(endpoint, connections=table)
    extra["tier"] = "lead"
    table.clear()

    asyncio.run(connections.fetch(asked()))

    assert endpoint.form["tier"] == "gold"


def test_a_provider_shows_what_it_provides_and_no_secret() -> None:
    connections = provider(giving(), client_auth=ClientSecretPost("mcp-server", "canary"))

    assert repr(connections) == "<TokenExchangeConnections: calendar at https://auth.example.com>"
    assert isinstance(connections, ConnectionProvider)


TERMS: dict[str, Any] = {
    "audience": ("calendar-api",),
    "resource": ("https://calendar.example.com/",),
    "requested_token_type": JWT,
    "subject_token_type": JWT,
    "subject_token": own_token,
    "actor": ActorToken(own_token),
    "default_scopes": ("read",),
    "sends_scope": False,
    "extra": {"tier": "gold"},
    "tenant": {"organization": "{tenant_id}"},
    "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
    "strict": False,
}


def namespace_of(exchange: ExchangeSettings, **settings: Any) -> str:
    return provider(giving(), exchange, **settings).cache_namespace


@pytest.mark.parametrize("name", TERMS)
def test_what_was_got_on_other_terms_is_kept_apart(name: str) -> None:
    assert namespace_of(ExchangeSettings(**{name: TERMS[name]})) != namespace_of(ExchangeSettings())


def test_what_is_kept_depends_on_the_client_and_on_nothing_of_this_process() -> None:
    namespaces = {
        namespace_of(CALENDAR),
        namespace_of(CALENDAR, client_auth=ClientSecretPost("other", "secret")),
        namespace_of(CALENDAR, connections={"github": CALENDAR}),
    }
    signing = PrivateKeyJWT("mcp-server", private_key(), key_id="k1")

    assert len(namespaces) == 3
    assert namespace_of(ExchangeSettings(audience=("calendar-api",))) in namespaces
    assert namespace_of(CALENDAR, client_auth=signing) in namespaces
    assert not any("secret" in namespace for namespace in namespaces)
    assert namespace_of(CALENDAR).startswith("https://auth.example.com/token mcp-server ")
