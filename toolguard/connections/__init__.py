"""Where does a tool get the token for a third-party service?

A connection is a credential of the *user* for a third-party service, kept in a vault. A provider
fetches it for the verified caller; which provider is a setting of the guard.

Providers that speak HTTP are imported from where they are: ``toolguard.descope`` and
``toolguard.connections.exchange``.
"""

from toolguard.connections.cache import CachedConnections
from toolguard.connections.client_auth import (
    ClientAuth,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJWT,
)
from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
)
from toolguard.connections.router import ConnectionRouter
from toolguard.connections.static import StaticConnections

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
    "StaticConnections",
]
