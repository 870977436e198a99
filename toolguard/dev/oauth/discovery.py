"""The authorization server metadata (RFC 8414, OpenID Connect Discovery)."""

from __future__ import annotations

from typing import Any

from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.exchange import TOKEN_EXCHANGE
from toolguard.dev.oauth.machines import CLIENT_CREDENTIALS, JWT_BEARER
from toolguard.dev.oauth.openid import IDENTITY_SCOPES
from toolguard.dev.oauth.proof_keys import PROOF_ALGORITHMS
from toolguard.dev.oauth.signing import ALGORITHM
from toolguard.tokens.jwt import DEFAULT_ALGORITHMS

__all__ = ["metadata", "metadata_paths"]

_WELL_KNOWN = ("oauth-authorization-server", "openid-configuration")
_ID_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"
_CLIENT_AUTHENTICATION = ["none", "client_secret_basic", "client_secret_post"]


def metadata(context: ServerContext) -> dict[str, Any]:
    """Return the discovery document (RFC 8414 §2, with what OpenID requires)."""
    world = context.world
    for_machines = [CLIENT_CREDENTIALS, JWT_BEARER] if world.machines else []
    signing: dict[str, Any] = {}
    has_keys = any(each.public_key for each in world.machines)
    if has_keys:
        signing["token_endpoint_auth_signing_alg_values_supported"] = list(DEFAULT_ALGORITHMS)
    if world.identity_providers:
        signing["authorization_grant_profiles_supported"] = [_ID_JAG]
    return {
        **signing,
        "issuer": context.issuer,
        "authorization_endpoint": context.url("authorize"),
        "token_endpoint": context.url("token"),
        "registration_endpoint": context.url("register"),
        "revocation_endpoint": context.url("revoke"),
        "introspection_endpoint": context.url("introspect"),
        "jwks_uri": context.url("jwks"),
        "scopes_supported": list({**world.scopes, **IDENTITY_SCOPES}),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            TOKEN_EXCHANGE,
            *for_machines,
        ],
        "token_endpoint_auth_methods_supported": [
            *_CLIENT_AUTHENTICATION,
            *(["private_key_jwt"] if has_keys else []),
        ],
        "revocation_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION,
        "introspection_endpoint_auth_methods_supported": _CLIENT_AUTHENTICATION[1:],
        "code_challenge_methods_supported": ["S256"],
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "client_id_metadata_document_supported": True,
        "authorization_response_iss_parameter_supported": True,
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }


def metadata_paths(context: ServerContext) -> list[str]:
    """Return where the document is served.

    With the issuer's path after the well-known part (RFC 8414 §3) and before it (OpenID Connect
    Discovery §4, and Descope); and at the root for clients that look nowhere else, where it still
    names the one issuer there is.
    """
    names = [f"/.well-known/{name}" for name in _WELL_KNOWN]
    return [
        path for name in names for path in (name, f"{name}{context.path}", f"{context.path}{name}")
    ]
