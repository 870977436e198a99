"""Redirect URIs, and the patterns that approve them.

URIs are parsed with a grammar that is stricter than any browser's, and others are refused rather
than repaired: no user name, no backslash, no dot segment, no alternative spelling. So the compared
URI is the one that a browser opens. No substring matching is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

__all__ = [
    "LOOPBACK_HOSTS",
    "RedirectPattern",
    "RedirectURI",
    "is_same_redirect",
    "parse_redirect",
    "with_parameters",
]

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "[::1]", "localhost"})
"""This machine, as a URL names it."""

_MAX_LENGTH = 2_000
_MAX_PORT = 65_535
# RFC 3986 §3.3 and §3.4, with complete percent-encodings only.
_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
_URI = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?|\[[0-9a-f:]{2,39}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
    rf"(?P<path>(?:/{_CHARACTER}*)*)"
    rf"(?:\?(?P<query>(?:{_CHARACTER}|[/?])*))?",
    re.ASCII,
)
# WHATWG URL: browsers treat an encoded dot as a dot.
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)
# What only this server may say to the client.
_RESPONSE_PARAMETERS = frozenset(
    {"code", "state", "iss", "error", "error_description", "error_uri"}
)
# Schemes that a browser runs or opens itself, instead of handing the address to an application.
_BROWSER_SCHEMES = frozenset(
    {
        *("about", "blob", "chrome", "data", "file", "filesystem", "ftp", "javascript"),
        *("mailto", "resource", "vbscript", "view-source", "ws", "wss"),
    }
)


@dataclass(frozen=True)
class RedirectURI:
    """A redirect URI in its parts; ``port`` is None where none is written."""

    text: str
    scheme: str
    host: str
    port: int | None
    path: str
    query: str | None

    @property
    def is_loopback(self) -> bool:
        """Whether it is http to this machine."""
        return self.scheme == "http" and self.host in LOOPBACK_HOSTS

    @property
    def is_web(self) -> bool:
        """Whether a browser opens it, and not an application with a scheme of its own."""
        return self.scheme in ("http", "https")

    @property
    def origin(self) -> str:
        """Scheme, host and port as written."""
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"

    @property
    def csp_source(self) -> str:
        """What allows a form to end here (Content Security Policy 3 §2.3.1, ``form-action``)."""
        # The grammar of a host-source has no IPv6 addresses.
        return f"{self.scheme}:" if not self.is_web or self.host.startswith("[") else self.origin


@dataclass(frozen=True)
class RedirectPattern:
    """Redirect URIs that clients may register.

    ``https://chat.openai.com/oauth/callback/*`` stands for any path below this one;
    ``http://127.0.0.1:*/*`` for any port of this machine. Nothing else can be left open.

    Attributes:
        text: the pattern as written.

    Raises:
        ValueError: if it is not a pattern, or is not safe.
    """

    text: str

    def __post_init__(self) -> None:
        base, any_port = self._parts()
        if base is None:
            raise ValueError(
                f"{self.text!r} is not a redirect pattern: write one such as "
                "'https://chat.openai.com/oauth/callback/*', 'claude://oauth-callback/*' or "
                "'http://127.0.0.1:*/*'"
            )
        if base.scheme in _BROWSER_SCHEMES or (base.scheme == "http" and not base.is_loopback):
            raise ValueError(f"{self.text!r} is not safe: write https, or http to this machine")
        if any_port and not base.is_loopback:
            raise ValueError(f"{self.text!r} leaves the port open on another machine: write it")

    def matches(self, uri: RedirectURI) -> bool:
        """Return whether ``uri`` is one of those the pattern stands for."""
        base, any_port = self._parts()
        if base is None or (uri.scheme, uri.host) != (base.scheme, base.host):
            return False
        if not any_port and uri.port != base.port:
            return False
        if not self.text.endswith("/*"):
            return (uri.path, uri.query) == (base.path, base.query)
        # RFC 3986 §6.2.3: for http, no path is the path "/".
        path = uri.path or ("/" if uri.is_web else "")
        return path.startswith(base.path)

    def _parts(self) -> tuple[RedirectURI | None, bool]:
        text = self.text.removesuffix("*") if self.text.endswith("/*") else self.text
        closed = re.sub(r"^([a-z]+://[^/]*):\*(?=/|$)", r"\1", text)
        return (None if "*" in closed else parse_redirect(closed)), closed != text


def parse_redirect(text: str) -> RedirectURI | None:
    """Return the parts of a redirect URI; None if it is not one that can be trusted.

    RFC 6749 §3.1.2: absolute and without a fragment. None as well if its query holds a parameter
    of the authorization response, which a client could not tell from the real one.

    >>> parse_redirect("http://127.0.0.1:3000/callback").port
    3000
    >>> parse_redirect("https://chat.openai.com@evil.example/oauth/callback/") is None
    True
    """
    match = _URI.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None or _DOT_SEGMENT.search(match["path"]):
        return None
    port = None if match["port"] is None else int(match["port"])
    if port is not None and not 0 < port <= _MAX_PORT:
        return None
    names = {name.lower() for name, _ in parse_qsl(match["query"] or "", keep_blank_values=True)}
    if not names.isdisjoint(_RESPONSE_PARAMETERS):
        return None
    return RedirectURI(text, match["scheme"], match["host"], port, match["path"], match["query"])


def is_same_redirect(registered: str, asked: str) -> bool:
    """Return whether ``asked`` is the registered redirect URI.

    Exactly the same characters (RFC 9700 §2.1); the port of a loopback address alone may differ,
    because a native application takes the one that is free (RFC 8252 §7.3).
    """
    if registered == asked:
        return True
    ours, theirs = parse_redirect(registered), parse_redirect(asked)
    if ours is None or theirs is None or not (ours.is_loopback and theirs.is_loopback):
        return False
    return (ours.host, ours.path, ours.query) == (theirs.host, theirs.path, theirs.query)


def with_parameters(uri: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return ``uri`` with parameters added to its query (RFC 6749 §4.1.2)."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(list(parameters))}"
