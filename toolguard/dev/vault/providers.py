"""The OAuth client with which the vault gets third-party tokens.

It uses the authorization code grant with PKCE (RFC 7636), and refresh, over HTTP as with the real
service.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from toolguard.dev.oauth.redirects import with_parameters
from toolguard.dev.vault.connection_table import ProviderToken
from toolguard.parsing.pkce import s256_challenge

__all__ = ["OutboundApp", "OutboundClient"]


@dataclass(frozen=True)
class OutboundApp:
    """One third-party service that users can connect.

    Attributes:
        id: what tools call it, such as ``"google-calendar"``.
        name: what users call it.
        authorize_url: where users consent.
        token_url: where codes and refresh tokens are exchanged.
        client_id: who the vault is there.
        client_secret: what proves it.
        scopes: what is asked for where a tool asks for nothing in particular.
    """

    id: str
    name: str
    authorize_url: str
    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]


class OutboundClient:
    """The vault as a client of one service.

    Args:
        app: the service.
        redirect_uri: where its consent page sends users back to.
        transport: carries the requests instead of sockets.
        clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        app: OutboundApp,
        redirect_uri: str,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._redirect_uri = redirect_uri
        self._transport = transport
        self._clock = clock

    def consent_url(
        self, *, scopes: Sequence[str], state: str, verifier: str, login_hint: str
    ) -> str:
        """Return where the user consents to ``scopes``.

        Args:
            scopes: what is asked for.
            state: comes back with the answer; unguessable.
            verifier: the secret that :meth:`exchange` will show (RFC 7636 §4.1).
            login_hint: the account that is most likely meant, an e-mail address.
        """
        parameters = {
            "response_type": "code",
            "client_id": self.app.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(scopes),
            "state": state,
            "code_challenge": s256_challenge(verifier),
            "code_challenge_method": "S256",
            "login_hint": login_hint,
            # Google: without these two there is no refresh token.
            "access_type": "offline",
            "prompt": "consent",
        }
        return with_parameters(self.app.authorize_url, parameters.items())

    async def exchange(self, code: str, verifier: str) -> ProviderToken | None:
        """Return the tokens that ``code`` stands for; None if the service refuses it.

        Raises:
            ConnectionError: if the service cannot be reached.
        """
        answer = await self._ask(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self._redirect_uri,
                "code_verifier": verifier,
            }
        )
        return None if answer is None else self._token(answer)

    async def refresh(self, token: ProviderToken) -> ProviderToken | None:
        """Return ``token`` with a new access token; None if its owner has revoked the consent.

        Raises:
            ConnectionError: if the service cannot be reached.
        """
        answer = await self._ask(
            {"grant_type": "refresh_token", "refresh_token": token.refresh_token}
        )
        if answer is None:
            return None
        fresh = self._token(answer)
        kept = fresh.refresh_token or token.refresh_token
        return replace(fresh, id=token.id, refresh_token=kept)

    async def _ask(self, parameters: Mapping[str, str]) -> Mapping[str, Any] | None:
        credentials = {"client_id": self.app.client_id, "client_secret": self.app.client_secret}
        client = httpx.AsyncClient(transport=self._transport, timeout=10, trust_env=False)
        try:
            async with client:
                response = await client.post(self.app.token_url, data={**parameters, **credentials})
        except httpx.HTTPError:
            # Its text could quote the request, which holds secrets.
            raise ConnectionError(f"{self.app.name} cannot be reached") from None
        if response.is_server_error:
            raise ConnectionError(f"{self.app.name} has a problem")
        answer: Mapping[str, Any] | None = response.json() if response.is_success else None
        return answer

    def _token(self, answer: Mapping[str, Any]) -> ProviderToken:
        return ProviderToken(
            id=f"OT{secrets.token_hex(8)}",
            subject="",
            access_token=answer["access_token"],
            refresh_token=answer.get("refresh_token", ""),
            scopes=tuple(answer["scope"].split()),
            expires_at=self._clock() + answer["expires_in"],
        )
