"""The protocol of what issues a connection of the server: a grant, an app, a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from toolguard.connections.http import VaultClient
from toolguard.connections.protocol import Connection
from toolguard.errors import ConnectionResponseError, ConnectionTokenError

__all__ = ["ServerSource", "SourceRequest", "lacking"]


@dataclass(frozen=True)
class SourceRequest:
    """What a source is asked for. Nothing here comes from a caller.

    Attributes:
        connection: the name of the connection, for errors.
        scopes: the scopes that the tool declares; empty asks for what the source is set to.
        http: sends the requests.
        clock: returns the time, in seconds since the epoch.
    """

    connection: str
    scopes: tuple[str, ...]
    http: VaultClient
    clock: Callable[[], float]


@runtime_checkable
class ServerSource(Protocol):
    """Issues the credential of a connection that belongs to the server.

    One of :class:`ClientCredentialsGrant`, :class:`ServiceAccount`, :class:`GitHubInstallation`
    and :class:`APIKey`.
    """

    @property
    def owner(self) -> Literal["server"]:
        """The owner of the connection."""
        ...

    @property
    def identity(self) -> str | None:
        """What the credential depends on, without a secret; None if that cannot be named."""
        ...

    async def issue(self, request: SourceRequest) -> Connection | ConnectionTokenError:
        """Return a new credential, or the error that explains its absence.

        Args:
            request: what is asked for.

        Raises:
            ConnectionTokenError: if there is no answer that can be read.
        """
        ...


def lacking(request: SourceRequest, missing: list[str]) -> ConnectionResponseError:
    """Return the error for a credential that lacks scopes: a user cannot grant them."""
    return ConnectionResponseError(
        f"{request.connection} belongs to the server and lacks {' '.join(missing)}: grant that to "
        "the server's client",
        connection=request.connection,
    )
