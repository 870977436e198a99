"""The protocol of connection providers: the request, and the connection it returns."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    NoReturn,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

from typing_extensions import Self

from toolguard.principal import Principal

if TYPE_CHECKING:
    from toolguard.connections.auth import ConnectionAuth

__all__ = [
    "Connection",
    "ConnectionFunction",
    "ConnectionProvider",
    "ConnectionRequest",
    "is_of_server",
    "listed_scopes",
    "names_of",
]


_SENDABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")

Refetch: TypeAlias = Callable[[], Coroutine[Any, Any, "Connection"]]
"""An async function that fetches one connection again."""


class Connection:
    """A third-party credential of the caller. Immutable.

    Only ``connection.token`` returns the token. Serializers do not: JSON, pydantic,
    ``dataclasses.asdict``, ``vars``, pickle and the representation leave it out. So a tool that
    returns its connection does not send the token to the client. (Hence this class is not a
    dataclass and has no annotations: serializers would follow both.)

    Args:
        token: the access token for the third-party service.
        token_type: the authentication scheme, nearly always ``"Bearer"``.
        scopes: the third-party scopes it was granted, if the vault reports them.
        expires_at: when it expires, in seconds since the epoch; None where unknown.
        refetch: fetches it again for the same caller; set by the guard, not by providers.

    Raises:
        ValueError: if the token is empty.
        TypeError: if ``token`` is not a string, or ``scopes`` is one.
    """

    __slots__ = ("_expires_at", "_refetch", "_scopes", "_token", "_token_type")

    def __init__(
        self,
        token: str,
        token_type: str = "Bearer",  # noqa: S107 - the name of a scheme, not a secret
        scopes: Iterable[str] = (),
        expires_at: float | None = None,
        refetch: Refetch | None = None,
    ) -> None:
        if not isinstance(token, str):
            raise TypeError(f"the token of a connection is text, not {type(token).__name__}")
        # An HTTP client would quote a token that a header cannot carry in its error.
        if not _SENDABLE.fullmatch(token):
            raise ValueError(
                "a connection needs a token, in printable ASCII; where there is none, raise "
                "ConnectionRequiredError"
            )
        self._token = token
        self._token_type = token_type
        self._scopes = listed_scopes(scopes)
        self._expires_at = expires_at
        self._refetch = refetch

    @property
    def token(self) -> str:
        """The access token for the third-party service."""
        return self._token

    @property
    def token_type(self) -> str:
        """The authentication scheme, nearly always ``"Bearer"``."""
        return self._token_type

    @property
    def scopes(self) -> tuple[str, ...]:
        """The third-party scopes it was granted, if the vault reports them."""
        return self._scopes

    @property
    def expires_at(self) -> float | None:
        """When it expires, in seconds since the epoch; None where unknown."""
        return self._expires_at

    @property
    def refetch(self) -> Refetch | None:
        """Fetches it again for the same caller; None outside of a call."""
        return self._refetch

    def with_refetch(self, refetch: Refetch | None) -> Connection:
        """Return the same credential with another ``refetch`` function."""
        same = Connection.__new__(Connection)  # its parts were checked when it was made
        same._token = self._token
        same._token_type = self._token_type
        same._scopes = self._scopes
        same._expires_at = self._expires_at
        same._refetch = refetch
        return same

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired at ``now``; False if the expiry is unknown."""
        return self.expires_at is not None and self.expires_at <= now

    @property
    def auth(self) -> ConnectionAuth:
        """The ``auth`` of an httpx or httpx2 client: it sends the token, a fresh one after a 401.

        The token is sent over https only; :meth:`auth_for` limits it to one API. ::

            async with httpx.AsyncClient(auth=calendar.auth) as client:
                await client.get("https://www.googleapis.com/calendar/v3/calendars/primary/events")
        """
        from toolguard.connections.auth import ConnectionAuth  # noqa: PLC0415 - imports httpx

        return ConnectionAuth(self)

    def auth_for(self, *origins: str) -> ConnectionAuth:
        """Return an :attr:`auth` that sends the token to these origins only.

        Args:
            origins: the origins of the API: ``"https://www.googleapis.com"``.

        Raises:
            ValueError: if there is none, or one is not a secure origin.
        """
        from toolguard.connections.auth import (  # noqa: PLC0415 - imports httpx
            ConnectionAuth,
            api_origins,
        )

        return ConnectionAuth(self, api_origins(origins))

    def _identity(self) -> tuple[object, ...]:
        return self.token, self.token_type, self.scopes, self.expires_at

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Connection):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def __repr__(self) -> str:
        facts = {
            "token_type": self.token_type,
            "scopes": self.scopes,
            "expires_at": self.expires_at,
        }
        return f"Connection({', '.join(f'{name}={value!r}' for name, value in facts.items())})"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __getstate__(self) -> NoReturn:
        raise TypeError("a connection holds a token and is not pickled: fetch it where it is used")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> object:
        """Return the schema with which pydantic serializes a connection without its token."""
        from pydantic_core import core_schema  # noqa: PLC0415 - only where pydantic asks

        return core_schema.is_instance_schema(
            cls,
            serialization=core_schema.plain_serializer_function_ser_schema(
                repr, return_schema=core_schema.str_schema()
            ),
        )


