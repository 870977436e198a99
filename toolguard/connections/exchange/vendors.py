"""Token exchange settings for well-known authorization servers.

Each function returns the :class:`ExchangeSettings` of one connection.
Parameter names are those of the vendors' public documentation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlencode

from toolguard.connections.exchange.settings import (
    ACCESS_TOKEN,
    JWT,
    JWT_BEARER,
    REFRESH_TOKEN,
    ConnectUrl,
    ExchangeSettings,
    TokenSource,
)
from toolguard.connections.protocol import ConnectionRequest

__all__ = [
    "auth0_token_vault",
    "connect_url_from",
    "entra_on_behalf_of",
    "google_sts",
    "keycloak",
    "keycloak_brokered",
    "keycloak_external",
    "okta",
]

_AUTH0_GRANT = "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
_AUTH0_TOKEN = "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105
# Scopes that Entra's tokens never list: ".default", and those that are not of the resource.
_ENTRA_UNLISTED = frozenset({".default", "openid", "profile", "email", "offline_access"})


def keycloak(*audience: str) -> ExchangeSettings:
    """Return Keycloak's standard token exchange: a token of the realm for its other clients.

    The token endpoint is ``https://HOST/realms/REALM/protocol/openid-connect/token``; the client
    needs "Standard token exchange" enabled, and must be in the ``aud`` of the caller's token.

    Args:
        audience: client ids of the services that the token is for.

    Raises:
        ValueError: if there is no audience.
    """
    if not audience:
        raise ValueError('write keycloak("calendar-api"): the client id of the service')
    return ExchangeSettings(audience=audience, requested_token_type=ACCESS_TOKEN)


def keycloak_brokered(alias: str) -> ExchangeSettings:
    """Return Keycloak's exchange for the user's token at a brokered identity provider.

    This is its "legacy token exchange" (``requested_issuer``). The answer never names the granted
    scopes, so the tool must not declare any. The refusal contains the URL to link the account:
    ``connect_url=connect_url_from("account-link-url", redirect_uri="https://...")``.

    Args:
        alias: the identity provider's alias in the realm, such as ``"google"``.
    """
    return ExchangeSettings(
        requested_token_type=ACCESS_TOKEN,
        extra={"requested_issuer": _named(alias, 'keycloak_brokered("google")')},
        sends_scope=False,
        # Its answers omit token_type, and have 0 for an expiry that was not stored.
        strict=False,
        refusals={"not_linked": "connect", "token_expired": "connect"},
    )


def keycloak_external(
    alias: str, *, audience: str | None = None, subject_token_type: str = ACCESS_TOKEN
) -> ExchangeSettings:
    """Return Keycloak's exchange of a token from another issuer.

    This is its "legacy token exchange" (``subject_issuer``). The caller's token is sent to
    Keycloak although another server issued it: use it only if both are in one trust domain.

    Args:
        alias: the other issuer's alias in the realm.
        audience: the client id of the service that the token is for; None for this client.
        subject_token_type: the token type of the caller's token (RFC 8693 §3).
    """
    return ExchangeSettings(
        audience=(audience,) if audience else (),
        requested_token_type=ACCESS_TOKEN,
        subject_token_type=subject_token_type,
        extra={"subject_issuer": _named(alias, 'keycloak_external("google")')},
        # Its answers omitted issued_token_type for years.
        strict=False,
    )


def google_sts(provider: str, *default_scopes: str) -> ExchangeSettings:
    """Return Google's Security Token Service: a token of a workload identity pool.

    The token endpoint is ``https://sts.googleapis.com/v1/token``, and there is no client
    authentication: ``client_auth=PublicClient()``. The caller's token, a JWT, is sent to Google
    although another server issued it: the pool's provider has to trust that issuer and accept the
    audience of this server. Documented at
    https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token.

    Args:
        provider: the full name of the pool's provider, such as ``"//iam.googleapis.com/projects/
            123/locations/global/workloadIdentityPools/POOL/providers/PROVIDER"``.
        default_scopes: the scopes to request if the tool declares none, since Google requires
            some; by default ``https://www.googleapis.com/auth/cloud-platform``.

    Raises:
        ValueError: if ``provider`` is not such a name.
    """
    if not provider.startswith("//iam.googleapis.com/"):
        raise ValueError(
            f"{provider!r}: write the full name of the provider, "
            '"//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/..."'
        )
    return ExchangeSettings(
        audience=(provider,),
        requested_token_type=ACCESS_TOKEN,
        subject_token_type=JWT,
        default_scopes=default_scopes or ("https://www.googleapis.com/auth/cloud-platform",),
        # The pool does not accept the caller's token: connecting would not help.
        refusals={"invalid_grant": "denied"},
    )


def okta(audience: str) -> ExchangeSettings:
    """Return Okta's on-behalf-of token exchange at a custom authorization server.

    The token endpoint is ``https://HOST/oauth2/SERVER/v1/token``. Okta requires scopes: declare
    them for the tool.

    Args:
        audience: the audience of the service's authorization server, such as ``"api://calendar"``.
    """
    return ExchangeSettings(
        audience=(_named(audience, 'okta("api://calendar")'),),
        # Okta's error for a caller's token that it does not accept: connecting would not help.
        refusals={"invalid_grant": "denied"},
    )


def auth0_token_vault(
    connection: str, *, refresh_token: TokenSource | None = None
) -> ExchangeSettings:
    """Return Auth0's exchange for the user's token in its Token Vault.

    The token endpoint is ``https://DOMAIN/oauth/token``. Auth0 accepts no scopes there; those that
    the tool declares are compared with the answer's.

    Args:
        connection: the connection's name at Auth0, such as ``"google-oauth2"``.
        refresh_token: returns the user's Auth0 refresh token, if this server keeps it; None
            exchanges the access token of the call.
    """
    return ExchangeSettings(
        grant_type=_AUTH0_GRANT,
        requested_token_type=_AUTH0_TOKEN,
        subject_token_type=ACCESS_TOKEN if refresh_token is None else REFRESH_TOKEN,
        subject_token=refresh_token,
        extra={"connection": _named(connection, 'auth0_token_vault("google-oauth2")')},
        sends_scope=False,
        strict=False,
        refusals={
            "federated_connection_refresh_token_not_found": "connect",
            "federated_connection_refresh_token_flow_failed": "connect",
        },
    )


def entra_on_behalf_of(*default_scopes: str) -> ExchangeSettings:
    """Return Microsoft Entra's on-behalf-of flow.

    The token endpoint is ``https://login.microsoftonline.com/TENANT/oauth2/v2.0/token``, with a
    fixed tenant, which is never taken from a token.

    Args:
        default_scopes: the scopes to request if the tool declares none, since Entra requires
            some; such as ``"https://graph.microsoft.com/.default"``. All of one service.
    """
    return ExchangeSettings(
        grant_type=JWT_BEARER,
        default_scopes=default_scopes,
        extra={"requested_token_use": "on_behalf_of"},
        grants=_entra_grants,
        strict=False,
    )


def connect_url_from(member: str, **parameters: str) -> ConnectUrl:
    """Return a function that reads the connect URL from a member of the server's error.

    Args:
        member: the member's name, such as ``"account-link-url"`` (Keycloak).
        parameters: query parameters to add, such as ``redirect_uri="https://..."``.
    """

    def connect_url(request: ConnectionRequest, refusal: Mapping[str, Any]) -> str | None:  # noqa: ARG001 - a ConnectUrl
        url = refusal.get(member)
        if not isinstance(url, str) or not parameters:
            return url if isinstance(url, str) else None
        base, mark, fragment = url.partition("#")
        joint = "&" if "?" in base else "?"
        return f"{base}{joint}{urlencode(parameters)}{mark}{fragment}"

    return connect_url


def _entra_grants(asked: str, granted: Collection[str]) -> bool:
    """Compare scopes with or without the service's URI, in any case, as Entra writes both.

    A token is for one service only, so the URI distinguishes nothing.
    """
    name = _entra_name(asked)
    return name in _ENTRA_UNLISTED or name in map(_entra_name, granted)


def _entra_name(scope: str) -> str:
    return scope.rpartition("/")[2].lower()


def _named(value: str, example: str) -> str:
    if not value:
        raise ValueError(f"write {example}")
    return value
