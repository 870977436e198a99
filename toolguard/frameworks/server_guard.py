"""What the frameworks' adapters need of the guard that protects a server."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from toolguard.calls.request import RequestAuth, TaskExpiry
from toolguard.http.door import HTTPGuard
from toolguard.tokens.verifier import Verifier

__all__ = ["ServerGuard", "verifier_of"]


class ServerGuard(HTTPGuard, Protocol):
    """The guard of a server, as :class:`toolguard.ToolGuard` is one."""

    resource: str
    verifies_itself: bool
    task_expiry: TaskExpiry

    @property
    def issuer(self) -> str | None:
        """The authorization server whose tokens are accepted; None if only a verifier knows."""
        ...

    @property
    def initial_scopes(self) -> tuple[str, ...]:
        """What a client without a token is told to ask for."""
        ...

    def protect(self, server: Any, *, rules: Any = None) -> Any:
        """Guard a server, in place."""
        ...

    @property
    def metadata_url(self) -> str:
        """The URL of the RFC 9728 document."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Return the RFC 9728 document."""
        ...

    def serving_stdio(self) -> AbstractContextManager[None]:
        """Serve messages that come from this process's standard input."""
        ...

    async def stdio_auth(self) -> RequestAuth | None:
        """Return the caller of a message that came without an HTTP request."""
        ...

    async def aclose(self) -> None:
        """Close what the connection provider keeps open."""
        ...


def verifier_of(verifying: ServerGuard | Verifier) -> Verifier:
    """Return the verifier of a guard, or the verifier that was given."""
    found: Verifier = verifying.verifier if hasattr(verifying, "verifier") else verifying
    return found
