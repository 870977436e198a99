"""Microsoft's authorization servers: Entra ID, Azure AD B2C, AD FS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toolguard.parsing.kinds import of_kind, text_list
from toolguard.parsing.scope_names import ScopeNames
from toolguard.tokens.issuers.issuer import Issuer, host_of

__all__ = ["adfs", "azure_b2c", "entra"]

_PUBLIC = "login.microsoftonline.com"


def entra(
    tenant: str | Sequence[str], *, client_id: str, host: str = _PUBLIC, **settings: Any
) -> Issuer:
    """Return Microsoft Entra ID, for one tenant or for an allow-list of tenants.

    Microsoft identity platform, "Access token claims reference": version 2.0 tokens have the
    issuer ``https://login.microsoftonline.com/TENANT/v2.0`` and the client id of the API as
    ``aud``; version 1.0 tokens have ``https://sts.windows.net/TENANT/``, and mostly ``api://`` and
    that id. ``tid`` repeats the tenant. "Access tokens", validating the signing key: a key has an
    ``issuer``, whose tenant must be that of the token. Only access tokens name the client that
    got them (``azp``, ``appid``).

    Args:
        tenant: the id of the tenant (a GUID), or a list of ids: the tenants that may sign in. Of
            several tenants, keys and metadata are those of ``organizations``.
        client_id: the application (client) id of this server's app registration.
        host: the authority, for other clouds than the public one.
        settings: further fields of :class:`Issuer`; ``audience`` for another Application ID URI.

    Raises:
        ValueError: if no tenant is named, or a common one.

    >>> entra("aaaabbbb-0000-cccc-1111-dddd2222eeee", client_id="00001111-aaaa-2222").audiences
    ('00001111-aaaa-2222', 'api://00001111-aaaa-2222')
    """
    listed = [tenant] if isinstance(tenant, str) else tenant
    tenants = text_list("tenant", listed, 'entra("TENANT-ID", client_id="CLIENT-ID")')
    if not tenants or {"common", "organizations", "consumers", ""}.intersection(tenants):
        raise ValueError(
            "entra() takes the ids of the tenants that may sign in: write "
            'entra(["aaaabbbb-0000-cccc-1111-dddd2222eeee"], client_id=...); further ones can be '
            "added while serving, with guard.add_issuer"
        )
    template = f"https://{host_of(host)}/{{tenantid}}/v2.0"
    names = [template, "https://sts.windows.net/{tenantid}/"] if host == _PUBLIC else [template]
    published = [template.replace("{tenantid}", each) for each in tenants]
    several: dict[str, Any] = {}
    if len(tenants) > 1:
        url = template.replace("{tenantid}", "organizations")
        several = {
            "metadata_url": f"{url}/.well-known/openid-configuration",
            "metadata_issuer": template,
            "published": published,
        }
    given: dict[str, Any] = {
        "names": names,
        "members": {"tenantid": tenants},
        "member_claims": {"tenantid": "tid"},
        "key_issuer_claim": "tid",
        "audience": (client_id, f"api://{client_id}"),
        "must_carry_one_of": ("azp", "appid"),
        # "Scopes and permissions": a client asks for api://APP/notes.read, and gets notes.read.
        "scope_names": ScopeNames(f"api://{client_id}/"),
        **several,
    }
    return Issuer(url if several else published[0], **{**given, **settings})


def azure_b2c(
    tenant: str, *, tenant_id: str, policy: str, client_id: str, **settings: Any
) -> Issuer:
    """Return Azure AD B2C, for one user flow or custom policy.

    Azure AD B2C, "Overview of tokens": the issuer is ``https://NAME.b2clogin.com/TENANT-ID/v2.0/``,
    and the metadata is below the name of the tenant and the policy. Only access
    tokens name the client that got them (``azp``).

    Args:
        tenant: the name of the tenant, such as ``contoso``.
        tenant_id: its id (a GUID).
        policy: the user flow or policy, such as ``B2C_1_signin``.
        client_id: the application (client) id of this server's app registration.
        settings: further fields of :class:`Issuer`.

    >>> azure_b2c("contoso", tenant_id="775527ff", policy="B2C_1_signin", client_id="90c0fe63").url
    'https://contoso.b2clogin.com/775527ff/v2.0/'
    """
    host = host_of(f"{tenant}.b2clogin.com")
    metadata = f"https://{host}/{tenant}.onmicrosoft.com/{policy}/v2.0/.well-known"
    given: dict[str, Any] = {
        "metadata_url": f"{metadata}/openid-configuration",
        "audience": client_id,
        "must_carry": {"azp": None},
        "may_carry": ("nonce",),
    }
    return Issuer(f"https://{host}/{tenant_id}/v2.0/", **{**given, **settings})


def adfs(server: str, *, access_token_issuer: str | None = None, **settings: Any) -> Issuer:
    """Return Active Directory Federation Services.

    AD FS, "OpenID Connect discovery": the metadata of ``https://HOST/adfs`` has an
    ``access_token_issuer`` beside ``issuer``; by default it is the federation service identifier,
    ``http://HOST/adfs/services/trust``, which is a name and not an address. Access tokens have the
    ``appid`` of the client.

    Args:
        server: the host, such as ``adfs.example.com``, or its URL.
        access_token_issuer: the ``iss`` of access tokens, if it is not that identifier; by default
            it is read from the metadata, if no other issuer is trusted.
        settings: further fields of :class:`Issuer`.

    >>> adfs("adfs.example.com").names
    ('http://adfs.example.com/adfs/services/trust',)
    """
    of_kind("server", server, str, 'adfs("adfs.example.com")')
    host = host_of(server.rstrip("/").removesuffix("/adfs"))
    given: dict[str, Any] = {
        "names": [access_token_issuer or f"http://{host}/adfs/services/trust"],
        "reads_token_issuer": access_token_issuer is None,
        "must_carry": {"appid": None},
    }
    return Issuer(f"https://{host}/adfs", **{**given, **settings})
