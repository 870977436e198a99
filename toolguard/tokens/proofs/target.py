"""The target of a request, as a DPoP proof names it (RFC 9449 §4.3)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["canonical_target", "target_of"]

_MAX_LENGTH = 4_096
# RFC 3986 §3, without userinfo (RFC 9110 §4.2.4); bytes of IP literals are not looked into.
_TARGET = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9._~%!$&'()*+,;=-]+|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{0,5}))?(?P<path>/[^?#]*)?(?:[?#].*)?",
    re.ASCII | re.IGNORECASE,
)
# RFC 3986 §3.3: what a path consists of; a percent sign only in front of two digits.
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]")
_DEFAULT_PORTS = {"https": "443", "http": "80"}


def canonical_target(url: str) -> str | None:
    """Return an http or https URL in its canonical form, without query and fragment.

    The form is that of syntax-based and of scheme-based normalization (RFC 3986 §6.2.2, §6.2.3):
    scheme and host in lower case, without the default port, percent-encodings only where they are
    needed, no dot segments.

    Returns:
        The canonical URL; None if ``url`` is not such a URL, or has a user name.

    >>> canonical_target("HTTPS://MCP.example.com:443/%6Dcp/./x/../?a#b")
    'https://mcp.example.com/mcp/'
    >>> canonical_target("https://mcp.example.com/mcp/sse/..")
    'https://mcp.example.com/mcp/'
    >>> canonical_target("https://mcp.example.com"), canonical_target("https://a@mcp.example.com")
    ('https://mcp.example.com/', None)
    """
    if len(url) > _MAX_LENGTH:
        return None
    match = _TARGET.fullmatch(url)
    if match is None or not _PATH.fullmatch(match["path"] or ""):
        return None
    scheme, port = match["scheme"].lower(), (match["port"] or "").lstrip("0")
    is_usual = port in ("", _DEFAULT_PORTS[scheme])
    authority = match["host"].lower() if is_usual else f"{match['host'].lower()}:{port}"
    return f"{scheme}://{authority}{_plain(match['path'] or '/')}"


def target_of(resource: str, path: str) -> str:
    """Return the URL that a request is for, as its client knows it.

    Only the path is the request's; the origin is that of the configured resource. Behind a proxy
    that removes the first part of the path, the resource tells that part, if it ends in the path.

    Args:
        resource: the URL of this server.
        path: the path of the request, percent-encoded.

    >>> target_of("https://mcp.example.com/mcp", "/messages/")
    'https://mcp.example.com/messages/'
    >>> target_of("https://mcp.example.com/notes/mcp", "/mcp")
    'https://mcp.example.com/notes/mcp'
    """
    known = urlsplit(resource)
    # An absolute path, so that whole segments are compared.
    whole = known.path if path != "/" and known.path.endswith(path) else path
    return f"{known.scheme}://{known.netloc}{whole}"


def _plain(path: str) -> str:
    """Return a path with the fewest percent-encodings and without dot segments."""
    decoded = _ENCODED.sub(_decoded, path)
    kept: list[str] = []
    segments = decoded.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _decoded(match: re.Match[str]) -> str:
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()
