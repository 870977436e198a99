"""Fetch all connections of one call concurrently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from toolguard.connections.faults import read_fault
from toolguard.connections.protocol import Connection, ConnectionProvider, ConnectionRequest
from toolguard.connections.renewal import Renewal
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    ToolGuardError,
)
from toolguard.parts.contained import contained
from toolguard.policies.policy import ConnectionNeed
from toolguard.principal import Principal

__all__ = ["ConnectionFetcher"]


@dataclass(frozen=True)
class ConnectionFetcher:
    """Fetches connections for one caller.

    Attributes:
        provider: the connection provider; None if the guard has no provider.
        principal: the verified caller.
        access_token: the caller's own access token; None on a trusted stdio server.
        clock: returns the time, in seconds since the epoch.
        check_open: raises when the message has ended or the caller's token has expired.
    """

    provider: ConnectionProvider | None
    principal: Principal
    access_token: str | None = field(repr=False)
    clock: Callable[[], float]
    check_open: Callable[[Principal], None]

    async def connect(self, needs: Sequence[ConnectionNeed]) -> dict[str, Connection | None]:
        """Return the connections by parameter; None for an optional one that is not connected.

        Raises:
            ToolGuardError: the first failure, if a connection cannot be fetched.
        """
        outcomes: dict[str, Connection | ToolGuardError] = {}

        async def fetch(need: ConnectionNeed) -> None:
            outcomes[need.parameter] = await self._outcome(need)

        async with anyio.create_task_group() as group:
            for need in needs:
                group.start_soon(fetch, need)
        connections: dict[str, Connection | None] = {}
        for need in needs:
            outcome = outcomes[need.parameter]
            if isinstance(outcome, ConnectionRequiredError) and need.optional:
                connections[need.parameter] = None
            elif isinstance(outcome, ToolGuardError):
                raise outcome
            else:
                connections[need.parameter] = outcome
        return connections

    async def _outcome(self, need: ConnectionNeed) -> Connection | ToolGuardError:
        """Return the connection or the failure: one failure must not cancel the other fetches."""
        try:
            with contained():
                connection = await self._fetch(need, fresh=need.fresh)
        except ToolGuardError as error:
            return error
        except Exception as error:  # noqa: BLE001 - fail closed: its text may hold a token
            return read_fault(error, need.name)

        async def fetch_again(rejected: Connection) -> Connection:
            return await self._fetch(need, fresh=True, rejected=rejected)

        def check() -> None:
            self.check_open(self.principal)

        return Renewal(connection, fetch_again, check, self.clock).connection

    async def _fetch(
        self, need: ConnectionNeed, *, fresh: bool, rejected: Connection | None = None
    ) -> Connection:
        if self.provider is None:
            raise GuardNotConfiguredError(
                "This operation uses a connection and the guard has no provider: "
                "write ToolGuard(..., connections=...)"
            )
        tenant_id = self.principal.tenant_id if need.tenant else None
        if need.tenant and tenant_id is None:
            raise AccessDeniedError.unnamed("tenant", "This operation needs a tenant")
        request = ConnectionRequest(
            need.name,
            need.scopes,
            self.principal,
            self.access_token,
            tenant_id=tenant_id,
            fresh=fresh,
            rejected=rejected,
        )
        connection = await self.provider.fetch(request)
        if connection.is_expired(self.clock()):
            raise ConnectionRequiredError(
                f"Connect {need.name} again: its token has expired", connection=need.name
            )
        return connection
