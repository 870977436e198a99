"""How much is read of what a server answers to the commands and the gateway?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx

__all__ = ["HEADERS", "MOST_BYTES", "UnboundedError", "bound"]

MOST_BYTES = 16 * 1024 * 1024
"""The most bytes of one answer, or of one message of a stream."""

HEADERS = {"accept-encoding": "identity"}
"""The headers of the client: without compression, an answer cannot grow while it is decoded."""


class UnboundedError(Exception):
    """The answer is longer than may be read; the text says of which URL."""


async def bound(response: httpx.Response) -> None:
    """Limit what is read of a response: the hook of a client for each of them.

    Raises:
        UnboundedError: if the response is compressed; reading it does if it is too long.
    """
    url = response.request.url
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnboundedError(f"{url} sends a compressed answer, which was not accepted")
    # JSON and events are UTF-8. Python has other codecs, and some of them decompress.
    response.encoding = "utf-8"
    response.stream = _AtMost(cast("httpx.AsyncByteStream", response.stream), str(url))


class _AtMost(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, url: str) -> None:
        self._stream = stream
        self._url = url

    async def __aiter__(self) -> AsyncIterator[bytes]:
        length = 0
        async for chunk in self._stream:
            length += len(chunk)
            if length > MOST_BYTES:
                raise UnboundedError(
                    f"{self._url} has sent more than {MOST_BYTES >> 20} MiB without an end: "
                    "correct the URL, or have the server send less"
                )
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
