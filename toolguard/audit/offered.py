"""The scopes that an authorization server offers (RFC 8414 §2)."""

from __future__ import annotations

import time
from collections.abc import Callable

from toolguard.tokens.discovery import EndpointLocation
from toolguard.tokens.jwks import Fetch, HttpFetch
from toolguard.tokens.keys import parse_json

__all__ = ["offered_scopes"]


def offered_scopes(
    issuer: str,
    *,
    timeout: float = 5.0,
    fetch: Fetch | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[str, ...] | None:
    """Return the ``scopes_supported`` of an issuer's metadata (RFC 8414 §2); None if it has none.

    The metadata is discovered and validated like that of a guard's issuer, with the same limits.

    Args:
        issuer: its issuer URL, or the URL of the metadata itself.
        timeout: seconds for all requests together.
        fetch: the function that fetches a document.
        clock: a monotonic clock, in seconds.

    Raises:
        ValueError: if the URL is not secure, or the scopes are not a list.
        KeysUnavailableError: if no valid metadata can be fetched.
    """
    is_document = "/.well-known/" in issuer
    location = EndpointLocation(
        url=None,
        issuer=None if is_document else issuer,
        well_known_url=issuer if is_document else None,
    )
    get_one = HttpFetch() if fetch is None else fetch
    ends_at = clock() + timeout
    documents: list[bytes] = []

    def get(url: str) -> bytes:
        documents.append(get_one(url, max(0.0, ends_at - clock())))
        return documents[-1]

    location.find(get, clock())  # the last fetched document is the valid one
    scopes = parse_json(documents[-1]).get("scopes_supported")
    if scopes is None:
        return None
    if not isinstance(scopes, list) or not all(isinstance(each, str) for each in scopes):
        raise ValueError(f"scopes_supported of {location.issuer} is not a list of strings")
    return tuple(scopes)
