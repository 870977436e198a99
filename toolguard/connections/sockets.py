"""The sockets of the HTTP client: a connection on which bytes are left over is not used again.

A server that answers more than it was asked would otherwise give the next caller what was meant
for another one: an HTTP client takes the first answer it finds for the answer to its request.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import httpcore
import httpx

__all__ = ["SocketTransport"]

_MAX_CONNECTIONS = 50
_MAX_IDLE = 10
_IDLE_SECONDS = 30.0
# What is longer, with its head, is not parsed again: its connection is used once.
_MAX_PARSED = 1024 * 1024
_FAULTS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


class SocketTransport(httpx.AsyncBaseTransport):
    """Carries requests over HTTP/1.1, on pooled connections of one event loop.

    Args:
        tls: the certificates to trust.
    """

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_IDLE,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=_Backend(),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return its response, whose body is read afterwards."""
        url = request.url
        with _faults_of_httpx():
            answer = await self._pool.handle_async_request(
                httpcore.Request(
                    request.method,
                    httpcore.URL(
                        scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()


class _Body(httpx.AsyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _faults_of_httpx():
            async for piece in self._answer.aiter_stream():
                yield piece

    async def aclose(self) -> None:
        with _faults_of_httpx():
            await self._answer.aclose()


@contextmanager
def _faults_of_httpx() -> Iterator[None]:
    """Raise the exceptions of httpcore as those of httpx, which have the same names."""
    try:
        yield
    except _FAULTS as fault:
        raise getattr(httpx, type(fault).__name__)(str(fault)) from None


class _Backend(httpcore.AnyIOBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        opened = await super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(opened)


class _Stream(httpcore.AsyncNetworkStream):
    """A connection that keeps what it has read since the last request was written."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._read = bytearray()

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,
    ) -> bytes:
        piece = await self._inner.read(max_bytes, timeout)
        if len(self._read) <= _MAX_PARSED:
            self._read += piece
        return piece

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,
    ) -> None:
        self._read.clear()
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        # The pool closes an idle connection on which there is something to read.
        if info == "is_readable" and not is_one_answer(bytes(self._read)):
            return True
        return self._inner.get_extra_info(info)


def is_one_answer(read: bytes) -> bool:
    """Return whether ``read`` is one whole answer to a request, and nothing more."""
    if len(read) > _MAX_PARSED:
        return False
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_PARSED)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "vault")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(read)
    try:
        while not isinstance(event := parser.next_event(), h11.EndOfMessage):
            if event in (h11.NEED_DATA, h11.PAUSED):
                return False
    except h11.RemoteProtocolError:
        return False
    return parser.trailing_data == (b"", False)
