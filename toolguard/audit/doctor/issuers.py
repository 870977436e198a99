"""Look at an authorization server as a client, and as the guard, finds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from toolguard.audit.doctor.diagnosis import Diagnosis
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.parsing.strict_json import lenient_object
from toolguard.parts.unanswered import why_unanswered

__all__ = ["look_at_issuer"]


async def look_at_issuer(
    client: httpx.AsyncClient, issuer: str, scopes: Collection[str] = ()
) -> AsyncIterator[Diagnosis]:
    """Yield what is wrong with an issuer's metadata and keys.

    Args:
        client: makes the requests.
        issuer: the issuer, as the server names it.
        scopes: the scopes that the server's operations need.
    """
    found = await _metadata(client, issuer)
    if isinstance(found, str):
        yield Diagnosis(
            "issuer-unreachable",
            issuer,
            "metadata at /.well-known/oauth-authorization-server or openid-configuration",
            f"none: {found}",
            "check the issuer URL, and that this machine (and the server) may reach it",
        )
        return
    for each in (*_named(issuer, found), *_offered(issuer, found, scopes)):
        yield each
    keys = await _document(client, str(found.get("jwks_uri")))
    if isinstance(keys, str) or not keys.get("keys"):
        yield Diagnosis(
            "issuer-without-keys",
            issuer,
            "signing keys at jwks_uri",
            f"none: {keys}" if isinstance(keys, str) else "none",
            "check jwks_uri; for opaque tokens use a verifier with introspection",
        )


def _named(issuer: str, found: Mapping[str, Any]) -> Iterator[Diagnosis]:
    named = str(found.get("issuer"))
    if "{" in named:
        yield Diagnosis(
            "issuer-template",
            issuer,
            "the issuer of one tenant",
            f"a template, {named}",
            "name the tenant's own issuer instead of a common one",
        )
    elif named != issuer:
        yield Diagnosis(
            "issuer-differs",
            issuer,
            f"metadata of {issuer}, to the last slash (RFC 8414 §3.3)",
            f"metadata of {named}",
            f'write issuer="{named}" if its tokens have that in iss',
        )


def _offered(issuer: str, found: Mapping[str, Any], scopes: Collection[str]) -> Iterator[Diagnosis]:
    methods = found.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield Diagnosis(
            "issuer-without-pkce",
            issuer,
            "S256 among code_challenge_methods_supported",
            "none" if methods is None else "others",
            "switch PKCE on: MCP clients refuse to sign in without it",
        )
    offered = found.get("scopes_supported")
    if isinstance(offered, list) and (lacking := [s for s in scopes if s not in offered]):
        yield Diagnosis(
            "scopes-not-offered",
            issuer,
            f"scopes {' '.join(lacking)} among scopes_supported",
            "they are not",
            "define them at the issuer, or correct the guards",
        )


async def _metadata(client: httpx.AsyncClient, issuer: str) -> dict[str, Any] | str:
    """Return the metadata of an issuer, or a text with the reason why it cannot be read."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    reason = ""
    for url in (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    ):
        found = await _document(client, url)
        if not isinstance(found, str):
            return found
        reason = found
    return reason


async def _document(client: httpx.AsyncClient, url: str) -> dict[str, Any] | str:
    """Return the JSON object at a URL, or a text with the reason why it cannot be read."""
    if not is_secure_url(url):
        return "no https URL"
    try:
        response = await client.get(url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return why_unanswered(error)
    if response.status_code != httpx.codes.OK:
        return f"HTTP {response.status_code}"
    found = lenient_object(response.content)
    return "no JSON object" if found is None else found
