"""A connection provider whose answers a test determines."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from copy import copy
from typing import TypeAlias

from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.static import StaticConnections
from toolguard.errors import ConnectionRequiredError, ToolGuardError

__all__ = ["ScriptedAnswer", "ScriptedConnections"]

ScriptedAnswer: TypeAlias = str | Connection | Exception
"""One answer of the provider: a token or connection to return, or an exception to raise."""

# The user, or the tenant, that has the connection; neither for all callers.
_Owner: TypeAlias = tuple[str | None, str | None]
_EVERYBODY: _Owner = (None, None)


class ScriptedConnections:
    """A provider with answers set by a test, which records its requests.

    A caller without an answer has not connected. A :class:`Connection` with scopes is returned
    only if they suffice, as by a vault.

    Args:
        answers: the answers for all callers, by connection name.

    Attributes:
        calls: the requests, in their order; their representations hold no token. A guard requests
            the same connection once a minute, unless it has
            ``connections=CachedConnections(provider, max_age=0)``.

    Raises:
        ValueError: if a token is empty.
        TypeError: if an answer has another type.

    >>> connections = ScriptedConnections({"google-calendar": "ya29.local"})
    >>> connections.answer("google-calendar", "ya29.bob", user="bob")
    >>> connections.calls
    []
    """

    def __init__(self, answers: Mapping[str, ScriptedAnswer] | None = None) -> None:
        self._scripts: dict[tuple[str, _Owner], deque[Connection | Exception]] = {}
        self.calls: list[ConnectionRequest] = []
        for name, answer in (answers or {}).items():
            self.answer(name, answer)

    def answer(
        self,
        name: str,
        *answers: ScriptedAnswer,
        user: str | None = None,
        tenant: str | None = None,
    ) -> None:
        """Set the answers to requests for a connection, instead of the earlier ones.

        Args:
            name: the connection's name, as in ``@with_connection(name)``.
            answers: a token, a connection, or an exception such as
                :class:`~toolguard.errors.ConnectionRequiredError`. Of several, each request takes
                the next one; the last one is repeated: ``"stale", "fresh"``.
            user: for the connections of this user only; these answers take precedence over those
                for all callers.
            tenant: likewise for those of this tenant: ``@with_connection(name, tenant=True)``.

        Raises:
            ValueError: if there is no answer, a token is empty, or both owners are given.
            TypeError: if an answer has another type.
        """
        if not name or not answers:
            raise ValueError('write connections.answer("google-calendar", "a-token")')
        if user is not None and tenant is not None:
            raise ValueError("a connection is a user's or a tenant's: write user= or tenant=")
        self._scripts[name, (user, tenant)] = deque(_checked(answer) for answer in answers)

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return, or raise, the next answer for this caller.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if there is no answer, or a connection with too few scopes.
        """
        self.calls.append(request)
        script = self._script(request)
        if script is None:
            raise ConnectionRequiredError(
                f"No answer is scripted for {request.name} for this caller: write "
                f'connections.answer("{request.name}", "a-token")',
                connection=request.name,
            )
        answer = script.popleft() if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            # Each call raises its own copy: a traceback grows with every raise.
            raise copy(answer) if isinstance(answer, ToolGuardError) else answer
        return await StaticConnections({request.name: answer}).fetch(request)

    def _script(self, request: ConnectionRequest) -> deque[Connection | Exception] | None:
        tenant = request.tenant_id
        owner = (None, tenant) if tenant is not None else (request.principal.user_id, None)
        everybodys = self._scripts.get((request.name, _EVERYBODY))
        return self._scripts.get((request.name, owner), everybodys)

    def __repr__(self) -> str:
        names = dict.fromkeys(name for name, _ in self._scripts)
        return f"<ScriptedConnections: {', '.join(names)}>"


def _checked(answer: ScriptedAnswer) -> Connection | Exception:
    if isinstance(answer, str):
        return Connection(answer)
    if not isinstance(answer, (Connection, Exception)):
        raise TypeError(
            "an answer is a token, a Connection or an exception, such as "
            'ConnectionRequiredError("Connect first", connection="google-calendar")'
        )
    return answer
