"""Which server does an audience name?

Audiences are compared as canonical URIs (MCP authorization, "Canonical Server URI"), or as exact
strings where they are no URLs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["accepted_audiences", "audience_names", "canonical_audience"]

# RFC 3986 §3.1 and §3.2.2: of a URL, scheme and host are the parts without case.
_ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)


def canonical_audience(audience: str) -> str:
    """Return ``audience`` as it is compared.

    For an http or https URL: scheme and host in lower case, and no slash in place of an empty
    path (RFC 3986 §6.2.3). Nothing else is touched: not the port, not the path, no escapes.

    >>> canonical_audience("HTTPS://MCP.Example.com/")
    'https://mcp.example.com'
    >>> canonical_audience("https://mcp.example.com/MCP/")
    'https://mcp.example.com/MCP/'
    """
    match = _ORIGIN.match(audience)
    if match is None:
        return audience
    # RFC 9728 §6: no Unicode normalization; str.lower would make a Kelvin sign a "k".
    origin = match[0].lower() if match[0].isascii() else match[0]
    rest = audience[match.end() :]
    return origin if rest == "/" else origin + rest


def accepted_audiences(audiences: Iterable[str]) -> frozenset[str]:
    """Return the canonical forms that a token may name a server by that is configured as these.

    A configured URL that ends in a slash stands for the one without it, too: that is the form
    which MCP says to use. A token is never read more generously.

    >>> sorted(accepted_audiences(["https://MCP.example.com/mcp/"]))
    ['https://mcp.example.com/mcp', 'https://mcp.example.com/mcp/']
    """
    canonical = {canonical_audience(audience) for audience in audiences}
    return frozenset(
        canonical | {each.removesuffix("/") for each in canonical if _ORIGIN.match(each)}
    )


def audience_names(claim: object) -> tuple[str, ...] | None:
    """Return the names in an ``aud`` claim: one text or a list of texts (RFC 7519 §4.1.3).

    Returns:
        The names as they stand; None for a claim of any other form.
    """
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list) and all(isinstance(name, str) for name in claim):
        return tuple(claim)
    return None
