"""Keep the connections of one issuer's users from the users of another one.

A vault knows users by their ids, and the same id at two issuers is two people.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from toolguard.connections.protocol import (
    Connection,
    ConnectionProvider,
    ConnectionRequest,
    is_of_server,
    names_of,
)
from toolguard.errors import ConnectionDeniedError
from toolguard.parts.figures import Figure, figures_of
from toolguard.parts.lifecycle import close, warm_up

__all__ = ["ConnectionsOfIssuers", "SeveralIssuers", "of_issuers"]


@runtime_checkable
class SeveralIssuers(Protocol):
    """A verifier of the tokens of several issuers."""

    def trusts(self, issuer: str) -> bool:
        """Return whether tokens of ``issuer`` are accepted."""
        ...

    def shares_connections(self, issuer: str) -> bool:
        """Return whether the subjects of ``issuer`` are known to the connection provider."""
        ...


class ConnectionsOfIssuers:
    """The connections of a provider, for the users of those issuers that it knows.

    Args:
        provider: the provider.
        issuers: the verifier that tells which issuers these are.
    """

    def __init__(self, provider: ConnectionProvider, issuers: SeveralIssuers) -> None:
        self.provider = provider
        self._issuers = issuers

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection.

        Raises:
            ConnectionDeniedError: if the provider does not know users of the caller's issuer.
            ConnectionTokenError: as the provider raises it.
        """
        issuer = request.principal.issuer
        # A caller whom none of the issuers signed in is the operator's (stdio="trusted").
        is_foreign = self._issuers.trusts(issuer) and not self._issuers.shares_connections(issuer)
        if is_foreign and not is_of_server(self.provider, request.name):
            raise ConnectionDeniedError(
                f"{request.name} is connected for users of another issuer", connection=request.name
            )
        return await self.provider.fetch(request)

    @property
    def connection_names(self) -> frozenset[str] | None:
        """The names of all connections; None if the provider may have any."""
        return names_of(self.provider)

    async def warm_up(self) -> None:
        """Warm up the provider, if it has something to warm up; raises what it raises."""
        await warm_up(self.provider)

    def figures(self) -> Iterable[Figure]:
        """Return the figures of the provider."""
        return figures_of(self.provider)

    async def aclose(self) -> None:
        """Close the clients of the provider."""
        await close(self.provider)

    def __repr__(self) -> str:
        return f"<ConnectionsOfIssuers: {self.provider!r}>"


def of_issuers(provider: ConnectionProvider | None, verifier: object) -> ConnectionProvider | None:
    """Return the provider, for the users of those of the verifier's issuers that it knows."""
    if provider is None or not isinstance(verifier, SeveralIssuers):
        return provider
    inner = provider.provider if isinstance(provider, ConnectionsOfIssuers) else provider
    return ConnectionsOfIssuers(inner, verifier)
