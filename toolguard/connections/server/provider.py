"""Connections of the server as a connection provider."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping

from toolguard.connections.http import Transport, VaultClient
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.retries import Retries
from toolguard.connections.server.source import ServerSource, SourceRequest
from toolguard.connections.server.tokens import ServerTokens
from toolguard.errors import ConnectionDeniedError, ConnectionResponseError

__all__ = ["ServerConnections"]

_RETRIES = Retries()


class ServerConnections:
    """Connections that belong to the server: each caller whom a tool permits gets the same one.

    ::

        ServerConnections({
            "orders": ClientCredentialsGrant(token_endpoint, ClientSecretBasic(client_id, secret)),
            "github": GitHubInstallation(app_id, private_key, installation_id),
            "search": APIKey(load_key),
        })

    A credential is fetched once for each expiry, ahead of it, however many calls need it. A
    :class:`toolguard.vault.Vault` takes the same descriptions beside those of users' connections.

    Args:
        connections: what issues each, by the names that tools use. Copied.
        timeout: seconds that a service has to answer, with all attempts.
        retries: how often a request without an answer is repeated.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if there are no connections, or a number is out of range.
        TypeError: if one of them is not of the server.
    """

    def __init__(
        self,
        connections: Mapping[str, ServerSource],
        *,
        timeout: float = 10.0,
        retries: Retries = _RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not connections:
            raise ValueError('write ServerConnections({"search": APIKey(load_key)})')
        for name, source in connections.items():
            if isinstance(source, type) or not isinstance(source, ServerSource):
                raise TypeError(
                    f"{name!r} is not issued to a server: write ClientCredentialsGrant(...), "
                    "ServiceAccount(...), GitHubInstallation(...) or APIKey(...)"
                )
        self._sources = dict(connections)
        self._tokens = {name: ServerTokens(source) for name, source in connections.items()}
        self._http = VaultClient(timeout=timeout, retries=retries, transport=transport, clock=clock)
        self._clock = clock

    @property
    def cache_namespace(self) -> str | None:
        """What the answers depend on beside the request; None if a source cannot name it."""
        known = self.identities
        return None if None in known.values() else json.dumps(known, sort_keys=True)

    @property
    def connection_names(self) -> frozenset[str]:
        """The names of all connections."""
        return frozenset(self._sources)

    @property
    def identities(self) -> dict[str, str | None]:
        """What each credential depends on, by the name of its connection."""
        return {name: source.identity for name, source in self._sources.items()}

    def is_of_server(self, name: str) -> bool:
        """Return whether this is one of the connections.

        Args:
            name: the name of the connection.
        """
        return name in self._sources

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection of the server.

        Args:
            request: what the tool needs.

        Raises:
            ConnectionDeniedError: if the tool asks for the connection of a tenant.
            ConnectionRateLimitedError: if the service limits the rate of requests.
            ConnectionUnavailableError: if the service does not answer in time.
            ConnectionResponseError: if there is no such connection, the service refuses it, or its
                answer is invalid.
        """
        name = request.name
        tokens = self._tokens.get(name)
        if tokens is None:
            raise ConnectionResponseError(
                f"The server has no connection {name}: write ServerConnections({{{name!r}: ...}})",
                connection=name,
            )
        if request.tenant_id is not None:
            raise ConnectionDeniedError(
                f"{name} belongs to the server, not to tenants: leave tenant=True out",
                connection=name,
            )
        asked = SourceRequest(name, request.scopes, self._http, self._clock)
        return await tokens.get(asked, fresh=request.fresh)

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later fetch opens new ones."""
        await self._http.aclose()

    def __repr__(self) -> str:
        return f"<ServerConnections: {', '.join(self._sources)}>"
