"""Write a provider for a vault of your own, or for a vendor's. Public.

:class:`VaultProvider` asks a vault over HTTP as the providers of this package do: its own TCP
connections for each connection, one deadline with all attempts, no redirects, no cookies, answers
of at most 256 KiB; faults become the errors that callers understand, and what a vault answers is
held against what the tool asked for. A subclass says what to send and how to read the answer::

    class OwnVault(VaultProvider):
        title = "The vault"

        async def ask(self, request: ConnectionRequest, account: str) -> VaultRequest:
            url = f"{self.base_url}/tokens/{path_segment(account)}"
            return VaultRequest(request.name, url, {}, f"Bearer {KEY}", method="GET")

        def read(
            self, answer: VaultAnswer, request: ConnectionRequest, account: str
        ) -> Connection:
            if answer.is_refusal and answer.members.get("error") == "not_connected":
                raise ConnectionRequiredError.not_connected(request.name)
            return Connection(token_in(answer.members, "token"))

The adapters in :mod:`toolguard.connections.vendors` are written with it.
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeAlias
from urllib.parse import quote

from toolguard.connections.faults import read_fault
from toolguard.connections.http import Transport, VaultAnswer, VaultClient, VaultRequest
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.retries import NO_RETRIES, Retries
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)
from toolguard.parsing.kinds import secret_text
from toolguard.parsing.secure_urls import is_secure_url, secure_origin
from toolguard.parsing.token_members import is_token, moment, read_scopes, read_token, whole_seconds

__all__ = [
    "NO_RETRIES",
    "AccountOf",
    "ConnectPage",
    "Retries",
    "VaultAnswer",
    "VaultClient",
    "VaultProvider",
    "VaultRequest",
    "bearer_key",
    "check_named",
    "expiry_in",
    "is_token",
    "moment",
    "object_in",
    "path_segment",
    "read_fault",
    "scopes_in",
    "token_in",
    "whole_seconds",
]

AccountOf: TypeAlias = Callable[[ConnectionRequest], str | Awaitable[str | None] | None]
"""A function, async or not, that returns the id under which the vault knows the caller."""

ConnectPage: TypeAlias = Callable[[ConnectionRequest], str | None]
"""A function that returns the URL of your page on which the caller can connect the account."""

_RETRIES = Retries()


class VaultProvider(ABC):
    """A provider that asks a vault over HTTP. Subclasses write :meth:`ask` and :meth:`read`.

    Args:
        base_url: the URL of the vault, without a final slash; https, or http to this machine.
        account_of: returns the id under which the vault knows the caller, or None for a caller
            who has connected nothing; by default the ``sub`` of the caller's token.
        connect_url: returns the URL of a page of yours on which the caller can connect. It has to
            be sure who opens it: a vendor's link that it hands on may be opened by anyone.
        timeout: seconds for one request with all its attempts.
        retries: how often a request without an answer is repeated, if it may be.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if ``base_url`` is not secure, or ``timeout`` is not positive.
    """

    title: ClassVar[str] = "The vault"

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        base_url: str,
        *,
        account_of: AccountOf | None = None,
        connect_url: ConnectPage | None = None,
        timeout: float = 10.0,
        retries: Retries = _RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not is_secure_url(base_url) or "?" in base_url:
            raise ValueError(
                f'{base_url!r}: write "https://vault.example.com" (http only on this machine)'
            )
        self.base_url = base_url.rstrip("/")
        self.clock = clock
        self.client = VaultClient(
            timeout=timeout, retries=retries, transport=transport, clock=clock
        )
        self._account_of = account_of
        self._connect_url = connect_url

    @abstractmethod
    async def ask(self, request: ConnectionRequest, account: str) -> VaultRequest:
        """Return the request to the vault.

        Args:
            request: what the tool needs, and who calls it.
            account: the id under which the vault knows the caller.

        Raises:
            ConnectionTokenError: if the vault cannot be asked.
        """

    @abstractmethod
    def read(self, answer: VaultAnswer, request: ConnectionRequest, account: str) -> Connection:
        """Return the connection in an answer; it is checked for scopes and expiry afterwards.

        Raise for the refusals that you know, such as "not connected": another one holds no token,
        and is reported as a refusal.

        Args:
            answer: the answer of the vault.
            request: what the tool needs.
            account: the id that was asked for: an answer about another one is refused with
                :func:`check_named`.

        Raises:
            ConnectionTokenError: as the vault's refusal means.
            ValueError: if the answer is invalid. The text continues "The answer of the vault", and
                quotes nothing of it: any member may be a token.
        """

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if the caller has to connect the account, with your connect
                URL.
            ConnectionDeniedError: if the caller is no user, or the tool asks for a tenant's.
            ConnectionRateLimitedError: if the vault limits the rate of requests (429).
            ConnectionUnavailableError: if the vault does not answer in time.
            ConnectionResponseError: if the vault refuses the request or its answer is invalid.
        """
        outcome = await self._outcome(request)
        if isinstance(outcome, Connection):
            return outcome
        if isinstance(outcome, ConnectionRequiredError) and outcome.connect_url is None:
            url = None if self._connect_url is None else self._connect_url(request)
            outcome.connect_url = url if url and secure_origin(url) is not None else None
        # Raised here, where no local variable holds a token.
        raise outcome.with_traceback(None)

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later fetch opens new ones."""
        await self.client.aclose()

    async def _outcome(self, request: ConnectionRequest) -> Connection | ConnectionTokenError:
        if request.tenant_id is not None:
            return ConnectionDeniedError(
                f"{request.name} belongs to users here, not to tenants", connection=request.name
            )
        try:
            account = await self._account(request)
            if not account:
                return ConnectionRequiredError.not_connected(request.name)
            answer = await self.client.post(await self.ask(request, account))
        except ConnectionTokenError as error:
            return error
        return self._checked(answer, request, account)

    async def _account(self, request: ConnectionRequest) -> str | None:
        if not request.principal.user_id:
            raise ConnectionDeniedError(
                f"{request.name} belongs to users, and the token names no user",
                connection=request.name,
            )
        if self._account_of is None:
            return request.principal.user_id
        found = self._account_of(request)
        return await found if inspect.isawaitable(found) else found

    def _checked(
        self, answer: VaultAnswer, request: ConnectionRequest, account: str
    ) -> Connection | ConnectionTokenError:
        name = request.name
        try:
            connection = self.read(answer, request, account)
        except ConnectionTokenError as error:
            return error
        except ValueError as fault:
            problem = str(fault)
        else:
            return _usable(connection, request, self.clock())
        if answer.is_refusal:
            return ConnectionResponseError(
                f"{self.title} did not accept the request for {name} ({answer.status})",
                connection=name,
            )
        return ConnectionResponseError(
            f"The answer of {self.title} for {name} {problem}", connection=name
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.base_url}>"


def object_in(members: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return the members of an object inside of an answer; none if there is no such object.

    Args:
        members: the members of an answer.
        path: the names that lead to it.
    """
    found: object = members
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def token_in(members: Mapping[str, Any], name: str) -> str:
    """Return the token in a member.

    Args:
        members: the members of an answer.
        name: the name of the member.

    Raises:
        ValueError: if there is none that an HTTP header could carry.
    """
    return read_token(members.get(name))


