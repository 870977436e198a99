"""Connections of the server itself, not of a user. Public.

Each is described once, for :class:`ServerConnections` or beside the connections of users in a
:class:`toolguard.vault.Vault`. A tool gets them by ``@with_connection``, for every caller whom its
policy permits.
"""

from toolguard.connections.server.api_key import APIKey
from toolguard.connections.server.github import GitHubInstallation
from toolguard.connections.server.provider import ServerConnections
from toolguard.connections.server.source import ServerSource
from toolguard.connections.server.token_endpoint import ClientCredentialsGrant, ServiceAccount

__all__ = [
    "APIKey",
    "ClientCredentialsGrant",
    "GitHubInstallation",
    "ServerConnections",
    "ServerSource",
    "ServiceAccount",
]
