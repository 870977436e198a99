"""Connections from Arcade: https://docs.arcade.dev/en/guides/tool-calling/call-third-party-apis."""

from __future__ import annotations

from typing import Any

from toolguard.connections import kit
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError
from toolguard.parsing.secure_urls import secure_origin

__all__ = ["Arcade"]


class Arcade(kit.VaultProvider):
    """Connections from Arcade; the name of a connection is the id of the auth provider.

    Arcade's link is handed to the caller: have Arcade verify who opens it, with a user verifier.

    Args:
        api_key: the API key; never in the representation.
        base_url: the URL of the engine.
        settings: those of :class:`~toolguard.connections.kit.VaultProvider`.
    """

    title = "Arcade"

    def __init__(
        self, api_key: str, *, base_url: str = "https://api.arcade.dev", **settings: Any
    ) -> None:
        super().__init__(base_url, **settings)
        self._key = kit.bearer_key("api_key", api_key)

    async def ask(self, request: ConnectionRequest, account: str) -> kit.VaultRequest:
        """Return the request, which starts an authorization if there is none with these scopes."""
        needed = {"provider_id": request.name, "provider_type": "oauth2"}
        body = {
            "user_id": account,
            "auth_requirement": {**needed, "oauth2": {"scopes": list(request.scopes)}},
        }
        return kit.VaultRequest(request.name, f"{self.base_url}/v1/auth/authorize", body, self._key)

    def read(self, answer: kit.VaultAnswer, request: ConnectionRequest, account: str) -> Connection:
        """Return the connection in an answer."""
        members, status = answer.members, answer.members.get("status")
        kit.check_named(members, user_id=account, provider_id=request.name)
        if not answer.is_refusal and status in ("not_started", "pending", "failed"):
            refusal = ConnectionRequiredError.not_connected(request.name)
            url = members.get("url")
            is_secure = isinstance(url, str) and secure_origin(url) is not None
            refusal.connect_url = url if is_secure else None
            raise refusal
        context = kit.object_in(members, "context") if status == "completed" else {}
        return Connection(kit.token_in(context, "token"), scopes=kit.scopes_in(members, "scopes"))