@dataclass(frozen=True)
class ConnectionRequest:
    """One connection that one verified caller needs now.

    Attributes:
        name: the connection's name at the provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token must have; empty accepts any.
        principal: the verified caller. Nothing here comes from tool arguments.
        access_token: the caller's own access token, to be sent only to the authorization server
            or vault that issued it; None on a trusted stdio server. Never in the representation.
        tenant_id: requests the connection of this tenant instead of the user's. It is the tenant
            of the caller's verified token, never one that a client named.
        fresh: whether a cached token must not be used.
        rejected: the connection whose token the service did not accept, if that is why a fresh one
            is requested.

    Raises:
        ValueError: if the name is empty.
        TypeError: if ``scopes`` is a string.
    """

    name: str
    scopes: tuple[str, ...]
    principal: Principal
    access_token: str | None = field(repr=False)
    tenant_id: str | None = None
    fresh: bool = False
    rejected: Connection | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError('a connection has a name, such as "google-calendar"')
        object.__setattr__(self, "scopes", listed_scopes(self.scopes))


def listed_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes as a tuple.

    Raises:
        TypeError: if they are a string.
    """
    # "read" is in "thread.readonly": a string would grant by substring.
    if isinstance(scopes, str):
        raise TypeError(f"scopes are a list: write {scopes.split()!r}")
    return tuple(scopes)


@runtime_checkable
class ConnectionProvider(Protocol):
    """Fetches connections: a vault, a token exchange, or a table for tests."""

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionTokenError: a subclass that says why there is no connection.
        """
        ...


ConnectionFunction: TypeAlias = (
    Callable[[ConnectionRequest], Awaitable[Connection]]
    | Callable[[ConnectionRequest], Awaitable[str]]
    | Callable[[ConnectionRequest], Awaitable[Connection | str]]
)
"""A plain async function that can be used as a provider. Text that it returns is the token."""


def is_of_server(provider: object, name: str) -> bool:
    """Return whether a provider says that this connection belongs to the server.

    Such a connection is the same for every caller, of whichever issuer.

    Args:
        provider: a provider; one without the method ``is_of_server`` has none of the server.
        name: the name of the connection.
    """
    ask: Callable[[str], bool] | None = getattr(provider, "is_of_server", None)
    return ask is not None and ask(name)


def names_of(provider: object) -> frozenset[str] | None:
    """Return the names of all connections that a provider has; None if it may have any.

    Args:
        provider: a provider; one without ``connection_names`` may have any.
    """
    names: frozenset[str] | None = getattr(provider, "connection_names", None)
    return names