def expiry_in(members: Mapping[str, Any], name: str) -> float | None:
    """Return a date and time of RFC 3339 in seconds since the epoch; None if it is not stated.

    Args:
        members: the members of an answer.
        name: the name of the member.

    Raises:
        ValueError: if it cannot be read.
    """
    value = members.get(name)
    return None if value is None or value == "" else moment(value)


def scopes_in(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Return scopes, from a list or separated by spaces or commas; empty if none are stated.

    Args:
        members: the members of an answer.
        name: the name of the member.

    Raises:
        ValueError: if they cannot be read.
    """
    return read_scopes(members.get(name) or [], ", \t\r\n", accepts_lists=True)


def check_named(members: Mapping[str, Any], **expected: str) -> None:
    """Check that an answer is about what was asked for, as far as it says that.

    Args:
        members: the members of an answer.
        expected: the value of each member that names something.

    Raises:
        ValueError: if one of them names something else.
    """
    for name, value in expected.items():
        if members.get(name) not in (None, "", value):
            raise ValueError(f"names another {name} than it was asked for")


def bearer_key(name: str, key: str) -> str:
    """Return the ``Authorization`` header of a server that proves itself with a key.

    Args:
        name: the name of the setting, for the error message.
        key: the key, which no message shows.

    Raises:
        TypeError: if it is no string, such as the None of a variable that is not set.
        ValueError: if it is empty.

    >>> bearer_key("api_key", "sk_example")
    'Bearer sk_example'
    """
    secret_text(name, key)
    return f"Bearer {key}"


def path_segment(value: str) -> str:
    """Return a value as one segment of a path: it cannot lead to another resource.

    Args:
        value: the value, such as the id of a user.

    Raises:
        ValueError: if it is empty, ``.`` or ``..``, which no quoting makes a name.

    >>> path_segment("alice/../bob")
    'alice%2F..%2Fbob'
    """
    if value in ("", ".", ".."):
        raise ValueError(f"{value!r} is not a path segment: write a name, not a relative path")
    return quote(value, safe="")


def _usable(
    connection: Connection, request: ConnectionRequest, now: float
) -> Connection | ConnectionTokenError:
    name = request.name
    if connection.is_expired(now):
        return ConnectionRequiredError(
            f"Connect {name} again: its token has expired", connection=name
        )
    missing = [each for each in request.scopes if each not in connection.scopes]
    if missing and not connection.scopes:
        return ConnectionResponseError(
            f"The vault does not say which scopes {name} has: write "
            "with_connection() without scopes=",
            connection=name,
        )
    return ConnectionRequiredError.lacking_scopes(name, missing) if missing else connection
