"""Issuers as environment variables describe them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from toolguard.tokens.issuers import hosted, microsoft, self_hosted
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.network import Network

__all__ = ["issuers_from"]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
_PLAIN: Mapping[str, Callable[..., Issuer]] = {
    "auth0": hosted.auth0,
    "okta": hosted.okta,
    "descope": hosted.descope,
    "workos": hosted.workos,
    "supabase": hosted.supabase,
    "zitadel": hosted.zitadel,
    "google": lambda value, **more: hosted.google(value.split(","), **more),
    "ory": hosted.ory,
    "adfs": microsoft.adfs,
    "keycloak": self_hosted.keycloak,
    "authentik": self_hosted.authentik,
    "dex": self_hosted.dex,
    "casdoor": self_hosted.casdoor,
}
# Those whose tokens for this server name the client, or the application, of TOOLGUARD_CLIENT_ID.
_BY_CLIENT: Mapping[str, Callable[[str, list[str], dict[str, Any]], Issuer]] = {
    "entra": lambda value, clients, more: microsoft.entra(
        value.split(","), client_id=clients[0], **more
    ),
    "azure_b2c": lambda value, clients, more: _azure_b2c(value, clients[0], more),
    "cognito": lambda value, clients, more: hosted.cognito(value, clients=clients, **more),
    "xsuaa": lambda value, clients, more: self_hosted.xsuaa(value, xsappname=clients[0], **more),
}


def issuers_from(environ: Mapping[str, str]) -> list[Issuer]:
    """Return the issuers in ``TOOLGUARD_ISSUER``, with the settings of the other variables.

    Each word is the URL of an issuer, or the name of a preset, a colon and its first argument.

    Raises:
        ValueError: naming the variable and its value.

    >>> issuers_from({"TOOLGUARD_ISSUER": "https://id.example.com auth0:acme.eu.auth0.com"})
    [Issuer('https://id.example.com'), Issuer('https://acme.eu.auth0.com/')]
    """
    clients = environ.get("TOOLGUARD_CLIENT_ID", "").split()
    settings = _settings(environ)
    return [
        _described(word, clients, settings) for word in environ.get("TOOLGUARD_ISSUER", "").split()
    ]


def _described(word: str, clients: list[str], settings: dict[str, Any]) -> Issuer:
    name, _, value = word.partition(":")
    try:
        if name in _PLAIN:
            return _PLAIN[name](value, **settings)
        if name in _BY_CLIENT:
            if not clients:
                raise ValueError("set TOOLGUARD_CLIENT_ID, which tells whose tokens are accepted")  # noqa: TRY301
            return _BY_CLIENT[name](value, clients, settings)
        return Issuer(word, **settings)
    except ValueError as error:
        # A URL may hold a password: the error tells what is wrong with it.
        shown = repr(word) if "@" not in word else "a URL"
        raise ValueError(f"TOOLGUARD_ISSUER holds {shown}: {error}") from None


def _azure_b2c(value: str, client_id: str, more: dict[str, Any]) -> Issuer:
    words = value.split(",")
    if len(words) != 3 or not all(words):  # noqa: PLR2004 - the words below
        raise ValueError("write azure_b2c:NAME,TENANT-ID,POLICY, such as contoso,775527ff,B2C_1_in")
    tenant, tenant_id, policy = words
    return microsoft.azure_b2c(
        tenant, tenant_id=tenant_id, policy=policy, client_id=client_id, **more
    )


def _settings(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    leeway = environ.get("TOOLGUARD_LEEWAY")
    if leeway:
        try:
            found["leeway"] = float(leeway)
        except ValueError:
            raise ValueError(
                f"TOOLGUARD_LEEWAY is {leeway!r}: write a number of seconds from 0 to 300"
            ) from None
        if not 0 <= found["leeway"] <= 300:  # noqa: PLR2004 - RFC 9068 §4: a few minutes
            raise ValueError(f"TOOLGUARD_LEEWAY is {leeway!r}: write seconds from 0 to 300")
    origins = environ.get("TOOLGUARD_INSECURE_ORIGINS", "").split()
    if origins:
        try:
            found["network"] = Network(insecure_origins=origins)
        except ValueError as error:
            raise ValueError(f"TOOLGUARD_INSECURE_ORIGINS: {error}") from None
    types = environ.get("TOOLGUARD_TOKEN_TYPES", "").split()
    if types:
        found["token_types"] = types
    flag = environ.get("TOOLGUARD_PERMISSIONS_ARE_SCOPES", "").lower()
    if flag not in _TRUE | _FALSE:
        raise ValueError(f"TOOLGUARD_PERMISSIONS_ARE_SCOPES is {flag!r}: write true or false")
    if flag in _TRUE:
        found["permissions_are_scopes"] = True
    return found
