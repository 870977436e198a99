"""Authorization servers that people run themselves."""

from __future__ import annotations

from typing import Any

from toolguard.parsing.kinds import of_kind
from toolguard.parsing.scope_names import ScopeNames
from toolguard.tokens.issuers.issuer import Issuer, host_of

__all__ = ["authentik", "casdoor", "dex", "keycloak", "xsuaa"]


def keycloak(realm: str, **settings: Any) -> Issuer:
    """Return a realm of Keycloak.

    Keycloak, "Server Administration Guide", audience support: without an audience mapper a token
    does not name this server: add a mapper of the type "Audience" to a client scope. ``account``
    is the audience of every client of the realm. ``typ`` says that a token is an access token.

    Args:
        realm: the issuer, ``https://sso.example.com/realms/acme``.
        settings: further fields of :class:`Issuer`.

    Raises:
        ValueError: if ``realm`` is not the issuer URL of a realm.
    """
    of_kind("realm", realm, str, 'keycloak("https://sso.example.com/realms/acme")')
    if "/realms/" not in realm:
        raise ValueError('write keycloak("https://sso.example.com/realms/acme"): a realm')
    return Issuer(realm.rstrip("/"), **{"must_carry": {"typ": "Bearer"}, **settings})


def authentik(application: str, **settings: Any) -> Issuer:
    """Return an application of authentik.

    authentik, "OAuth2 provider": the issuer is ``https://HOST/application/o/SLUG/``, with the
    slash; ``aud`` is the client id. Its access tokens are its ID tokens with ``azp`` and ``uid``
    added (authentik/providers/oauth2/id_token.py), and a ``nonce`` if the client sent one.

    Args:
        application: the issuer.
        settings: further fields of :class:`Issuer`.

    >>> authentik("https://id.example.com/application/o/mcp").url
    'https://id.example.com/application/o/mcp/'
    """
    given: dict[str, Any] = {
        "may_carry": ("nonce",),
        "must_carry": {"azp": None, "uid": None},
    }
    of_kind(
        "application", application, str, 'authentik("https://id.example.com/application/o/mcp")'
    )
    return Issuer(application.rstrip("/") + "/", **{**given, **settings})


def dex(issuer: str, **settings: Any) -> Issuer:
    """Return Dex.

    Dex, server/oauth2.go: an access token is made as an ID token is, with ``at_hash`` and the
    client as ``aud``. So an ID token of an accepted client is accepted too; nothing tells them
    apart.

    Args:
        issuer: the issuer, such as ``https://dex.example.com``.
        settings: further fields of :class:`Issuer`; ``audience``: the ids of the clients.
    """
    return Issuer(issuer, **{"may_carry": ("at_hash", "nonce"), **settings})


def casdoor(url: str, **settings: Any) -> Issuer:
    """Return Casdoor.

    Casdoor, object/token_jwt.go: ``tokenType`` is ``access-token``, or ``refresh-token``; there is
    a ``nonce`` if the client sent one, and ``aud`` is the client id. The ID token is the same JWT.

    Args:
        url: the issuer, the origin of Casdoor.
        settings: further fields of :class:`Issuer`; ``audience``: the ids of the clients.
    """
    given: dict[str, Any] = {
        "may_carry": ("nonce",),
        "must_carry": {"tokenType": "access-token"},
    }
    return Issuer(url, **{**given, **settings})


def xsuaa(server: str, *, xsappname: str, **settings: Any) -> Issuer:
    """Return SAP XSUAA, or another Cloud Foundry UAA.

    Cloud Foundry UAA API, "Token Keys", and SAP, "JWT of XSUAA": the issuer is
    ``https://HOST/oauth/token``, every header has ``jku``, which is ignored here, and ``aud``
    names the applications whose scopes are granted.

    Args:
        server: the host, such as ``acme.authentication.eu10.hana.ondemand.com``.
        xsappname: the application name, such as ``notes!t123``; the audience.
        settings: further fields of :class:`Issuer`.

    >>> xsuaa("acme.authentication.eu10.hana.ondemand.com", xsappname="notes!t123").jwks_url
    'https://acme.authentication.eu10.hana.ondemand.com/token_keys'
    """
    host = host_of(server)
    given: dict[str, Any] = {
        "jwks_url": f"https://{host}/token_keys",
        "audience": xsappname,
        "ignored_parameters": ("jku",),
        "must_carry": {"cid": None},
        "scope_names": ScopeNames(f"{xsappname}.", in_tokens=True),
    }
    return Issuer(f"https://{host}/oauth/token", **{**given, **settings})
