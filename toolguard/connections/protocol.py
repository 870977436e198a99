"""What is asked of a connection provider, and what does it answer?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from toolguard.principal import Principal

__all__ = ["Connection", "ConnectionFunction", "ConnectionProvider", "ConnectionRequest"]


@dataclass(frozen=True)
class Connection:
    """A third-party credential of the caller.

    Attributes:
        token: the access token for the third-party service; never in the representation.
        token_type: how it is presented, nearly always ``"Bearer"``.
        scopes: the third-party scopes it was granted, where the vault says so.
        expires_at: when it expires, in seconds since the epoch; None where unknown.
    """

    token: str = field(repr=False)
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme, not a secret
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if not self.token:
            raise ValueError("a connection needs a token")


@dataclass(frozen=True)
class ConnectionRequest:
    """One connection that one verified caller needs now.

    Attributes:
        name: the connection's name at the provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token has to carry; empty means "whatever there is".
        principal: the verified caller. Nothing here comes from tool arguments.
        access_token: the caller's own access token, for the authorization server or vault that
            issued it and for nobody else; None on a trusted stdio server. Never in the
            representation.
    """

    name: str
    scopes: tuple[str, ...]
    principal: Principal
    access_token: str | None = field(repr=False)


class ConnectionProvider(Protocol):
    """Fetches connections: a vault, a token exchange, or a table for tests."""

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection.

        Raises:
            ConnectionTokenError: one of its kinds, saying why there is none.
        """
        ...


ConnectionFunction: TypeAlias = Callable[[ConnectionRequest], Awaitable[Connection]]
"""A plain async function may stand in for a provider."""
