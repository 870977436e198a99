"""What is asked of a connection provider, and what does it answer?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

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

    Raises:
        ValueError: if there is no token.
        TypeError: if ``token`` is not a string, or ``scopes`` is one.
    """

    token: str = field(repr=False)
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme, not a secret
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.token, str):
            raise TypeError(f"the token of a connection is text, not {type(self.token).__name__}")
        if not self.token.strip():
            raise ValueError("a connection needs a token")
        object.__setattr__(self, "scopes", _scope_tuple(self.scopes))

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired at ``now``; one whose expiry is unknown has not."""
        return self.expires_at is not None and self.expires_at <= now


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

    Raises:
        ValueError: if there is no name.
        TypeError: if ``scopes`` is a string.
    """

    name: str
    scopes: tuple[str, ...]
    principal: Principal
    access_token: str | None = field(repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError('a connection has a name, such as "google-calendar"')
        object.__setattr__(self, "scopes", _scope_tuple(self.scopes))


def _scope_tuple(scopes: Iterable[str]) -> tuple[str, ...]:
    # "read" is in "thread.readonly": a string would grant by substring.
    if isinstance(scopes, str):
        raise TypeError(f"scopes are a list: write {scopes.split()!r}")
    return tuple(scopes)


@runtime_checkable
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
