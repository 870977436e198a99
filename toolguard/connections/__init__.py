"""Where does a tool get the token for a third-party service?

A connection is a credential of the *user* for a third-party service, kept in a vault. A provider
fetches it for the verified caller; which provider is a setting of the guard.
"""

from toolguard.connections.protocol import (
    Connection,
    ConnectionFunction,
    ConnectionProvider,
    ConnectionRequest,
)
from toolguard.connections.static import StaticConnections

__all__ = [
    "Connection",
    "ConnectionFunction",
    "ConnectionProvider",
    "ConnectionRequest",
    "StaticConnections",
]
