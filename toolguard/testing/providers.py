"""The forms of the access tokens of well-known providers.

The names, types and nesting of the claims follow the documentation of the providers, whose pages
are named here; the values are invented. Claims that customers can add are not included.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from toolguard.testing import more_providers
from toolguard.testing.grant import Grant
from toolguard.tokens import issuers
from toolguard.tokens.issuers import Issuer

__all__ = ["PROVIDERS", "RFC_9068", "Grant", "Provider", "ProviderName", "provider_named"]

ProviderName = Literal[
    "descope",
    "okta",
    "entra",
    "auth0",
    "keycloak",
    "cognito",
    "workos",
    "azure-b2c",
    "adfs",
    "authentik",
    "dex",
    "casdoor",
    "xsuaa",
    "supabase",
    "zitadel",
    "ory",
]


@dataclass(frozen=True)
class Provider:
    """The form of one provider's access tokens; create one for your own provider.

    Attributes:
        name: its name, for messages.
        issuer: an example of its issuer URLs.
        audience: an example of its audiences.
        shape: returns the claims of a grant; a claim that is None is omitted.
        says: those of ``tenant``, ``roles`` and ``permissions`` that its tokens have claims for.
        typ: the ``typ`` of the header; None for a header without one.
        id_token: the claims by which its ID tokens differ.
        refresh_token: the claims by which its refresh tokens differ, where they are JWTs.
        described: what a server has to know of it to verify its tokens; its name, audience and
            keys are those of the local issuer.
        header: further members of its headers.

    >>> def shape(grant: Grant) -> dict[str, object]:
    ...     return {**grant.common, "grants": list(grant.scopes)}
    >>> mine = Provider("Mine", "https://id.example.com", "https://mcp.example.com/mcp", shape)
    """

    name: str
    issuer: str
    audience: str
    shape: Callable[[Grant], Mapping[str, Any]]
    says: frozenset[str] = frozenset()
    typ: str | None = "JWT"
    # OpenID Connect Core §2 and §3.1.3.6; the hash is the one of the specification's appendix.
    id_token: Mapping[str, Any] = field(
        default_factory=lambda: {"nonce": "n-0S6_WzA2Mj", "at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}
    )
    # Keycloak's word, for want of another: most providers have opaque refresh tokens.
    refresh_token: Mapping[str, Any] = field(default_factory=lambda: {"typ": "Refresh"})
    described: Issuer | None = None
    header: Mapping[str, Any] = field(default_factory=dict)

    def description(self, issuer: str, audience: str) -> Issuer:
        """Return the description of an issuer of this form with another name and audience.

        Args:
            issuer: the issuer URL.
            audience: the ``aud`` of its tokens.
        """
        known = Issuer(self.issuer) if self.described is None else self.described
        if issuer == self.issuer and audience == self.audience:
            return known.with_settings(audience=known.audience or audience)
        return known.with_settings(
            url=issuer,
            names=(),
            members={},
            member_claims={},
            published=(),
            metadata_url=None,
            metadata_issuer=None,
            jwks_url=None,
            audience=audience,
        )

    def claims(self, grant: Grant) -> dict[str, Any]:
        """Return the claims of a token for ``grant``.

        Raises:
            ValueError: if ``grant`` has values for which such a token has no claim.
        """
        for word in ("tenant", "roles", "permissions"):
            if getattr(grant, word) and word not in self.says:
                raise ValueError(
                    f"tokens of {self.name} have no claim for {word}: if a claim was added to "
                    "yours, sign it under its own name, as in "
                    'issuer.sign({**issuer.claims("alice"), "groups": ["staff"]})'
                )
        return {name: value for name, value in self.shape(grant).items() if value is not None}


def provider_named(name: str) -> Provider:
    """Return one of :data:`PROVIDERS`.

    Raises:
        ValueError: if there is no provider of that name.
    """
    found = {str(known): provider for known, provider in PROVIDERS.items()}.get(name)
    if found is None:
        raise ValueError(f"no provider {name!r}: write one of {', '.join(PROVIDERS)}")
    return found


def _rfc_9068(grant: Grant) -> dict[str, Any]:
    """RFC 9068 §2.2, with the claims for tenants and permissions that have no standard."""
    return {
        **grant.common,
        "client_id": grant.client_id,
        "jti": uuid.uuid4().hex,
        "scope": grant.scope,
        "tenant": grant.tenant,
        "roles": grant.roles or None,
        "permissions": grant.permissions or None,
    }


def _descope(grant: Grant) -> dict[str, Any]:
    """Descope, "Session Overview" and "MCP Servers": roles are those of the current tenant."""
    facts = {"permissions": grant.permissions or [], "roles": grant.roles or []}
    return {
        **grant.common,
        "aud": [grant.audience],
        "amr": ["email"],
        "drn": "DS",
        "azp": grant.client_id,
        "scope": grant.scope,
        **(facts if not grant.tenant else {"dct": grant.tenant, "tenants": {grant.tenant: facts}}),
    }


def _okta(grant: Grant) -> dict[str, Any]:
    """Okta, "OpenID Connect & OAuth 2.0 API": tokens of a custom authorization server."""
    return {
        **grant.common,
        "ver": 1,
        "jti": f"AT.{uuid.uuid4().hex}",
        "cid": grant.client_id,
        "uid": grant.user and "00u1test",
        "auth_time": grant.user and grant.issued_at,
        "scp": list(grant.scopes) or None,
    }


def _entra(grant: Grant) -> dict[str, Any]:
    """Microsoft Entra ID, "Access token claims reference": version 2.0."""
    return {
        **grant.common,
        "nbf": grant.issued_at,
        "azp": grant.client_id,
        "azpacr": "0",
        "oid": grant.user and str(uuid.uuid5(uuid.NAMESPACE_URL, f"{grant.issuer}#{grant.user}")),
        "scp": grant.scope,
        "roles": grant.roles or None,
        "tid": _entra_tenant(grant),
        "uti": uuid.uuid4().hex[:22],
        "ver": "2.0",
    }


def _entra_tenant(grant: Grant) -> str | None:
    of_issuer = urlsplit(grant.issuer).path.strip("/").partition("/")[0]
    if grant.tenant and of_issuer and grant.tenant != of_issuer:
        raise ValueError(
            f"an issuer of Entra ID has one tenant, here {of_issuer}: write "
            f'LocalIssuer.like("entra", issuer="https://login.microsoftonline.com/{grant.tenant}'
            '/v2.0")'
        )
    return grant.tenant or of_issuer or None


def _auth0(grant: Grant) -> dict[str, Any]:
    """Auth0, "Access Token Profiles" (the default one) and "Work with Tokens and Organizations"."""
    # "Get Access Tokens": with the scope openid, a token is good for /userinfo, too.
    userinfo = [f"{grant.issuer}userinfo"] if "openid" in grant.scopes else []
    return {
        **grant.common,
        "aud": [grant.audience, *userinfo] if userinfo else grant.audience,
        "azp": grant.client_id,
        "scope": grant.scope,
        "permissions": grant.permissions or None,
        "org_id": grant.tenant,
    }


def _keycloak(grant: Grant) -> dict[str, Any]:
    """Keycloak, "Server Administration Guide", of the roles and audiences of a client scope."""
    return {
        **grant.common,
        "aud": [grant.audience, "account"],
        "jti": f"onrtac:{uuid.uuid4()}",
        "typ": "Bearer",
        "azp": grant.client_id,
        "sid": str(uuid.uuid4()),
        "acr": "1",
        "realm_access": {"roles": grant.roles} if grant.roles else None,
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": grant.scope,
        "preferred_username": grant.user,
    }


def _cognito(grant: Grant) -> dict[str, Any]:
    """Amazon Cognito, "Understanding the access token": ``aud`` is there with a resource binding.

    A scope of a resource server is written ``identifier/name``.
    """
    return {
        **grant.common,
        "cognito:groups": grant.roles or None,
        "version": 2,
        "client_id": grant.client_id,
        "origin_jti": str(uuid.uuid4()),
        "event_id": str(uuid.uuid4()),
        "token_use": "access",
        "scope": grant.scope,
        "auth_time": grant.issued_at,
        "jti": str(uuid.uuid4()),
        "username": grant.user,
    }


def _workos(grant: Grant) -> dict[str, Any]:
    """WorkOS, "Connect: Access token claims": what an MCP server gets, and no session token."""
    return {
        **grant.common,
        "client_id": grant.client_id,
        "org_id": grant.tenant,
        "sid": f"app_consent_{uuid.uuid4().hex[:26].upper()}",
        "scope": grant.scope,
        "jti": uuid.uuid4().hex[:26].upper(),
    }


_SERVER = "https://mcp.test/mcp"

RFC_9068 = Provider(
    "RFC 9068",
    issuer="https://issuer.test",
    audience=_SERVER,
    shape=_rfc_9068,
    says=frozenset({"tenant", "roles", "permissions"}),
    typ="at+jwt",
)
"""The form that RFC 9068 requires, without a particular provider."""

_OPENID = RFC_9068.id_token

PROVIDERS: Mapping[ProviderName, Provider] = MappingProxyType(
    {
        "descope": Provider(
            "Descope",
            issuer="https://api.descope.com/v1/apps/agentic/P2test/MS2test",
            audience=_SERVER,
            shape=_descope,
            says=frozenset({"tenant", "roles", "permissions"}),
            refresh_token={"drn": "DSR"},
            described=issuers.descope(
                "https://api.descope.com/v1/apps/agentic/P2test/MS2test", servers=["MS2test"]
            ),
        ),
        "okta": Provider(
            "Okta",
            issuer="https://example.okta.com/oauth2/default",
            audience=_SERVER,
            shape=_okta,
            typ=None,
            described=issuers.okta("https://example.okta.com/oauth2/default"),
        ),
        "entra": Provider(
            "Entra ID",
            issuer="https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0",
            # "aud" of version 2.0 is always the client id of the API.
            audience="00001111-aaaa-2222-bbbb-3333cccc4444",
            shape=_entra,
            says=frozenset({"tenant", "roles"}),
            described=issuers.entra(
                "aaaabbbb-0000-cccc-1111-dddd2222eeee",
                client_id="00001111-aaaa-2222-bbbb-3333cccc4444",
            ),
        ),
        "auth0": Provider(
            "Auth0",
            issuer="https://example.eu.auth0.com/",
            audience=_SERVER,
            shape=_auth0,
            says=frozenset({"tenant", "permissions"}),
            # "Enable Role-Based Access Control for APIs".
            described=issuers.auth0("example.eu.auth0.com", permissions_are_scopes=True),
        ),
        "keycloak": Provider(
            "Keycloak",
            issuer="https://sso.example.com/realms/acme",
            audience=_SERVER,
            shape=_keycloak,
            says=frozenset({"roles"}),
            id_token={**_OPENID, "typ": "ID"},
            described=issuers.keycloak("https://sso.example.com/realms/acme"),
        ),
        "cognito": Provider(
            "Cognito",
            issuer="https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Example",
            audience=_SERVER,
            shape=_cognito,
            says=frozenset({"roles"}),
            typ=None,
            id_token={**_OPENID, "token_use": "id"},
            described=issuers.cognito("eu-west-1_Example", clients=["app-client"]),
        ),
        "workos": Provider(
            "WorkOS",
            issuer="https://example.authkit.app",
            audience=_SERVER,
            shape=_workos,
            says=frozenset({"tenant"}),
            typ=None,
            described=issuers.workos("example.authkit.app"),
        ),
        "azure-b2c": Provider(
            "Azure AD B2C",
            issuer="https://contoso.b2clogin.com/775527ff-9a37-4307-8b3d-cc311f58d925/v2.0/",
            audience="90c0fe63-bcf2-44d5-8fb7-b8bbc0b29dc6",
            shape=more_providers.azure_b2c,
            says=frozenset({"roles"}),
            id_token={**_OPENID, "azp": None},
            described=issuers.azure_b2c(
                "contoso",
                tenant_id="775527ff-9a37-4307-8b3d-cc311f58d925",
                policy="B2C_1_signin",
                client_id="90c0fe63-bcf2-44d5-8fb7-b8bbc0b29dc6",
            ),
        ),
        "adfs": Provider(
            "AD FS",
            issuer="http://adfs.example.com/adfs/services/trust",
            audience=_SERVER,
            shape=more_providers.adfs,
            id_token={**_OPENID, "appid": None},
            described=issuers.adfs("adfs.example.com"),
        ),
        "authentik": Provider(
            "authentik",
            issuer="https://id.example.com/application/o/mcp/",
            audience="authentik-client",
            shape=more_providers.authentik,
            id_token={"azp": None, "uid": None},
            described=issuers.authentik("https://id.example.com/application/o/mcp/"),
        ),
        "dex": Provider(
            "Dex",
            issuer="https://dex.example.com",
            audience="dex-client",
            shape=more_providers.dex,
            typ=None,
            # With a code beside it (OpenID Connect Core §3.3.2.11): otherwise it is the same.
            id_token={"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
            described=issuers.dex("https://dex.example.com"),
        ),
        "casdoor": Provider(
            "Casdoor",
            issuer="https://casdoor.example.com",
            audience="casdoor-client",
            shape=more_providers.casdoor,
            # Casdoor's ID token is its access token; this is the one of other libraries.
            id_token={"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"},
            refresh_token={"tokenType": "refresh-token"},
            described=issuers.casdoor("https://casdoor.example.com"),
        ),
        "xsuaa": Provider(
            "SAP XSUAA",
            issuer="https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
            audience="notes!t123",
            shape=more_providers.xsuaa,
            says=frozenset({"tenant"}),
            id_token={**_OPENID, "cid": None},
            described=issuers.xsuaa(
                "acme.authentication.eu10.hana.ondemand.com", xsappname="notes!t123"
            ),
            header={"jku": "https://acme.authentication.eu10.hana.ondemand.com/token_keys"},
        ),
        "supabase": Provider(
            "Supabase",
            issuer="https://abcdefghijklmnopqrst.supabase.co/auth/v1",
            audience="authenticated",
            shape=more_providers.supabase,
            id_token={**_OPENID, "role": None},
            described=issuers.supabase("abcdefghijklmnopqrst"),
        ),
        "zitadel": Provider(
            "ZITADEL",
            issuer="https://acme.zitadel.cloud",
            audience="271828182845904523",
            shape=more_providers.zitadel,
            described=issuers.zitadel("acme.zitadel.cloud", project="271828182845904523"),
        ),
        "ory": Provider(
            "Ory",
            issuer="https://acme.projects.oryapis.com",
            audience=_SERVER,
            shape=more_providers.ory,
            described=issuers.ory("https://acme.projects.oryapis.com"),
        ),
    }
)
"""The providers that :meth:`toolguard.testing.LocalIssuer.like` knows."""
