"""Which scopes does an authorization server offer?"""

from __future__ import annotations

import time
from collections.abc import Callable

from toolguard.tokens.discovery import KeyLocation
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

    The metadata is found and believed as that of a guard's issuer is, within the same limits.

    Args:
        issuer: its issuer URL, or the URL of the metadata itself.
        timeout: seconds for everything.
        fetch: what gets a document.
        clock: seconds that only grow.

    Raises:
        ValueError: if this is no URL that metadata may come from, or the scopes are no list.
        KeysUnavailableError: if there is no metadata to be had that may be believed.
    """
    is_document = "/.well-known/" in issuer
    location = KeyLocation(
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

    location.find(get, clock())  # ends with the one that it believes
    scopes = parse_json(documents[-1]).get("scopes_supported")
    if scopes is None:
        return None
    if not isinstance(scopes, list) or not all(isinstance(each, str) for each in scopes):
        raise ValueError(f"scopes_supported of {location.issuer} is not a list of strings")
    return tuple(scopes)
