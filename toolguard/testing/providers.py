"""The forms of the access tokens of well-known providers.

The names, types and nesting of the claims follow the documentation of the providers, whose pages
are named here; the values are invented. Claims that customers can add are not included.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal
from urllib.parse import urlsplit

from toolguard.testing import more_providers
from toolguard.testing.token_content import TokenContent
from toolguard.tokens import issuers
from toolguard.tokens.issuers import Issuer, ScopeNames

__all__ = ["PROVIDERS", "RFC_9068", "Provider", "ProviderName", "TokenContent", "provider_named"]

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
    "google",
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

    >>> def shape(grant: TokenContent) -> dict[str, object]:
    ...     return {**grant.common, "grants": list(grant.scopes)}
    >>> mine = Provider("Mine", "https://id.example.com", "https://mcp.example.com/mcp", shape)
    """

    name: str
    issuer: str
    audience: str
    shape: Callable[[TokenContent], Mapping[str, Any]]
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
            reads_token_issuer=False,
            published=(),
            metadata_url=None,
            metadata_issuer=None,
            jwks_url=None,
            audience=audience,
        )

    def claims(self, grant: TokenContent) -> dict[str, Any]:
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
        names = ScopeNames() if self.described is None else self.described.scope_names
        if names.in_tokens:
            grant = replace(grant, scopes=[names.requested(scope) for scope in grant.scopes])
        return {name: value for name, value in self.shape(grant).items() if value is not None}


def provider_named(name: str) -> Provider:
    """Return one of :data:`PROVIDERS`.

    Raises:
        ValueError: if there is no provider of that name.
    """
    found = {str(known): provider for known, provider in PROVIDERS.items()}.get(name)
    if found is None:
        raise ValueError(f"unknown provider {name!r}: write one of {', '.join(PROVIDERS)}")
    return found


def _rfc_9068(grant: TokenContent) -> dict[str, Any]:
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


def _descope(grant: TokenContent) -> dict[str, Any]:
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


def _okta(grant: TokenContent) -> dict[str, Any]:
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


def _entra(grant: TokenContent) -> dict[str, Any]:
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


def _entra_tenant(grant: TokenContent) -> str | None:
    of_issuer = urlsplit(grant.issuer).path.strip("/").partition("/")[0]
    if grant.tenant and of_issuer and grant.tenant != of_issuer:
        raise ValueError(
            f"an issuer of Entra ID has one tenant, here {of_issuer}: write "
            f'LocalIssuer.like("entra", issuer="https://login.microsoftonline.com/{grant.tenant}'
            '/v2.0")'
        )
    return grant.tenant or of_issuer or None


def _auth0(grant: TokenContent) -> dict[str, Any]:
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


def _keycloak(grant: TokenContent) -> dict[str, Any]:
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


def _cognito(grant: TokenContent) -> dict[str, Any]:
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


def _workos(grant: TokenContent) -> dict[str, Any]:
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


def _described(  # noqa: PLR0913 - what a description leaves open, by name
    name: str,
    described: Issuer,
    shape: Callable[[TokenContent], Mapping[str, Any]],
    *,
    says: Collection[str] = (),
    typ: str | None = "JWT",
    id_token: Mapping[str, Any] = MappingProxyType({}),
    refresh_token: Mapping[str, Any] = RFC_9068.refresh_token,
) -> Provider:
    """Return the form of a described issuer's tokens: what its description says is not repeated."""
    is_named = described.issuer_names.has(described.url)
    carried = described.must_carry.items()
    marks = (name for name, value in carried if value is None and name != "sub")
    return Provider(
        name,
        issuer=described.url if is_named else described.names[0],
        audience=next(iter(described.audiences), _SERVER),
        shape=shape,
        says=frozenset(says),
        typ=typ,
        id_token={
            **RFC_9068.id_token,
            # What only access tokens have.
            **dict.fromkeys((*marks, *described.must_carry_one_of)),
            **id_token,
        },
        refresh_token=refresh_token,
        described=described,
        header={"jku": described.jwks_url} if "jku" in described.ignored_parameters else {},
    )


