"""Fetch public documents of an issuer over HTTP: its metadata and its keys."""

from __future__ import annotations

import asyncio
import codecs
import ssl
import zlib
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from time import time
from typing import Any, TypeAlias

import httpx

from toolguard.errors import KeysUnavailableError
from toolguard.parsing.secure_urls import is_this_machine
from toolguard.parts.unanswered import why_unanswered
from toolguard.tokens.network import Network

__all__ = [
    "BusyError",
    "EnvironmentClient",
    "Fetch",
    "HttpFetch",
    "open_client",
    "parse_retry_after",
    "unpacker",
]

Fetch: TypeAlias = Callable[[str, float], bytes]
"""Fetches the document at a URL within a number of seconds; called in a separate thread.

Raises KeysUnavailableError or OSError if the document cannot be fetched.
"""

_FAILURES = (
    *(asyncio.TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError),
    *(UnicodeError, ValueError),  # a host name or the address of a proxy that is none
)
_MAX_BYTES = 512 * 1024
_MAX_RETRY_AFTER = 86_400
_BUSY = (429, 503)
_HEADERS = {
    "Accept": "application/json",
    # Without compression, a document cannot grow while it is decoded.
    "Accept-Encoding": "identity",
    "User-Agent": "toolguard-mcp",
}


class BusyError(KeysUnavailableError):
    """The endpoint asked to be left alone for ``retry_after`` seconds (RFC 9110 §10.2.3)."""


class HttpFetch:
    """Fetches documents over HTTP: with the proxies of the environment, but not from this machine.

    The time limit covers the whole exchange, from name resolution to the last byte: it is one
    task in an event loop of its own, which is cancelled when the time is up. One redirect within
    the origin is followed.

    Args:
        ssl_context: the TLS settings, for a private certificate authority; None for the default.
        network: all settings of the network, instead.
    """

    def __init__(
        self, *, ssl_context: ssl.SSLContext | None = None, network: Network | None = None
    ) -> None:
        self._network = Network(ssl_context=ssl_context) if network is None else network

    def __call__(self, url: str, timeout: float) -> bytes:
        """Return the document at ``url``, of at most 512 KiB; call this in a separate thread.

        Raises:
            KeysUnavailableError: if there is no such document within ``timeout`` seconds.
        """
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(self._get(url), timeout))
        except _FAILURES as error:
            raise KeysUnavailableError(f"no answer ({why_unanswered(error)})") from None
        finally:
            # A response that was cut off leaves suspended generators of the client.
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _get(self, url: str) -> bytes:
        async with open_client(self._network) as client:
            body = await _document(client, url)
            if isinstance(body, str):
                body = await _document(client, body)
            if isinstance(body, str):
                raise KeysUnavailableError("a second redirect")
        return body.removeprefix(codecs.BOM_UTF8)


class EnvironmentClient(httpx.AsyncClient):
    """A client that takes the proxies of the environment, but for no request to this machine.

    Args:
        verify: the TLS settings, made once for both: that reads 150 certificates.
        settings: further ones of ``httpx.AsyncClient``; it must not follow redirects.
    """

    def __init__(self, *, verify: ssl.SSLContext, **settings: Any) -> None:
        super().__init__(verify=verify, **settings)
        self._direct = httpx.AsyncClient(verify=verify, **settings, trust_env=False)

    async def send(self, request: httpx.Request, **settings: Any) -> httpx.Response:
        """Send a request, directly if it is one to this machine."""
        # Where it will be sent, without a name and a password.
        authority = request.url.netloc.decode("ascii")
        if is_this_machine(f"{request.url.scheme}://{authority}"):
            return await self._direct.send(request, **settings)
        return await super().send(request, **settings)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._direct.aclose()
        await super().aclose()

    async def __aexit__(self, *raised: object) -> None:
        await self.aclose()


def open_client(network: Network) -> httpx.AsyncClient:
    """Return a client that follows no redirect and keeps no cookie; its caller limits the time."""
    kind = EnvironmentClient if network.proxy is None else httpx.AsyncClient
    return kind(
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        verify=network.ssl_context or httpx.create_ssl_context(),
        auth=_NoAuth(),
        proxy=network.proxy,
        follow_redirects=False,
        timeout=None,  # the caller's covers all of it
    )


class _NoAuth(httpx.Auth):
    """No credentials: without this, httpx would take those of ``.netrc``."""


async def _document(client: httpx.AsyncClient, url: str) -> bytes | str:
    """Return the document at ``url``, or the URL within its origin that it has moved to."""
    async with client.stream("GET", url, headers=_HEADERS) as response:
        if response.has_redirect_location:
            return _within_origin(url, response)
        _check_answer(response)
        body = bytearray()
        unpack = unpacker(response)
        async for chunk in response.aiter_raw():
            body += unpack(chunk, _MAX_BYTES + 1 - len(body))
            if len(body) > _MAX_BYTES:
                raise KeysUnavailableError("the answer is too long")
    return bytes(body)


def _within_origin(url: str, response: httpx.Response) -> str:
    target = httpx.URL(url).join(response.headers["Location"])
    known = httpx.URL(url)
    if (target.scheme, target.host, target.port) != (known.scheme, known.host, known.port):
        # The trust in this URL does not extend to another server.
        raise KeysUnavailableError(f"HTTP {response.status_code} to another origin")
    return str(target)


def unpacker(response: httpx.Response) -> Callable[[bytes, int], bytes]:
    """Return a function that unpacks a chunk of a body to at most so many bytes.

    Raises:
        KeysUnavailableError: if the body has another coding than gzip; the function does if it is
            not gzip.
    """
    coding = response.headers.get("Content-Encoding", "identity").lower().strip()
    if coding == "identity":
        return lambda chunk, limit: chunk[:limit]
    if coding not in ("gzip", "x-gzip"):
        raise KeysUnavailableError("the answer is compressed, although no compression was accepted")
    unpacked = zlib.decompressobj(wbits=31)

    def unpack(chunk: bytes, limit: int) -> bytes:
        try:
            return unpacked.decompress(chunk, limit)
        except zlib.error:
            raise KeysUnavailableError("the answer is not gzip, although it says so") from None

    return unpack


def _check_answer(response: httpx.Response) -> None:
    retry_after = parse_retry_after(response.headers.get("Retry-After", ""), time())
    if response.status_code in _BUSY and retry_after is not None:
        raise BusyError(f"HTTP {response.status_code}", retry_after=retry_after)
    if response.status_code != httpx.codes.OK:
        raise KeysUnavailableError(f"HTTP {response.status_code}")


def parse_retry_after(value: str, now: float) -> int | None:
    """Return the seconds in a ``Retry-After`` header, a number or a date; None if it has none.

    At most a day.

    >>> parse_retry_after("120", now=0.0)
    120
    >>> parse_retry_after("Thu, 01 Jan 1970 00:01:00 GMT", now=0.0)
    60
    >>> parse_retry_after("soon", now=0.0) is None
    True
    """
    if value.isascii() and value.isdigit():
        return min(int(value[:6]), _MAX_RETRY_AFTER)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return int(min(max(seconds, 0.0), _MAX_RETRY_AFTER))
