"""Which connection does a table hold? For tests and local work."""

from __future__ import annotations

from collections.abc import Mapping

from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError

__all__ = ["StaticConnections"]


class StaticConnections:
    """Connections from a table ``name -> token``, or ``name -> {user id: token}``.

    Args:
        table: tokens (or :class:`Connection` objects) by connection name, either the same for
            everybody or by user id.

    >>> connections = StaticConnections({"google-calendar": {"alice": "ya29.local"}})
    """

    def __init__(
        self, table: Mapping[str, str | Connection | Mapping[str, str | Connection]]
    ) -> None:
        if not table:
            raise ValueError('write StaticConnections({"google-calendar": "a-token"})')
        self._table = dict(table)

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection of this user.

        Raises:
            ConnectionRequiredError: if the table has none, or one with too few scopes.
        """
        entry = self._table.get(request.name)
        if isinstance(entry, Mapping):
            entry = entry.get(request.principal.user_id or "")
        if entry is None:
            raise ConnectionRequiredError(
                f"Connect {request.name} first, then try again", connection=request.name
            )
        connection = entry if isinstance(entry, Connection) else Connection(entry)
        missing = [s for s in request.scopes if s not in connection.scopes]
        if connection.scopes and missing:
            raise ConnectionRequiredError(
                f"Connect {request.name} again and allow what is missing",
                connection=request.name,
                missing_scopes=missing,
            )
        return connection

    def __repr__(self) -> str:
        return f"<StaticConnections: {', '.join(self._table)}>"
