"""Connections from WorkOS Pipes: https://workos.com/docs/reference/pipes/access-token."""

from __future__ import annotations

from typing import Any

from toolguard.connections import kit
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError

__all__ = ["WorkOSPipes"]


class WorkOSPipes(kit.VaultProvider):
    """Connections from WorkOS Pipes; the name of a connection is the slug of the provider.

    The organization of the caller's token is sent along, if it names one. People connect in the
    widget of Pipes: ``connect_url`` returns your page with it.

    Args:
        api_key: the API key; never in the representation.
        base_url: the URL of the API.
        settings: those of :class:`~toolguard.connections.kit.VaultProvider`. With tokens of
            another issuer than AuthKit, ``account_of`` returns the user's id at WorkOS.
    """

    title = "WorkOS"

    def __init__(
        self, api_key: str, *, base_url: str = "https://api.workos.com", **settings: Any
    ) -> None:
        super().__init__(base_url, **settings)
        self._key = kit.bearer_key("api_key", api_key)

    async def ask(self, request: ConnectionRequest, account: str) -> kit.VaultRequest:
        """Return the request."""
        url = f"{self.base_url}/data-integrations/{kit.path_segment(request.name)}/token"
        body = {"user_id": account, "organization_id": request.principal.tenant_id}
        named = {name: value for name, value in body.items() if value}
        return kit.VaultRequest(request.name, url, named, self._key, is_idempotent=True)

    def read(self, answer: kit.VaultAnswer, request: ConnectionRequest, account: str) -> Connection:  # noqa: ARG002
        """Return the connection in an answer; WorkOS does not say whose it is."""
        error = answer.members.get("error")
        if not answer.is_refusal and error == "not_installed":
            raise ConnectionRequiredError.not_connected(request.name)
        if not answer.is_refusal and error == "needs_reauthorization":
            raise ConnectionRequiredError(
                f"Connect {request.name} again: WorkOS cannot renew it", connection=request.name
            )
        is_active = answer.members.get("active") is True
        found = kit.object_in(answer.members, "access_token") if is_active else {}
        return Connection(
            kit.token_in(found, "access_token"),
            scopes=kit.scopes_in(found, "scopes"),
            expires_at=kit.expiry_in(found, "expires_at"),
        )
