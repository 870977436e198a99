"""What is asked of a connection provider, and what does it answer?"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from toolguard.principal import Principal

if TYPE_CHECKING:
    import httpx

__all__ = ["Connection", "ConnectionFunction", "ConnectionProvider", "ConnectionRequest"]


_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

Refetch: TypeAlias = Callable[[], Coroutine[Any, Any, "Connection"]]
"""Fetches one connection anew."""


@dataclass(frozen=True)
class Connection:
    """A third-party credential of the caller.

    Attributes:
        token: the access token for the third-party service; never in the representation.
        token_type: how it is presented, nearly always ``"Bearer"``.
        scopes: the third-party scopes it was granted, where the vault says so.
        expires_at: when it expires, in seconds since the epoch; None where unknown.
        refetch: fetches it anew for the same caller; set by the guard, not by providers.

    Raises:
        ValueError: if there is no token.
        TypeError: if ``token`` is not a string, or ``scopes`` is one.
    """

    token: str = field(repr=False)
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme, not a secret
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    refetch: Refetch | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.token, str):
            raise TypeError(f"the token of a connection is text, not {type(self.token).__name__}")
        # What a header cannot carry would come back in the text of an HTTP client's error.
        if not _SENDABLE.fullmatch(self.token):
            raise ValueError(
                "a connection needs a token, in printable ASCII; where there is none, raise "
                "ConnectionRequiredError"
            )
        object.__setattr__(self, "scopes", _scope_tuple(self.scopes))

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired at ``now``; one whose expiry is unknown has not."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def auth(self) -> httpx.Auth:
        """An ``httpx.Auth`` that sends the token, and a fresh one after a 401.

        ::

            async with httpx.AsyncClient(auth=calendar.auth) as client:
                await client.get("https://www.googleapis.com/calendar/v3/calendars/primary/events")
        """
        from toolguard.connections.auth import ConnectionAuth  # noqa: PLC0415 - imports httpx

        return ConnectionAuth(self)


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
        tenant_id: asks for the connection of this tenant, instead of the user's own. It is the
            tenant of the caller's verified token, never one that a client named.
        fresh: whether a token that was kept will not do.

    Raises:
        ValueError: if there is no name.
        TypeError: if ``scopes`` is a string.
    """

    name: str
    scopes: tuple[str, ...]
    principal: Principal
    access_token: str | None = field(repr=False)
    tenant_id: str | None = None
    fresh: bool = False

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
