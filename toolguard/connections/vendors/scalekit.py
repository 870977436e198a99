"""Connections from Scalekit: https://docs.scalekit.com/agentkit/apis/ (connected accounts)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from toolguard.connections import kit
from toolguard.connections.client_auth import ClientSecretPost
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.server.source import SourceRequest
from toolguard.connections.server.token_endpoint import ClientCredentialsGrant
from toolguard.connections.server.tokens import ServerTokens
from toolguard.errors import ConnectionRequiredError

__all__ = ["Scalekit"]


class Scalekit(kit.VaultProvider):
    """Connections from Scalekit; the name of a connection is that of the connector.

    Args:
        environment_url: the URL of the environment.
        client_id: the id of the environment's client.
        client_secret: its secret; never in the representation.
        settings: those of :class:`~toolguard.connections.kit.VaultProvider`. ``account_of``
            returns the ``identifier`` of the connected account; by default the caller's ``sub``.
    """

    title = "Scalekit"

    def __init__(
        self, environment_url: str, client_id: str, client_secret: str, **settings: Any
    ) -> None:
        super().__init__(environment_url, **settings)
        auth = ClientSecretPost(client_id, client_secret)
        self._tokens = ServerTokens(ClientCredentialsGrant(f"{self.base_url}/oauth/token", auth))

    async def ask(self, request: ConnectionRequest, account: str) -> kit.VaultRequest:
        """Return the request, with a token of the environment's client."""
        own = SourceRequest(request.name, (), self.client, self.clock)
        key = f"Bearer {(await self._tokens.get(own, fresh=False)).token}"
        query = urlencode({"connector": request.name, "identifier": account})
        url = f"{self.base_url}/api/v1/connected_accounts/auth?{query}"
        return kit.VaultRequest(request.name, url, {}, key, method="GET", is_idempotent=True)

    def read(self, answer: kit.VaultAnswer, request: ConnectionRequest, account: str) -> Connection:
        """Return the connection in an answer. A 404 without an object is a proxy's."""
        found = kit.object_in(answer.members, "connected_account")
        is_absent = answer.status == 404 and bool(answer.members)  # noqa: PLR2004
        if is_absent or found.get("status") not in (None, "ACTIVE"):
            raise ConnectionRequiredError.not_connected(request.name)
        kit.check_named(found, connector=request.name, identifier=account)
        tokens = kit.object_in(found, "authorization_details", "oauth_token")
        return Connection(
            kit.token_in(tokens, "access_token"),
            scopes=kit.scopes_in(tokens, "scopes"),
            expires_at=kit.expiry_in(found, "token_expires_at"),
        )
