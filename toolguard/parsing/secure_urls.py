"""URLs that keys may be fetched from and credentials may be sent to."""

from __future__ import annotations

import re
from ipaddress import ip_address

__all__ = ["is_secure_url", "is_this_machine", "secure_origin"]

_MAX_PORT = 65_535  # RFC 9293 §3.1
# RFC 3986 without userinfo: a name and a password in a URL end up in logs. Other URLs are refused
# rather than repaired, so that no two readers of a URL can take it for different hosts.
_URL = re.compile(
    r"(?P<origin>(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?)"
    r"(?:[/?#][a-z0-9!#$%&'()*+,./:;=?@\[\]_~-]*)?",
    re.ASCII | re.IGNORECASE,
)


def secure_origin(url: str) -> str | None:
    """Return the origin of ``url`` if a credential may be sent there, else None.

    Secure URLs use https, or http to this machine (``localhost`` and loopback addresses), in the
    syntax of RFC 3986 without userinfo.

    >>> secure_origin("https://API.descope.com/P2abc")
    'https://api.descope.com'
    >>> secure_origin("http://api.descope.com/P2abc") is None
    True
    """
    match = _URL.fullmatch(url)
    if match is None or int(match["port"] or 0) > _MAX_PORT:
        return None
    try:
        local = _is_loopback(match["host"].lower())
    except ValueError:
        return None
    return match["origin"].lower() if local or match["scheme"].lower() == "https" else None


def is_secure_url(url: str) -> bool:
    """Return whether ``url`` has a secure origin and no fragment (RFC 6749 §3.2, RFC 8414 §2).

    >>> is_secure_url("https://auth.example.com/jwks"), is_secure_url("http://127.0.0.1:8000/jwks")
    (True, True)
    >>> is_secure_url("http://auth.example.com/jwks")
    False
    """
    return "#" not in url and secure_origin(url) is not None


def is_this_machine(url: str) -> bool:
    """Return whether ``url`` is one of this machine: those to which plain http is secure.

    They are asked through no proxy, which would read tokens and make up keys.

    >>> is_this_machine("http://127.0.0.2:8000/mcp"), is_this_machine("https://[0::1]/mcp")
    (True, True)
    >>> is_this_machine("https://auth.example.com/jwks")
    False
    """
    return secure_origin(f"http:{url.partition(':')[2]}") is not None


def _is_loopback(host: str) -> bool:
    bare = host.strip("[]")
    if bare == host and not host.replace(".", "").isdigit():
        return host == "localhost"
    return ip_address(bare).is_loopback
