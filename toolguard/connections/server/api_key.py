"""Credentials of the server from a function: an API key out of a secret manager."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Literal, TypeAlias

import anyio

from toolguard.connections.functions import as_connection, function_name, takes
from toolguard.connections.protocol import Connection
from toolguard.connections.server.source import SourceRequest, lacking
from toolguard.errors import (
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parts.contained import contained_in_thread

__all__ = ["APIKey", "KeyFunction"]

KeyFunction: TypeAlias = Callable[
    [], str | Connection | Awaitable[str | Connection] | Awaitable[str] | Awaitable[Connection]
]
"""A function without arguments that returns the key, or a connection with its expiry."""


class APIKey:
    """A key that a function returns; it is kept for five minutes, or until it expires.

    ::

        async def search_key() -> str:
            return await secrets.get("search-api-key")


        APIKey(search_key)

    Args:
        function: an async function, or an ordinary one, which runs in a thread. It returns the
            key, or a :class:`Connection` with ``expires_at``, and sees nothing of the caller.
        token_type: the authentication scheme of a key.
        timeout: seconds for the function.

    Raises:
        TypeError: if the function needs an argument.
        ValueError: if ``timeout`` is not positive.
    """

    owner: Literal["server"] = "server"

    def __init__(
        self,
        function: KeyFunction,
        *,
        token_type: str = "Bearer",  # noqa: S107 - the name of a scheme
        timeout: float = 10.0,
    ) -> None:
        if not takes(function):
            raise TypeError("write APIKey(load_key): a function that takes no argument")
        if timeout <= 0:
            raise ValueError("write timeout=10.0: seconds, more than 0")
        self._function = function
        self._token_type = token_type
        self._timeout = timeout

    @property
    def identity(self) -> None:
        """None: what a function returns depends on what nobody names."""
        return

    async def issue(self, request: SourceRequest) -> Connection | ConnectionTokenError:
        """Return the key, or the error that explains its absence.

        Args:
            request: what is asked for.

        Raises:
            Exception: as the function raises it.
            ConnectionResponseError: if it returns neither a key nor a connection.
        """
        name = request.connection
        with anyio.move_on_after(self._timeout):
            return self._checked(as_connection(await self._called(), name), request)
        return ConnectionUnavailableError(
            f"The key of {name} did not come in {self._timeout:g} s: try again", connection=name
        )

    async def _called(self) -> object:
        if inspect.iscoroutinefunction(inspect.unwrap(self._function)):
            returned: object = self._function()
        else:
            returned = await contained_in_thread(self._function)
        return await returned if inspect.isawaitable(returned) else returned

    def _checked(
        self, connection: Connection, request: SourceRequest
    ) -> Connection | ConnectionResponseError:
        missing = [each for each in request.scopes if each not in connection.scopes]
        if connection.scopes and missing:
            return lacking(request, missing)
        if connection.token_type == "Bearer" and self._token_type != "Bearer":  # noqa: S105
            return Connection(
                connection.token, self._token_type, connection.scopes, connection.expires_at
            )
        return connection

    def __repr__(self) -> str:
        return f"<APIKey: {function_name(self._function)}>"
