"""The scopes that identify a user, and ID tokens (OpenID Connect Core §2).

They tell a client who the user is, and open nothing at a resource: no policy is asked about them,
and access tokens do not name them. A world that has one of them under ``[scopes]`` decides on it
like on any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from toolguard.dev.oauth.config import User, World
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import AuthorizationGrant

__all__ = ["IDENTITY_SCOPES", "id_token_claims", "identity_scopes"]

IDENTITY_SCOPES: Mapping[str, str] = {
    "openid": "Know who you are",
    "email": "Know your e-mail address",
}
"""Their words on the consent page, by their names."""


def identity_scopes(world: World, scopes: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``scopes`` that identify the user and are not the policy's."""
    return tuple(
        scope for scope in scopes if scope in IDENTITY_SCOPES and scope not in world.scopes
    )


def id_token_claims(
    context: ServerContext, grant: AuthorizationGrant, user: User
) -> dict[str, Any]:
    """Return the claims of an ID token about the user of ``grant``, for its client."""
    issued_at = int(context.clock())
    claims: dict[str, Any] = {
        "iss": context.issuer,
        "sub": user.id,
        "aud": grant.client_id,
        "iat": issued_at,
        "exp": issued_at + context.world.lifetimes.access_token,
    }
    if "email" in grant.scopes:
        claims |= {"email": user.email, "email_verified": True}
    if grant.nonce is not None:
        claims["nonce"] = grant.nonce
    return claims
