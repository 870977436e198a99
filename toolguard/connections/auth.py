"""An ``httpx.Auth`` that sends the token of a connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import Any, Protocol

import anyio.from_thread
import httpx

__all__ = ["ConnectionAuth"]


class Presentable(Protocol):
    """The part of a connection that :class:`ConnectionAuth` uses."""

    @property
    def token(self) -> str:
        """The access token."""
        ...

    @property
    def token_type(self) -> str:
        """The authentication scheme, nearly always ``"Bearer"``."""
        ...

    @property
    def refetch(self) -> Callable[[], Coroutine[Any, Any, Presentable]] | None:
        """The function that fetches the connection again; None outside of a call."""
        ...


class ConnectionAuth(httpx.Auth):
    """Sends the token of a connection; after a 401, fetches a fresh one and tries once more.

    httpx removes the header when it follows a redirect to another origin. Fetching again works
    in a coroutine and in the worker thread that a synchronous tool runs in.

    Args:
        connection: the connection to present.
    """

    def __init__(self, connection: Presentable) -> None:
        self._connection = connection

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Drive one request of an asynchronous client (see ``httpx.Auth``)."""
        response = yield self._signed(request)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._connection.refetch:
            self._connection = await self._connection.refetch()
            yield self._signed(request)

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Drive one request of a synchronous client (see ``httpx.Auth``)."""
        response = yield self._signed(request)
        if response.status_code == httpx.codes.UNAUTHORIZED and self._connection.refetch:
            self._connection = anyio.from_thread.run(self._connection.refetch)
            yield self._signed(request)

    def _signed(self, request: httpx.Request) -> httpx.Request:
        # RFC 6750 §2.1: written "Bearer"; some providers return "bearer" and expect "Bearer".
        scheme = self._connection.token_type
        scheme = "Bearer" if scheme.lower() == "bearer" else scheme
        request.headers["Authorization"] = f"{scheme} {self._connection.token}"
        return request

    def __repr__(self) -> str:
        return f"<ConnectionAuth: {self._connection!r}>"
