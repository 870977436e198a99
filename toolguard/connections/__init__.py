"""Get third-party credentials (connections) for the verified caller. Public.

A connection is a credential of the *user* for a third-party service, kept in a vault. A provider
fetches it for the verified caller; the guard is configured with the provider.

Providers that use HTTP are imported from their own modules: ``toolguard.descope`` and, here,
``exchange``, ``server`` and ``vendors``; a new one is written with ``kit``.
"""

from typing import TYPE_CHECKING, Any

from toolguard.connections.cache import CachedConnections
from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
)
from toolguard.connections.router import ConnectionRouter
from toolguard.connections.static import StaticConnections

if TYPE_CHECKING:
    from toolguard.connections.client_auth import (
        ClientAuth,
        ClientSecretBasic,
        ClientSecretPost,
        PrivateKeyJWT,
        PublicClient,
    )

__all__ = [
    "CachedConnections",
    "ClientAuth",
    "ClientSecretBasic",
    "ClientSecretPost",
    "Connection",
    "ConnectionFunction",
    "ConnectionProvider",
    "ConnectionRequest",
    "ConnectionRouter",
    "PrivateKeyJWT",
    "PublicClient",
    "StaticConnections",
]

_IMPORT_CRYPTOGRAPHY = (
    *("ClientAuth", "ClientSecretBasic", "ClientSecretPost", "PrivateKeyJWT", "PublicClient"),
)


def __getattr__(name: str) -> Any:
    """Import slow modules on first use (PEP 562)."""
    if name not in _IMPORT_CRYPTOGRAPHY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from toolguard.connections import client_auth  # noqa: PLC0415 - imports cryptography

    return getattr(client_auth, name)
