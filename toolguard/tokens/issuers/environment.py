"""Issuers as environment variables describe them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from toolguard.tokens.issuers import hosted, microsoft, self_hosted
from toolguard.tokens.issuers.issuer import MAX_LEEWAY, Issuer
from toolguard.tokens.network import DEFAULT_NETWORK, Network

__all__ = ["issuers_from", "settings_from"]

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}
# RFC 6838 §4.2: the characters of a media type.
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+/-]+", re.ASCII)
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

_KNOWN = frozenset({*_PLAIN, *_BY_CLIENT})
_ARGUMENTS = {
    "auth0": "acme.eu.auth0.com",
    "azure_b2c": "NAME,TENANT-ID,POLICY",
    "cognito": "eu-west-1_Abc",
    "descope": "PROJECT-ID",
    "entra": "TENANT-ID",
    "google": "CLIENT-ID",
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
    settings = settings_from(environ)
    words = environ.get("TOOLGUARD_ISSUER", "").split()
    repeated = next((word for word in words if words.count(word) > 1), None)
    if repeated is not None:
        raise ValueError(f"TOOLGUARD_ISSUER holds {_shown(repeated)} twice: write it once")
    return [_described(word, clients, settings) for word in words]


def _described(word: str, clients: list[str], settings: dict[str, Any]) -> Issuer:
    name, _, value = word.partition(":")
    try:
        if name not in ("https", "http") and not (value and name in _KNOWN):
            raise ValueError(_what_to_write(name))  # noqa: TRY301
        if name in _PLAIN:
            return _PLAIN[name](value, **settings)
        if name in _BY_CLIENT:
            if not clients:
                raise ValueError("set TOOLGUARD_CLIENT_ID to the clients whose tokens are accepted")  # noqa: TRY301
            return _BY_CLIENT[name](value, clients, settings)
        return Issuer(word, **settings)
    except ValueError as error:
        fault = _fault_of_url(word if name == "http" else value, settings) or error
        raise ValueError(f"TOOLGUARD_ISSUER holds {_shown(word)}: {fault}") from None


def _fault_of_url(url: str, settings: dict[str, Any]) -> str | None:
    """Return what to write for a URL that another way of writing the variables would admit."""
    if ",http" in url:
        return "separate issuers by blanks, not by commas"
    network: Network = settings.get("network", DEFAULT_NETWORK)
    parts = urlsplit(url)
    origin = f"http://{parts.netloc}"
    if parts.scheme != "http" or "@" in parts.netloc or network.admits(origin):
        return None
    return (
        "keys are not fetched by plain http from another machine: write its https URL, or, in a "
        f"network of containers, set TOOLGUARD_INSECURE_ORIGINS={origin} as well"
    )


def _what_to_write(name: str) -> str:
    if name in _KNOWN:
        return f"a preset takes an argument: write {name}:{_ARGUMENTS.get(name, 'ARGUMENT')}"
    return (
        "it is neither a URL, such as https://auth.example.com, nor a preset with an argument: "
        f"{', '.join(sorted(_KNOWN))}"
    )


def _shown(word: str) -> str:
    """Return a word for a message; a URL may hold a password."""
    return repr(word) if "@" not in word else "a URL"


def _azure_b2c(value: str, client_id: str, more: dict[str, Any]) -> Issuer:
    words = value.split(",")
    if len(words) != 3 or not all(words):  # noqa: PLR2004 - the words below
        raise ValueError("write azure_b2c:NAME,TENANT-ID,POLICY, such as contoso,775527ff,B2C_1_in")
    tenant, tenant_id, policy = words
    return microsoft.azure_b2c(
        tenant, tenant_id=tenant_id, policy=policy, client_id=client_id, **more
    )


def settings_from(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of every :class:`Issuer` that the other variables set.

    Raises:
        ValueError: naming the variable and its value.
    """
    found: dict[str, Any] = {}
    leeway = environ.get("TOOLGUARD_LEEWAY")
    if leeway:
        found["leeway"] = _leeway(leeway)
    origins = environ.get("TOOLGUARD_INSECURE_ORIGINS", "").split()
    if origins:
        try:
            found["network"] = Network(insecure_origins=origins)
        except ValueError as error:
            raise ValueError(f"TOOLGUARD_INSECURE_ORIGINS: {error}") from None
    types = environ.get("TOOLGUARD_TOKEN_TYPES", "").split()
    wrong = next((each for each in types if not _TYPE.fullmatch(each)), None)
    if wrong is not None:
        raise ValueError(
            f"TOOLGUARD_TOKEN_TYPES holds {wrong!r}: write types separated by blanks, at+jwt JWT"
        )
    if types:
        found["token_types"] = types
    flag = environ.get("TOOLGUARD_PERMISSIONS_ARE_SCOPES", "")
    if flag.lower() not in _TRUE | _FALSE:
        raise ValueError(f"TOOLGUARD_PERMISSIONS_ARE_SCOPES is {flag!r}: write true or false")
    if flag.lower() in _TRUE:
        found["permissions_are_scopes"] = True
    return found


def _leeway(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    # NaN fails this comparison, too.
    if not 0 <= seconds <= MAX_LEEWAY:
        raise ValueError(
            f"TOOLGUARD_LEEWAY is {value!r}: write a number of seconds from 0 to {MAX_LEEWAY}"
        )
    return seconds
