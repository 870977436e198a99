"""Fetch client ID metadata documents.

Client ID Metadata Documents (draft-ietf-oauth-client-id-metadata-document): the ``client_id`` is
a URL, and its document is the registration. The URL is untrusted, so the fetch is limited in time
and size, follows no redirects, and never goes to a private address.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeAlias

import anyio
import httpx

from toolguard.dev.oauth.redirects import RedirectURI, parse_redirect
from toolguard.dev.oauth.refusals import Refusal
from toolguard.parsing.strict_json import lenient_object

__all__ = ["MetadataDocuments", "Resolve", "is_document_url", "resolve_host"]

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Gives the addresses of a host and port."""

_MAX_BYTES = 32 * 1024
_TIMEOUT = 5.0
_HEADERS = {
    "Accept": "application/json",
    # What needs no unpacking cannot grow while it is unpacked.
    "Accept-Encoding": "identity",
    "User-Agent": "toolguard-dev",
}
_JSON = re.compile(r"application/(?:[a-z0-9.-]+\+)?json", re.IGNORECASE)


def is_document_url(client_id: str) -> bool:
    """Return whether ``client_id`` may be the URL of a document.

    https with a path, without user name, fragment or dot segments; http on this machine, for
    development. A query is refused, though the draft only advises against it.
    """
    parsed = parse_redirect(client_id)
    if parsed is None or parsed.query is not None or parsed.path in ("", "/"):
        return False
    return parsed.scheme == "https" or parsed.is_loopback


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of ``host`` as the operating system knows them.

    Raises:
        OSError: if it knows none.
    """
    found = await anyio.getaddrinfo(host, port)
    return [str(address[0]) for *_, address in found]


class MetadataDocuments:
    """Fetches clients' metadata documents.

    Args:
        resolve: gives the addresses of a host.
        transport: carries the requests instead of sockets.
        timeout: seconds for a whole fetch, however slowly it drips.
    """

    def __init__(
        self,
        *,
        resolve: Resolve = resolve_host,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._resolve = resolve
        self._transport = transport
        self._timeout = timeout

    async def fetch(self, url: str) -> dict[str, Any]:
        """Return the document at ``url``.

        Raises:
            Refusal: if there is none that can be read.
        """
        parsed = parse_redirect(url)
        if parsed is None or not is_document_url(url):
            raise _unavailable("its URL is not acceptable")
        try:
            with anyio.fail_after(self._timeout):
                content = await self._get(parsed, await self._address(parsed))
        except (OSError, TimeoutError, httpx.HTTPError, httpx.InvalidURL):
            raise _unavailable("it cannot be fetched") from None
        return _object(content)

    async def _address(self, url: RedirectURI) -> str:
        """Return the address to connect to, checked, so that no later look-up can change it."""
        if url.is_loopback:
            return url.host
        host = url.host.strip("[]")
        addresses = [ip_address(found) for found in await self._resolve(host, url.port or 443)]
        if not addresses or not all(map(_is_public, addresses)):
            raise _unavailable("it is inside a private network")
        first = addresses[0]
        return f"[{first}]" if isinstance(first, IPv6Address) else str(first)

    async def _get(self, url: RedirectURI, address: str) -> bytes:
        port = "" if url.port is None else f":{url.port}"
        target = f"{url.scheme}://{address}{port}{url.path}"
        headers = {**_HEADERS, "Host": f"{url.host}{port}"}
        async with (
            httpx.AsyncClient(
                transport=self._transport, trust_env=False, timeout=self._timeout
            ) as client,
            client.stream(
                "GET", target, headers=headers, extensions={"sni_hostname": url.host}
            ) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise _unavailable("it is not there")
            kind = response.headers.get("content-type", "").partition(";")[0].strip()
            if not _JSON.fullmatch(kind) or "content-encoding" in response.headers:
                raise _unavailable("it is not plain JSON")
            return await _limited(response)


async def _limited(response: httpx.Response) -> bytes:
    content = bytearray()
    async for piece in response.aiter_raw():
        content += piece
        if len(content) > _MAX_BYTES:
            raise _unavailable("it is too long")
    return bytes(content)


def _object(content: bytes) -> dict[str, Any]:
    value = lenient_object(content)
    if value is None:
        raise _unavailable("it is not a JSON object")
    return value


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    return address.is_global and not address.is_multicast


def _unavailable(why: str) -> Refusal:
    return Refusal("invalid_client", f"The metadata document of the client is not usable: {why}")
