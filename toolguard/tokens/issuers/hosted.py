"""Authorization servers as a service, besides those of Microsoft."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from toolguard.parsing.kinds import of_kind
from toolguard.parsing.scope_names import ScopeNames
from toolguard.parsing.secure_urls import secure_origin
from toolguard.tokens.issuers.issuer import Issuer, host_of
from toolguard.tokens.tokeninfo import TokenInfo

__all__ = ["auth0", "cognito", "descope", "google", "okta", "ory", "supabase", "workos", "zitadel"]

_DESCOPE_URL = re.compile(
    r"(?P<path>/(?:v1/apps/(?:agentic/)?)?(?P<project>P[A-Za-z0-9_-]+)(?:/[A-Za-z0-9_-]+)?)/?"
    r"(?:\.well-known/(?:openid-configuration|oauth-authorization-server))?"
)
_POOL = re.compile(
    r"(?:https://cognito-idp\.(?P<host>[a-z0-9-]+)\.amazonaws\.com/)?"
    r"(?P<pool>(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9])_[A-Za-z0-9]+)/?"
)


def descope(
    project: str,
    *,
    host: str = "https://api.descope.com",
    servers: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    **settings: Any,
) -> Issuer:
    """Return Descope, for one project.

    Descope, "MCP Servers" and "Inbound Apps": one project signs with the same keys as
    ``HOST/PROJECT``, ``HOST/v1/apps/PROJECT``, ``HOST/v1/apps/agentic/PROJECT/SERVER`` and
    ``HOST/v1/apps/PROJECT/TENANT``. The audience tells its servers apart: it is the server's URL,
    or the project id, which a server only accepts if the guard's ``audience`` says so.

    Args:
        project: the project id, or any well-known URL or issuer of the project, which is then
            the one that clients are told of.
        host: the origin of the API, for a custom domain; given an id.
        servers: the ids of the MCP servers whose issuers are accepted; None for all of the
            project.
        tenants: the ids of the tenants whose issuers are accepted; None for all of the project.
        settings: further fields of :class:`Issuer`.

    Raises:
        ValueError: if ``project`` is neither the id nor a URL of one.

    >>> descope("P2abc").url
    'https://api.descope.com/P2abc'
    >>> url = "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration"
    >>> descope(url).url
    'https://api.descope.com/v1/apps/agentic/P2abc/MS3d'
    """
    of_kind("project", project, str, 'descope("P2abc...")')
    url = project if "://" in project else f"{host}/{project}"
    origin = secure_origin(url)
    match = None if origin is None else _DESCOPE_URL.fullmatch(url, pos=len(origin))
    if origin is None or match is None:
        raise ValueError('write descope("P2abc..."): the id of a project, or a URL of it')
    apps = f"{origin}/v1/apps"
    given: dict[str, Any] = {
        "names": [
            f"{origin}/{match['project']}",
            f"{apps}/{match['project']}",
            f"{apps}/agentic/{match['project']}/{{server}}",
            f"{apps}/{match['project']}/{{tenant}}",
        ],
        "members": {"server": servers, "tenant": tenants},
    }
    return Issuer(origin + match["path"], **{**given, **settings})


def auth0(domain: str, **settings: Any) -> Issuer:
    """Return Auth0.

    Auth0, "Access Token Profiles": the issuer is ``https://DOMAIN/``, with the slash. With RBAC
    and "Add Permissions in the Access Token" the rights are in ``permissions``: write
    ``permissions_are_scopes=True`` to count them as scopes.

    Args:
        domain: the domain of the tenant, or a custom one.
        settings: further fields of :class:`Issuer`.

    >>> auth0("acme.eu.auth0.com").url
    'https://acme.eu.auth0.com/'
    """
    return Issuer(f"https://{host_of(domain)}/", **settings)


def okta(issuer: str, **settings: Any) -> Issuer:
    """Return a custom authorization server of Okta.

    Okta, "OpenID Connect & OAuth 2.0 API": access tokens of custom authorization servers are JWTs
    with ``cid``; those of the org authorization server are opaque to anybody else.

    Args:
        issuer: the issuer, such as ``https://acme.okta.com/oauth2/default``.
        settings: further fields of :class:`Issuer`.

    Raises:
        ValueError: if ``issuer`` is Okta's org authorization server.
    """
    of_kind("issuer", issuer, str, 'okta("https://acme.okta.com/oauth2/default")')
    if "/oauth2/" not in issuer:
        raise ValueError(
            "tokens of Okta's org authorization server are for Okta itself: write the issuer of "
            'a custom one, okta("https://acme.okta.com/oauth2/default")'
        )
    return Issuer(issuer, **{"must_carry": {"cid": None}, **settings})


def cognito(
    pool: str, *, clients: Sequence[str], resource_server: str | None = None, **settings: Any
) -> Issuer:
    """Return a user pool of Amazon Cognito.

    Amazon Cognito, "Understanding the access token": ``token_use`` is ``access``. There is no
    ``aud``, unless the client asked for a resource: then it has to be this server. Without one,
    the app client tells what the token is for, so it has to be one of a list.

    Args:
        pool: the id of the user pool, such as ``eu-west-1_Abc``, or its URL.
        clients: the ids of the app clients that are for this server.
        resource_server: the identifier of the resource server, which is written before the name
            of each scope: then tools use the short name.
        settings: further fields of :class:`Issuer`.

    Raises:
        ValueError: if ``pool`` is not a user pool, or no client is named.

    >>> cognito("eu-west-1_Abc", clients=["1example23456789"]).url
    'https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc'
    """
    match = _POOL.fullmatch(pool)
    if match is None or match["host"] not in (None, match["region"]):
        raise ValueError('write cognito("eu-west-1_Abc", clients=[...]): the id of a user pool')
    if isinstance(clients, str) or not clients:
        raise ValueError("write clients=[...]: the app clients whose tokens are for this server")
    url = f"https://cognito-idp.{match['region']}.amazonaws.com/{match['pool']}"
    given: dict[str, Any] = {"clients": clients, "must_carry": {"token_use": "access"}}
    if resource_server is not None:
        given["scope_names"] = ScopeNames(f"{resource_server}/", in_tokens=True)
    return Issuer(url, **{**given, **settings})


def google(
    clients: str | Sequence[str],
    *,
    id_tokens: bool = False,
    hosted_domain: str | None = None,
    cache_for: float = 0.0,
    **settings: Any,
) -> Issuer:
    """Return Google, for the tokens of OAuth clients of your own.

    google-auth-library, ``TokenInfo``: access tokens are opaque; the tokeninfo endpoint names
    the client in ``aud``, and the user in ``sub`` only if the client asked for the scope
    ``openid``, which every client is told to do. "OAuth 2.0 Scopes for Google APIs": a token
    names ``email`` and ``profile`` by their URLs; tools use the short names.

    Google, "OpenID Connect": an ID token has ``iss`` ``https://accounts.google.com``, in old
    clients without the scheme, the client as ``aud``, and ``hd`` for an account of a Workspace.
    It grants no scopes.

    Args:
        clients: the client ids whose tokens are for this server: the ``aud``.
        id_tokens: whether the ID tokens of these clients are accepted beside their access tokens.
            An ID token was made for a client, which learns from it who signed in: whoever gets
            hold of one can use it here until it expires.
        hosted_domain: the Workspace domain whose accounts are accepted (``hd``). Only ID tokens
            tell it, so that access tokens are refused; for these make the app an internal one.
        cache_for: seconds for which an answer about an access token is used again, 0 to 300.
        settings: further fields of :class:`Issuer`; ``audience`` for other values of ``aud``, such
            as the URL of this server in ID tokens of service accounts.

    Raises:
        ValueError: if no client is named, or ``hosted_domain`` is given without ID tokens.

    >>> google("1234567890-app.apps.googleusercontent.com").audiences
    ('1234567890-app.apps.googleusercontent.com',)
    """
    if not clients:
        raise ValueError("write google(CLIENT_ID): the OAuth clients whose tokens are accepted")
    if hosted_domain is not None and not (id_tokens and hosted_domain):
        raise ValueError(
            "only ID tokens have the domain of an account: write google(..., id_tokens=True, "
            'hosted_domain="example.com"), or make the app internal to the organization'
        )
    apis = "https://www.googleapis.com/auth/userinfo"
    names = {"email": f"{apis}.email", "profile": f"{apis}.profile"}
    given: dict[str, Any] = {
        "names": ["https://accounts.google.com", "accounts.google.com"],
        "audience": clients,
        "may_carry": ("at_hash", "nonce") if id_tokens else (),
        "must_carry": {"sub": None, **({"hd": hosted_domain} if hosted_domain else {})},
        "scope_names": ScopeNames(named=names, in_tokens=True, always=("openid",)),
        "introspection": TokenInfo(cache_for=cache_for, jwts=id_tokens),
    }
    return Issuer("https://accounts.google.com", **{**given, **settings})


def workos(domain: str, **settings: Any) -> Issuer:
    """Return WorkOS AuthKit, for MCP and Connect applications.

    WorkOS, "Connect: Access token claims": the resource indicator becomes ``aud``. Session tokens
    of user management (``https://api.workos.com/user_management/...``) name no audience, so they
    are not accepted: any application of the environment could present them.

    Args:
        domain: the AuthKit domain, such as ``acme.authkit.app``.
        settings: further fields of :class:`Issuer`.
    """
    return Issuer(f"https://{host_of(domain)}", **settings)


def supabase(project: str, **settings: Any) -> Issuer:
    """Return Supabase Auth, with asymmetric signing keys.

    Supabase, "JWT Claims Reference": the issuer is ``https://PROJECT.supabase.co/auth/v1``, and
    ``aud`` and ``role`` are ``authenticated`` in the tokens of *every* application of the project:
    nothing tells that a token was meant for this server.

    Args:
        project: the project reference, or the host of a custom domain.
        settings: further fields of :class:`Issuer`.

    >>> supabase("abcdefghijklmnopqrst").url
    'https://abcdefghijklmnopqrst.supabase.co/auth/v1'
    """
    of_kind("project", project, str, 'supabase("abcdefghijklmnopqrst")')
    host = host_of(project if "." in project else f"{project}.supabase.co")
    given: dict[str, Any] = {
        "audience": "authenticated",
        "must_carry": {"role": "authenticated"},
    }
    return Issuer(f"https://{host}/auth/v1", **{**given, **settings})


def zitadel(domain: str, *, project: str | None = None, **settings: Any) -> Issuer:
    """Return ZITADEL, for applications with JWT access tokens.

    ZITADEL, "Opaque Tokens and JWTs" and "Scopes": with the scope
    ``urn:zitadel:iam:org:project:id:PROJECT:aud`` the project id is in ``aud``.

    Args:
        domain: the domain of the instance.
        project: the id of the project, as the audience; None for the guard's audience.
        settings: further fields of :class:`Issuer`.
    """
    given: dict[str, Any] = {} if project is None else {"audience": project}
    return Issuer(f"https://{host_of(domain)}", **{**given, **settings})


def ory(url: str, **settings: Any) -> Issuer:
    """Return Ory Network or a self-hosted Hydra, with the JWT access token strategy.

    Ory, "JWT access tokens": ``scp`` is a list, and ``aud`` is what the client was allowed to ask
    for. The default strategy is opaque tokens.

    Args:
        url: the issuer, such as ``https://PROJECT.projects.oryapis.com``.
        settings: further fields of :class:`Issuer`.
    """
    return Issuer(url, **{"must_carry": {"client_id": None}, **settings})
