"""How audiences are compared: their canonical forms, and the values of ``aud`` claims.

Audiences are compared as canonical URIs (MCP authorization, "Canonical Server URI"); values that
are not URLs are compared as exact strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "accepted_audiences",
    "audience_fault",
    "audience_names",
    "canonical_audience",
    "check_audience",
]

# RFC 3986 §3.1 and §3.2.2: of a URL, scheme and host are the parts without case.
_ORIGIN = re.compile(r"https?://[^/?#]*", re.ASCII | re.IGNORECASE)

_URL = re.compile(
    r"https?://[A-Z0-9._~:\[\]-]+([/?][\x21\x22\x24-\x7E]*)?", re.ASCII | re.IGNORECASE
)


def check_audience(audience: str) -> None:
    """Check that an audience, if it is a URL, is an absolute one (RFC 8707 §2).

    Raises:
        ValueError: without the value, which may hold a password.
    """
    if audience.lower().startswith(("https://", "http://")) and not _URL.fullmatch(audience):
        raise ValueError(
            "an audience is not a proper URL: write the URL of this server, such as "
            "https://mcp.example.com/mcp, without user name, fragment or spaces"
        )


def canonical_audience(audience: str) -> str:
    """Return the canonical form in which audiences are compared.

    For an http or https URL: scheme and host in lower case, and no slash in place of an empty
    path (RFC 3986 §6.2.3). Port, path and percent-encodings stay as they are.

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
    """Return the canonical audiences that tokens may name a server by.

    A URL is accepted with and without a slash at the end of its path: MCP recommends the form
    without, and some authorization servers and clients add one. Nothing else may differ.

    Args:
        audiences: the configured audiences of the server: URLs or other identifiers.

    >>> sorted(accepted_audiences(["https://MCP.example.com/mcp"]))
    ['https://mcp.example.com/mcp', 'https://mcp.example.com/mcp/']
    >>> sorted(accepted_audiences(["https://mcp.example.com", "api://notes", "notes"]))
    ['api://notes', 'https://mcp.example.com', 'notes']
    """
    found = {canonical_audience(audience) for audience in audiences}
    for each in tuple(found):
        if _ORIGIN.match(each) and not {"?", "#"} & {*each}:
            bare = each.removesuffix("/")
            found |= {canonical_audience(bare), canonical_audience(f"{bare}/")}
    return frozenset(found)


def audience_names(claim: object) -> tuple[str, ...] | None:
    """Return the names in an ``aud`` claim: one text or a list of texts (RFC 7519 §4.1.3).

    Returns:
        The names, unchanged; None for a claim of any other form.
    """
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list) and all(isinstance(name, str) for name in claim):
        return tuple(claim)
    return None


def audience_fault(claim: object, accepted: frozenset[str], *, alone: bool = False) -> str | None:
    """Return why a token with this ``aud`` claim is not for a server; None if it is.

    Args:
        claim: the claim.
        accepted: the :func:`accepted_audiences` of the server.
        alone: whether the token may have no audience besides.
    """
    named = audience_names(claim)
    if named is None:
        return "The token names no audience"
    ours = [canonical_audience(name) in accepted for name in named]
    is_ours = all(ours) if alone else any(ours)
    return None if ours and is_ours else "The token is for another audience"
