"""Choose a connection provider by the connection's name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from toolguard.connections.functions import as_provider
from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
    is_of_server,
    names_of,
)
from toolguard.errors import ConnectionResponseError
from toolguard.parts.figures import Figure, figures_of
from toolguard.parts.lifecycle import close, warm_up

__all__ = ["ConnectionRouter"]


class ConnectionRouter:
    """Chooses a provider by the connection's name.

    Args:
        providers: a provider, or an async function, by connection name. Copied, so later changes
            of it have no effect.
        default: the provider of every other connection; None refuses them.

    Raises:
        ValueError: if there are no providers.
        TypeError: if one of them is neither a provider nor a function.

    >>> from toolguard.connections import StaticConnections
    >>> table = StaticConnections({"github": "gho_local"})
    >>> ConnectionRouter({"github": table})
    <ConnectionRouter: github>
    """

    def __init__(
        self,
        providers: Mapping[str, ConnectionProvider | ConnectionFunction],
        *,
        default: ConnectionProvider | ConnectionFunction | None = None,
    ) -> None:
        if not providers:
            raise ValueError('write ConnectionRouter({"google-calendar": provider})')
        self._providers = {name: as_provider(each) for name, each in providers.items()}
        self._default = None if default is None else as_provider(default)

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection from its provider.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionTokenError: as raised by the provider.
            ConnectionResponseError: if there is no provider for a connection of this name.
        """
        provider = self._providers.get(request.name, self._default)
        if provider is None:
            raise ConnectionResponseError(
                f"No provider has {request.name}: write "
                f"ConnectionRouter({{{request.name!r}: provider}}) or default=provider",
                connection=request.name,
            )
        return await provider.fetch(request)

    def is_of_server(self, name: str) -> bool:
        """Return whether this connection belongs to the server.

        Args:
            name: the name of the connection.
        """
        return is_of_server(self._providers.get(name, self._default), name)

    @property
    def connection_names(self) -> frozenset[str] | None:
        """The names of all connections; None if the default provider may have any."""
        others = frozenset[str]() if self._default is None else names_of(self._default)
        return None if others is None else others | self._providers.keys()

    @property
    def cache_namespace(self) -> str | None:
        """What the answers depend on beside the request; None if a provider does not state it."""
        namespaces = {name: _namespace(each) for name, each in self._providers.items()}
        other = "" if self._default is None else _namespace(self._default)
        if other is None or None in namespaces.values():
            return None
        return json.dumps([namespaces, other], sort_keys=True)

    async def warm_up(self) -> None:
        """Warm up the providers that have something to warm up; raises what one raises."""
        await warm_up(*self._providers.values(), self._default)

    def figures(self) -> Iterable[Figure]:
        """Return the figures of the providers."""
        return figures_of(*self._providers.values(), self._default)

    async def aclose(self) -> None:
        """Close the TCP connections of all providers in the running event loop."""
        await close(*self._providers.values(), self._default)

    def __repr__(self) -> str:
        others = " and all others" if self._default is not None else ""
        return f"<ConnectionRouter: {', '.join(self._providers)}{others}>"


def _namespace(provider: object) -> str | None:
    namespace = getattr(provider, "cache_namespace", None)
    return namespace if isinstance(namespace, str) else None
