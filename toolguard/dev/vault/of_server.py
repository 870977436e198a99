"""The vault of a development server: its users connect accounts, and sign in at the server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.connections.http import Transport
from toolguard.dev.oauth.config import User
from toolguard.dev.oauth.consent import ConnectLink
from toolguard.dev.oauth.server import DevServer
from toolguard.vault import OAuthProvider, Person, Vault
from toolguard.vault.grants import GrantKey, Owner

__all__ = ["ServerVault"]


class ServerVault:
    """What the users of a server have connected.

    Args:
        server: the server; the vault's pages become pages of its origin.
        connections: the services, by the names of their connections.
        transport: carries the requests to the services instead of sockets.
        clock: the time in seconds since the epoch.

    Attributes:
        vault: the vault.
    """

    def __init__(
        self,
        server: DevServer,
        connections: Mapping[str, OAuthProvider],
        *,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._titles = {name: provider.title for name, provider in connections.items()}
        self.vault = Vault(
            server.store.vault_url,
            keys=[server.store.vault_key()],
            connections=connections,
            sign_in=self._person,
            public_url=server.origin,
            transport=transport,
            clock=clock,
        )

    def owner(self, user_id: str) -> Owner:
        """Return what a user is called in the vault."""
        return Owner(self._server.issuer, user_id)

    async def has(self, user_id: str, connection: str) -> bool:
        """Return whether a user has connected an account, and the service accepts it."""
        return connection in await self.names(user_id)

    async def names(self, user_id: str) -> list[str]:
        """Return the connections that a user has and that work."""
        connected = await self.vault.list(self._server.issuer, user_id)
        return [each.connection for each in connected if each.works]

    async def link(
        self, user_id: str, connection: str, scopes: tuple[str, ...] = (), *, return_to: str = ""
    ) -> str:
        """Return a URL at which only this user can connect an account; see ``Vault.link``."""
        owner = self.owner(user_id)
        key = GrantKey(owner, connection)
        url = await self.vault.link(owner, key, scopes, return_to=return_to)
        assert url is not None  # noqa: S101 - this vault has pages
        return url

    async def link_for_consent(self, user: User, return_to: str) -> ConnectLink | None:
        """Return a link for the consent page; None if everything is connected already."""
        for connection, title in self._titles.items():
            if not await self.has(user.id, connection):
                url = await self.link(user.id, connection, return_to=return_to)
                return ConnectLink(title, url)
        return None

    async def _person(self, request: Request) -> Person | Response:
        user = self._server.sign_in_user(request)
        if user is not None:
            return Person(self._server.issuer, user.id, user.email)
        url = self._server.sign_in_url(f"{self._server.origin}{request.url.path}")
        # No referrer: the address that is left holds a ticket.
        headers = {"referrer-policy": "no-referrer", "cache-control": "no-store"}
        return RedirectResponse(url, 303, headers)
