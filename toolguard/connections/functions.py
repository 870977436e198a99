"""Use a plain async function as a provider."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
)
from toolguard.errors import ConnectionResponseError

__all__ = [
    "FunctionProvider",
    "as_connection",
    "as_provider",
    "function_name",
    "is_async",
    "takes",
]

_WRITE = "write `async def connect(request: ConnectionRequest) -> Connection | str`"


class FunctionProvider:
    """A provider that calls an async function.

    Args:
        function: takes a :class:`ConnectionRequest`; returns a :class:`Connection` or its token.

    Raises:
        TypeError: if it is not async, or cannot be called with one argument.
    """

    def __init__(self, function: ConnectionFunction) -> None:
        if not is_async(function):
            raise TypeError(f"{function_name(function)} is not async: {_WRITE}")
        if not takes(function, object()):
            raise TypeError(f"{function_name(function)} does not take one argument: {_WRITE}")
        self._function = function

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionResponseError: if the function returns neither a connection nor a token.
        """
        return as_connection(await self._function(request), request.name)

    def __repr__(self) -> str:
        return f"<FunctionProvider: {function_name(self._function)}>"


def as_provider(given: ConnectionProvider | ConnectionFunction) -> ConnectionProvider:
    """Return a provider as it is, and a function as a provider.

    Raises:
        TypeError: if it is neither, or the function cannot be called as a provider is.
    """
    if isinstance(given, type):
        raise TypeError(f"{given.__name__} is a class: write connections={given.__name__}(...)")
    if isinstance(given, ConnectionProvider):
        return given
    if not callable(given):
        raise TypeError(
            "connections come from a provider with an async fetch(), or from such a function, "
            f"not from {type(given).__name__}"
        )
    return FunctionProvider(given)


def as_connection(returned: object, name: str) -> Connection:
    """Return what a function returned as a connection; text is its token.

    Args:
        returned: what the function returned.
        name: the name of the connection.

    Raises:
        ConnectionResponseError: if it is neither; the error names the type only.
    """
    if isinstance(returned, Connection):
        return returned
    found = type(returned).__name__
    if isinstance(returned, str):
        try:
            return Connection(returned)
        except ValueError:
            found = "text that is no token (empty, or not printable ASCII)"
    del returned  # so that no local variable holds a token
    raise ConnectionResponseError(
        f"The provider of {name} returned {found}: return a Connection or its token, or raise "
        "ConnectionRequiredError",
        connection=name,
    )


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling ``function`` gives a coroutine.

    A decorator may hide the function, and an object may have an async ``__call__``.
    """
    inner = inspect.unwrap(function)
    call = type(inner).__call__
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)


def takes(function: Callable[..., Any], *arguments: object) -> bool:
    """Return whether a function can be called with these positional arguments."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:
        return True  # a builtin without a signature
    return True


def function_name(function: object) -> str:
    """Return the name of a function for a message; that of its type for another object."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))