PROVIDERS: Mapping[ProviderName, Provider] = MappingProxyType(
    {
        "descope": _described(
            "Descope",
            issuers.descope(
                "https://api.descope.com/v1/apps/agentic/P2test/MS2test", servers=["MS2test"]
            ),
            _descope,
            says=("tenant", "roles", "permissions"),
            refresh_token={"drn": "DSR"},
        ),
        "okta": _described(
            "Okta", issuers.okta("https://example.okta.com/oauth2/default"), _okta, typ=None
        ),
        "entra": _described(
            "Entra ID",
            issuers.entra(
                "aaaabbbb-0000-cccc-1111-dddd2222eeee",
                client_id="00001111-aaaa-2222-bbbb-3333cccc4444",
            ),
            _entra,
            says=("tenant", "roles"),
        ),
        "auth0": _described(
            "Auth0",
            # "Enable Role-Based Access Control for APIs".
            issuers.auth0("example.eu.auth0.com", permissions_are_scopes=True),
            _auth0,
            says=("tenant", "permissions"),
        ),
        "keycloak": _described(
            "Keycloak",
            issuers.keycloak("https://sso.example.com/realms/acme"),
            _keycloak,
            says=("roles",),
            id_token={"typ": "ID"},
        ),
        "cognito": _described(
            "Cognito",
            issuers.cognito("eu-west-1_Example", clients=["app-client"]),
            _cognito,
            says=("roles",),
            typ=None,
            id_token={"token_use": "id"},
        ),
        "workos": _described(
            "WorkOS", issuers.workos("example.authkit.app"), _workos, says=("tenant",), typ=None
        ),
        "azure-b2c": _described(
            "Azure AD B2C",
            issuers.azure_b2c(
                "contoso",
                tenant_id="775527ff-9a37-4307-8b3d-cc311f58d925",
                policy="B2C_1_signin",
                client_id="90c0fe63-bcf2-44d5-8fb7-b8bbc0b29dc6",
            ),
            more_providers.azure_b2c,
            says=("roles",),
        ),
        "adfs": _described("AD FS", issuers.adfs("adfs.example.com"), more_providers.adfs),
        "authentik": _described(
            "authentik",
            issuers.authentik(
                "https://id.example.com/application/o/mcp/", audience="authentik-client"
            ),
            more_providers.authentik,
        ),
        "dex": _described(
            "Dex",
            issuers.dex("https://dex.example.com", audience="dex-client"),
            more_providers.dex,
            typ=None,
            # With a code beside it (OpenID Connect Core §3.3.2.11): otherwise it is the same.
            id_token={"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
        ),
        "casdoor": _described(
            "Casdoor",
            # Casdoor's ID token is its access token; the one here is that of other libraries.
            issuers.casdoor("https://casdoor.example.com", audience="casdoor-client"),
            more_providers.casdoor,
            refresh_token={"tokenType": "refresh-token"},
        ),
        "xsuaa": _described(
            "SAP XSUAA",
            issuers.xsuaa("acme.authentication.eu10.hana.ondemand.com", xsappname="notes!t123"),
            more_providers.xsuaa,
            says=("tenant",),
        ),
        "supabase": _described(
            "Supabase",
            issuers.supabase("abcdefghijklmnopqrst"),
            more_providers.supabase,
            id_token={"role": None},
        ),
        "zitadel": _described(
            "ZITADEL",
            issuers.zitadel("acme.zitadel.cloud", project="271828182845904523"),
            more_providers.zitadel,
        ),
        "ory": _described(
            "Ory", issuers.ory("https://acme.projects.oryapis.com"), more_providers.ory
        ),
        "google": _described(
            "Google",
            issuers.google("1234567890-app.apps.googleusercontent.com", id_tokens=True),
            more_providers.google,
            # With a code beside it, as of Dex: other ID tokens are its tokens.
            id_token={"c_hash": "LDktKdoQak3Pk0cnXxCltA"},
        ),
    }
)
"""The providers that :meth:`toolguard.testing.LocalIssuer.like` knows."""
