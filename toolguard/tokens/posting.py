"""Post forms to an authorization server, with one HTTP client for each event loop."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, TypeAlias

import httpx

from toolguard.errors import KeysUnavailableError
from toolguard.tokens.fetching import open_client, unpacker
from toolguard.tokens.network import Network
from toolguard.tokens.per_loop import PerLoop

__all__ = ["MAX_ANSWER_BYTES", "HTTPAnswer", "HttpPost", "Post"]

#: The maximum length of an answer; a longer one is cut off after it.
MAX_ANSWER_BYTES = 256 * 1024

# A kept connection may have been closed by the server in the moment it is used again.
_LOST = (httpx.ReadError, httpx.WriteError, httpx.CloseError, httpx.RemoteProtocolError)


class HTTPAnswer(NamedTuple):
    """An HTTP answer: its status, its ``Retry-After`` header, its body and its media type."""

    status: int
    retry_after: str
    body: bytes
    media_type: str = "application/json"


Post: TypeAlias = Callable[[str, bytes, Mapping[str, str], float], Awaitable["HTTPAnswer | str"]]
"""Sends a form to a URL within a number of seconds; returns the answer, or why it failed."""


class HttpPost:
    """Sends forms over HTTP; a request whose connection was lost is sent once more.

    So it is for requests that change nothing. Redirects are not followed: the form holds a token.

    Args:
        network: the proxies and the certificates.
    """

    def __init__(self, network: Network) -> None:
        self._clients = PerLoop(lambda: open_client(network))

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer | str:
        """Return the answer, or the name of the failure.

        Args:
            url: the URL that the form is sent to.
            body: the encoded form.
            headers: the headers of the request.
            timeout: seconds for all of it.
        """
        try:
            return await asyncio.wait_for(self._send_twice(url, body, headers), timeout)
        except (asyncio.TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            return type(error).__name__
        except KeysUnavailableError as error:
            return str(error)

    async def _send_twice(self, url: str, body: bytes, headers: Mapping[str, str]) -> HTTPAnswer:
        try:
            return await self._send(url, body, headers)
        except _LOST:
            return await self._send(url, body, headers)

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> HTTPAnswer:
        sending = self._clients.get().stream("POST", url, content=body, headers=headers)
        async with sending as response:
            received, unpack = bytearray(), unpacker(response)
            async for chunk in response.aiter_raw():
                received += unpack(chunk, MAX_ANSWER_BYTES + 1 - len(received))
                if len(received) > MAX_ANSWER_BYTES:
                    break
            return HTTPAnswer(
                response.status_code,
                response.headers.get("Retry-After", ""),
                bytes(received).removeprefix(codecs.BOM_UTF8),
                response.headers.get("Content-Type", "").partition(";")[0].strip().lower(),
            )

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later request opens new ones."""
        client = self._clients.pop()
        if client is not None:
            await client.aclose()
