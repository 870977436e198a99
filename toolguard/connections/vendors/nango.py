"""Connections from Nango: https://nango.dev/docs/reference/backend/http-api/connections/get."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from toolguard.connections import kit
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError

__all__ = ["Nango"]

_URL = "https://api.nango.dev"


class Nango(kit.VaultProvider):
    """Connections from Nango; the name of a connection is the id of the integration.

    Args:
        secret_key: that of the environment; never in the representation.
        account_of: returns the id that Nango gave the caller's connection; None without one.
        base_url: the URL of the API, for one that you host yourself.
        settings: those of :class:`~toolguard.connections.kit.VaultProvider`.
    """

    title = "Nango"

    def __init__(
        self, secret_key: str, account_of: kit.AccountOf, *, base_url: str = _URL, **settings: Any
    ) -> None:
        super().__init__(base_url, account_of=account_of, **settings)
        self._key = kit.bearer_key("secret_key", secret_key)

    async def ask(self, request: ConnectionRequest, account: str) -> kit.VaultRequest:
        """Return the request; a token that an API refused is replaced at once."""
        query = {"provider_config_key": request.name}
        query |= {"force_refresh": "true"} if request.fresh else {}
        url = f"{self.base_url}/connections/{kit.path_segment(account)}?{urlencode(query)}"
        once = request.fresh
        return kit.VaultRequest(
            request.name, url, {}, self._key, method="GET", is_idempotent=not once
        )

    def read(self, answer: kit.VaultAnswer, request: ConnectionRequest, account: str) -> Connection:
        """Return the connection in an answer."""
        code = kit.object_in(answer.members, "error").get("code")
        if answer.status == 404 and code == "not_found":  # noqa: PLR2004
            raise ConnectionRequiredError.not_connected(request.name)
        kit.check_named(answer.members, connection_id=account, provider_config_key=request.name)
        found = kit.object_in(answer.members, "credentials")
        if found.get("type") == "API_KEY":
            return Connection(kit.token_in(found, "apiKey"))
        return Connection(
            kit.token_in(found, "access_token"),
            scopes=kit.scopes_in(kit.object_in(found, "raw"), "scope"),
            expires_at=kit.expiry_in(found, "expires_at"),
        )
