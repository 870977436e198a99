"""The forms of further providers' access tokens; see :mod:`toolguard.testing.providers`."""

from __future__ import annotations

import uuid
from typing import Any

from toolguard.testing.token_content import TokenContent

__all__ = [
    "adfs",
    "authentik",
    "azure_b2c",
    "casdoor",
    "dex",
    "google",
    "google_tokeninfo",
    "ory",
    "supabase",
    "xsuaa",
    "zitadel",
]


def azure_b2c(grant: TokenContent) -> dict[str, Any]:
    """Azure AD B2C, "Overview of tokens": an access token of a user flow."""
    return {
        **grant.common,
        "nbf": grant.issued_at,
        "azp": grant.client_id,
        "nonce": "n-0S6_WzA2Mj",
        "scp": grant.scope,
        "roles": grant.roles or None,
        "tfp": "B2C_1_signin",
        "ver": "1.0",
    }


def adfs(grant: TokenContent) -> dict[str, Any]:
    """AD FS, "OpenID Connect and OAuth flows": an access token for a web API."""
    return {
        **grant.common,
        "nbf": grant.issued_at,
        "appid": grant.client_id,
        "apptype": "Public",
        "authmethod": "urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport",
        "scp": grant.scope,
        "ver": "1.0",
    }


def authentik(grant: TokenContent) -> dict[str, Any]:
    """authentik, id_token.py: the members of an ID token, with ``azp`` and ``uid``."""
    return {
        **grant.common,
        "auth_time": grant.issued_at,
        "acr": "goauthentik.io/providers/oauth2/default",
        "nonce": "n-0S6_WzA2Mj",
        "azp": grant.client_id,
        "uid": uuid.uuid4().hex,
        "scope": grant.scope,
    }


def dex(grant: TokenContent) -> dict[str, Any]:
    """Dex, server/oauth2.go: the same members as in an ID token."""
    return {
        **grant.common,
        "at_hash": "77QmUPtjPfzWtF2AnpK9RQ",
        "nonce": "n-0S6_WzA2Mj",
        "scope": grant.scope,
    }


def casdoor(grant: TokenContent) -> dict[str, Any]:
    """Casdoor, object/token_jwt.go: the members of a user, and of a token."""
    return {
        **grant.common,
        "aud": [grant.audience],
        "owner": "acme",
        "name": grant.user,
        "tokenType": "access-token",
        "nonce": "n-0S6_WzA2Mj",
        "azp": grant.client_id,
        "scope": grant.scope,
        "jti": f"admin/{uuid.uuid4()}",
    }


def google(grant: TokenContent) -> dict[str, Any]:
    """Google, "OpenID Connect": an ID token.

    It has no scopes; those of a grant stand for what the tokeninfo endpoint says.
    """
    return {
        **grant.common,
        "azp": grant.client_id,
        "at_hash": "77QmUPtjPfzWtF2AnpK9RQ",
        "nonce": "n-0S6_WzA2Mj",
        "email": grant.user and f"{grant.user}@example.com",
        "email_verified": grant.user and True,
        "scope": grant.scope,
    }


def google_tokeninfo(grant: TokenContent) -> dict[str, Any]:
    """google-auth-library, ``TokenInfo``: the answer of tokeninfo, whose members are all texts."""
    return {
        "azp": grant.client_id,
        "aud": grant.audience,
        "sub": grant.user,
        "scope": grant.scope or "",
        "exp": str(grant.expires_at),
        "expires_in": str(grant.expires_at - grant.issued_at),
        "access_type": "online",
    }


def xsuaa(grant: TokenContent) -> dict[str, Any]:
    """SAP XSUAA: scopes as a list."""
    client = grant.client_id
    return {
        **grant.common,
        "aud": [*([client] if client else []), grant.audience],
        "jti": uuid.uuid4().hex,
        "client_id": client,
        "cid": client,
        "azp": client,
        "scope": list(grant.scopes) or None,
        "grant_type": "authorization_code" if grant.user else "client_credentials",
        "user_name": grant.user,
        "zid": grant.tenant,
    }


def supabase(grant: TokenContent) -> dict[str, Any]:
    """Supabase, "JWT Claims Reference": a session of a signed-in user."""
    return {
        **grant.common,
        "role": "authenticated",
        "aal": "aal1",
        "session_id": str(uuid.uuid4()),
        "is_anonymous": False,
        "client_id": grant.client_id,
        "scope": grant.scope,
    }


def zitadel(grant: TokenContent) -> dict[str, Any]:
    """ZITADEL, "Opaque Tokens and JWTs": several audiences, among them the project."""
    return {
        **grant.common,
        "aud": [*([grant.client_id] if grant.client_id else []), grant.audience],
        "nbf": grant.issued_at,
        "client_id": grant.client_id,
        "jti": f"V2_{uuid.uuid4().hex}",
        "scope": grant.scope,
    }


def ory(grant: TokenContent) -> dict[str, Any]:
    """Ory, "JWT access tokens": scopes as a list."""
    return {
        **grant.common,
        "aud": [grant.audience],
        "client_id": grant.client_id,
        "ext": {},
        "jti": str(uuid.uuid4()),
        "nbf": grant.issued_at,
        "scp": list(grant.scopes),
    }
