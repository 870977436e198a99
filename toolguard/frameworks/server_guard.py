"""The part of a guard that the frameworks' adapters use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from toolguard.calls.message import MessageContext
from toolguard.calls.request import RequestAuth
from toolguard.http.door import HTTPGuard
from toolguard.tokens.proofs.settings import Mode
from toolguard.tokens.verifier import Verifier, dpop_of

__all__ = ["ServerGuard", "mode_of", "verifier_of"]


class ServerGuard(HTTPGuard, Protocol):
    """The guard of a server, such as :class:`toolguard.ToolGuard`."""

    verifies_itself: bool
    offers_bearer: bool
    running: set[MessageContext]
    apps: list[object]
    """The event loop of each app that runs now."""

    @property
    def issuer(self) -> str | None:
        """The authorization server whose tokens are accepted; None if only a verifier knows."""
        ...

    @property
    def initial_scopes(self) -> tuple[str, ...]:
        """The scopes that a client without a token is told to request."""
        ...

    def protect(self, server: object, *, rules: Any = None) -> Any:
        """Guard a server, in place."""
        ...

    @property
    def metadata_url(self) -> str:
        """The URL of the protected resource metadata (RFC 9728)."""
        ...

    async def discover(self) -> bool:
        """Fetch what the metadata says of the issuer; return whether it is complete."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Return the protected resource metadata (RFC 9728 §2)."""
        ...

    def serving_stdio(self) -> AbstractContextManager[None]:
        """Serve messages that come from this process's standard input."""
        ...

    async def stdio_auth(self) -> RequestAuth | None:
        """Return the caller of a message that came without an HTTP request."""
        ...

    async def aclose(self, *, grace: float = ...) -> None:
        """Let running calls end, and close the clients of this event loop."""
        ...


def verifier_of(verifying: ServerGuard | Verifier) -> Verifier:
    """Return the verifier of a guard, or the verifier that was given."""
    found: Verifier = verifying.verifier if hasattr(verifying, "verifier") else verifying
    return found


def mode_of(verifying: ServerGuard | Verifier, issuer: str) -> Mode:
    """Return whether a guard or a verifier accepts bound tokens of an issuer, or only those."""
    if hasattr(verifying, "dpop_mode"):
        return verifying.dpop_mode(issuer)
    return dpop_of(verifying, issuer) or "off"
