"""Discover the endpoints of an issuer (RFC 8414, OpenID Connect Discovery).

This module knows which URLs to request and how to validate the metadata. The caller passes the
function that fetches a document; this module does no I/O of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from toolguard.errors import KeysUnavailableError
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.keys import KeySetError, parse_json

__all__ = ["EndpointLocation", "discovery_urls", "issuer_of", "read_metadata"]

_FRESH_FOR = 3_600.0
_WELL_KNOWN = ("oauth-authorization-server", "openid-configuration")


class EndpointLocation:
    """The location of an endpoint, such as a JWK set: a given URL, or a member of the metadata.

    Args:
        url: the URL of the endpoint.
        issuer: the issuer, whose metadata is to be discovered; with ``well_known_url``, the
            ``issuer`` that the metadata there has to name.
        well_known_url: the URL of the issuer's metadata.
        member: the member of the metadata that has the URL.
        admits: returns whether a URL may be requested.

    Raises:
        ValueError: if it is not clear where the endpoint is, or not by a secure URL.
    """

    def __init__(
        self,
        *,
        url: str | None,
        issuer: str | None,
        well_known_url: str | None,
        member: str = "jwks_uri",
        admits: Callable[[str], bool] = is_secure_url,
    ) -> None:
        named = None if well_known_url is not None else issuer
        given = [address for address in (url, named, well_known_url) if address is not None]
        if len(given) != 1 or (url is not None and issuer is not None):
            raise ValueError(
                'give one address of the keys: issuer="https://auth.example.com", url= of a JWK '
                "set, or well_known_url="
            )
        # RFC 8414 §2: an issuer has neither query nor fragment.
        if not admits(given[0]) or (named is not None and "?" in named):
            raise ValueError(
                f"the {member} and the metadata come from an https URL (http only on this machine) "
                "without user name and fragment, and an issuer has no query: write "
                "https://auth.example.com"
            )
        self.address = given[0]
        self._member = member
        self._admits = admits
        #: The issuer, as given or discovered.
        self.issuer = issuer
        #: The ``iss`` of access tokens, where the metadata names another one (AD FS).
        self.token_issuer: str | None = None
        self._documents = () if url else discovery_urls(named) if named else (self.address,)
        self._url = url or ""
        self._known_until = -math.inf if self._documents else math.inf

    def known(self, now: float) -> str | None:
        """Return the URL of the endpoint; None if it has to be discovered first."""
        return self._url if now < self._known_until else None

    def find(self, get: Callable[[str], bytes], now: float) -> str:
        """Return the URL of the endpoint; discover it once an hour, and after ``forget``.

        Raises:
            KeysUnavailableError: if no valid metadata can be fetched.
        """
        if self.known(now) is None:
            self.issuer, self._url = self._discover(get)
            self._known_until = now + _FRESH_FOR
        return self._url

    def forget(self) -> None:
        """Discover again at the next ``find``: the endpoint may have moved."""
        if self._documents:
            self._known_until = -math.inf

    def _discover(self, get: Callable[[str], bytes]) -> tuple[str, str]:
        problems = []
        for url in self._documents:
            try:
                metadata = parse_json(get(url))
                found = read_metadata(
                    metadata,
                    issuer=self.issuer,
                    source=self.address,
                    member=self._member,
                    admits=self._admits,
                )
            except (KeySetError, KeysUnavailableError, OSError) as error:
                problems.append(f"{url}: {error}")
                continue
            # Users are known by their issuer: once discovered, it does not change.
            named = metadata.get("access_token_issuer")
            if self.token_issuer is None and isinstance(named, str):
                self.token_issuer = named or None
            return found
        raise KeysUnavailableError(f"no metadata of the issuer ({'; '.join(problems)})")


def discovery_urls(issuer: str) -> tuple[str, ...]:
    """Return the URLs at which the metadata of an issuer may be, in the order to try.

    RFC 8414 §3 inserts the well-known part before the path, OpenID Connect Discovery §4 appends
    it. Both forms are tried with both names, starting with the three that MCP lists, in its order.

    >>> for url in discovery_urls("https://auth.example.com"):
    ...     print(url)
    https://auth.example.com/.well-known/oauth-authorization-server
    https://auth.example.com/.well-known/openid-configuration
    """
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.removesuffix("/")
    inserted = (f"{origin}/.well-known/{name}{path}" for name in _WELL_KNOWN)
    appended = (f"{origin}{path}/.well-known/{name}" for name in reversed(_WELL_KNOWN))
    return tuple(dict.fromkeys((*inserted, *appended)))


def issuer_of(well_known_url: str) -> str:
    """Return the issuer that belongs to a metadata URL.

    The ``issuer`` in the metadata is authoritative: an issuer that ends in a slash has the same
    metadata URL as one that does not.

    Raises:
        ValueError: if the URL does not have one of the forms of :func:`discovery_urls`.

    >>> issuer_of("https://api.descope.com/P2abc/.well-known/openid-configuration")
    'https://api.descope.com/P2abc'
    """
    parts = urlsplit(well_known_url)
    for name in _WELL_KNOWN:
        before, found, after = parts.path.partition(f"/.well-known/{name}")
        if found and not (before and after) and after[:1] in ("", "/"):
            return f"{parts.scheme}://{parts.netloc}{before}{after}"
    raise ValueError(
        "write a URL such as https://auth.example.com/.well-known/openid-configuration"
    )


def read_metadata(
    metadata: object,
    *,
    issuer: str | None,
    source: str,
    member: str = "jwks_uri",
    admits: Callable[[str], bool] = is_secure_url,
) -> tuple[str, str]:
    """Return the issuer and the URL of one of its endpoints from its metadata.

    Args:
        metadata: the parsed JSON.
        issuer: the expected ``issuer``, compared character by character (RFC 8414 §3.3); None to
            accept the one in the metadata.
        source: the configured URL that led to the metadata.
        member: the member with the URL.
        admits: returns whether a URL may be requested.

    Raises:
        KeySetError: if the metadata has another ``issuer``, or no ``member`` that is as secure
            as ``source``.
    """
    if not isinstance(metadata, Mapping):
        raise KeySetError("it is not an object")
    named, endpoint = metadata.get("issuer"), metadata.get(member)
    if not isinstance(named, str) or not named or named != (issuer or named):
        raise KeySetError(f"it is not of the expected issuer: {_difference(named, issuer)}")
    if not isinstance(endpoint, str) or not admits(endpoint):
        raise KeySetError(f"its {member} is missing, or not https")
    if _is_https(source) and not _is_https(endpoint):
        # A remote issuer must not send requests to this machine.
        raise KeySetError(f"its {member} is http, though it came by https")
    return named, endpoint


def _difference(named: object, issuer: str | None) -> str:
    """Return what was expected and found, and what to write if it is a slash."""
    if not isinstance(named, str) or issuer is None:
        return "it names none"
    found = f"expected {issuer!r}, found {named[:200]!a}"
    if named.rstrip("/") == issuer.rstrip("/"):
        return f"{found}: write the issuer with exactly this slash"
    return found


def _is_https(url: str) -> bool:
    return urlsplit(url).scheme == "https"
