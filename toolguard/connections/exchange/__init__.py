"""Exchange the caller's access token for a token of another service (RFC 8693). Public."""

from toolguard.connections.exchange.provider import TokenExchangeConnections
from toolguard.connections.exchange.settings import (
    ActorToken,
    ConnectUrl,
    ExchangeSettings,
    TokenSource,
)
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

__all__ = [
    "ActorToken",
    "ConnectUrl",
    "ExchangeSettings",
    "TokenExchangeConnections",
    "TokenSource",
    "auth0_token_vault",
    "connect_url_from",
    "entra_on_behalf_of",
    "google_sts",
    "keycloak",
    "keycloak_brokered",
    "keycloak_external",
    "okta",
]
