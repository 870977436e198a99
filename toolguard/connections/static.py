"""Connections from a table, for tests and local work."""

from __future__ import annotations

from collections.abc import Mapping

from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError
from toolguard.parsing.kinds import of_kind

__all__ = ["StaticConnections"]


class StaticConnections:
    """Connections from a table ``name -> token``, or ``name -> {user id: token}``.

    Args:
        table: tokens (or :class:`Connection` objects) by connection name, either one for all
            users or one by user id. Copied, so later changes of it have no effect.

    Raises:
        ValueError: if the table, or a token in it, is empty.
        TypeError: if an entry is neither a token nor a table of tokens.

    >>> connections = StaticConnections({"google-calendar": {"alice": "ya29.local"}})
    """

    def __init__(
        self, table: Mapping[str, str | Connection | Mapping[str, str | Connection]]
    ) -> None:
        example = 'StaticConnections({"google-calendar": "a-token"})'
        if not of_kind("the table of connections", table, Mapping, example):
            raise ValueError(f"write {example}")
        if "" in table:
            raise ValueError(f"a connection has an empty name: write {example}")
        self._table = {
            name: {user_id: _connection(token) for user_id, token in entry.items()}
            if isinstance(entry, Mapping)
            else _connection(entry)
            for name, entry in table.items()
        }

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection of this user.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if the table has no connection, or one with too few scopes.
        """
        connection = self._of(request.principal.user_id, request.name)
        if connection is None:
            raise ConnectionRequiredError.not_connected(request.name)
        missing = [s for s in request.scopes if s not in connection.scopes]
        if connection.scopes and missing:
            raise ConnectionRequiredError.lacking_scopes(request.name, missing)
        return connection

    def _of(self, user_id: str | None, name: str) -> Connection | None:
        entry = self._table.get(name)
        if isinstance(entry, dict):
            return entry.get(user_id) if user_id else None
        return entry

    def __repr__(self) -> str:
        return f"<StaticConnections: {', '.join(self._table)}>"


def _connection(token: str | Connection) -> Connection:
    return token if isinstance(token, Connection) else Connection(token)
