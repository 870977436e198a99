"""Authorization servers as values: :class:`Issuer`, and presets for well-known ones. Public.

A preset is a function that returns an :class:`Issuer`; its documentation names the vendor's pages
that it rests on, and each takes further fields of :class:`Issuer` by keyword.
"""

from toolguard.parsing.scope_names import ScopeNames
from toolguard.tokens.introspection_client import BasicClient, BearerClient, Introspection
from toolguard.tokens.issuers.hosted import (
    auth0,
    cognito,
    descope,
    google,
    okta,
    ory,
    supabase,
    workos,
    zitadel,
)
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.issuers.microsoft import adfs, azure_b2c, entra
from toolguard.tokens.issuers.self_hosted import authentik, casdoor, dex, keycloak, xsuaa
from toolguard.tokens.network import Network
from toolguard.tokens.tokeninfo import TokenInfo

__all__ = [
    "BasicClient",
    "BearerClient",
    "Introspection",
    "Issuer",
    "Network",
    "ScopeNames",
    "TokenInfo",
    "adfs",
    "auth0",
    "authentik",
    "azure_b2c",
    "casdoor",
    "cognito",
    "descope",
    "dex",
    "entra",
    "google",
    "keycloak",
    "okta",
    "ory",
    "supabase",
    "workos",
    "xsuaa",
    "zitadel",
]
