"""The vault as an OAuth client of third-party services."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from toolguard.connections.http import VaultAnswer, VaultClient, VaultRequest
from toolguard.errors import ConnectionResponseError, ConnectionTokenError
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.client_credentials import basic_credentials
from toolguard.tokens.discovery import discovery_urls
from toolguard.vault.grants import Grant
from toolguard.vault.providers import Endpoints, OAuthProvider
from toolguard.vault.token_answers import account_name, read_grant

__all__ = ["OAuthClient", "new_secret"]

_METADATA_FRESH_FOR = 3_600.0


class OAuthClient:
    """Asks one service for tokens.

    Args:
        name: the name of the connection, for errors.
        provider: the service.
        http: sends the requests.
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(
        self, name: str, provider: OAuthProvider, http: VaultClient, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.provider = provider
        self._http = http
        self._clock = clock
        self._found = provider.endpoints
        self._found_until = float("inf") if provider.endpoints else 0.0

    async def endpoints(self) -> Endpoints:
        """Return the URLs of the service; those of an issuer are discovered once an hour.

        Raises:
            ConnectionTokenError: if the metadata cannot be fetched, or is not that of the issuer.
        """
        if self._found is None or self._clock() >= self._found_until:
            self._found = await self._discover()
            self._found_until = self._clock() + _METADATA_FRESH_FOR
        return self._found

    async def exchange(
        self, code: str, verifier: str, redirect_uri: str, scopes: Sequence[str]
    ) -> tuple[Grant, Mapping[str, object]]:
        """Return the grant that ``code`` stands for, and the whole answer.

        Args:
            code: the authorization code.
            verifier: the secret of its code challenge (RFC 7636 §4.1).
            redirect_uri: the one of the authorization request (RFC 6749 §4.1.3).
            scopes: the scopes that were asked for.

        Raises:
            ConnectionTokenError: if the service does not give a token.
        """
        form = {"code": code, "code_verifier": verifier, "redirect_uri": redirect_uri}
        answer = await self._ask({"grant_type": "authorization_code", **form})
        before = Grant("", scopes=tuple(scopes))
        grant = read_grant(answer, self.provider, self.name, before, self._clock())
        if isinstance(grant, ConnectionTokenError):
            raise grant
        if not grant.account:
            grant = replace(grant, account=await self._account(grant))
        return grant, answer.members

    async def refresh(self, grant: Grant) -> Grant | ConnectionTokenError:
        """Return the grant with a new access token, or the error that explains its absence.

        A refresh is sent once: a service that rotates refresh tokens may take a second one for
        theft.

        Args:
            grant: the grant, with a refresh token.
        """
        form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token}
        try:
            answer = await self._ask(form)
        except ConnectionTokenError as error:
            return error
        return read_grant(answer, self.provider, self.name, grant, self._clock())

    async def revoke(self, grant: Grant) -> bool:
        """Revoke a grant at the service (RFC 7009); return whether the service confirmed it.

        Args:
            grant: the grant.
        """
        try:
            url = (await self.endpoints()).revoke
            token = grant.refresh_token or grant.access_token
            if url is None or not token:
                return False
            answer = await self._post(url, {"token": token})
        except ConnectionTokenError as error:
            # RFC 7009 §2.2: the body of the answer does not matter, and is often not JSON.
            return isinstance(error, ConnectionResponseError)
        return not answer.is_refusal

    async def _ask(self, form: Mapping[str, str]) -> VaultAnswer:
        return await self._post((await self.endpoints()).token, form)

    async def _post(self, url: str, form: Mapping[str, str]) -> VaultAnswer:
        provider = self.provider
        authorization = None
        if provider.client_auth == "basic":
            known = basic_credentials(provider.client_id, provider.client_secret)
            authorization = known.authorization
        else:
            form = {**form, "client_id": provider.client_id}
            if provider.client_secret:
                form["client_secret"] = provider.client_secret
        return await self._http.post(
            VaultRequest(self.name, url, form, authorization, encoding=provider.encoding)
        )

    async def _account(self, grant: Grant) -> str:
        """Ask for the name of the account; empty if the service does not tell it."""
        url = (await self.endpoints()).account
        if url is None:
            return ""
        authorization = f"Bearer {grant.access_token}"
        request = VaultRequest(self.name, url, {}, authorization, method="GET")
        try:
            answer = await self._http.post(request)
        except ConnectionTokenError:
            return ""
        return account_name(answer.members, self.provider)

    async def _discover(self) -> Endpoints:
        issuer = self.provider.issuer or ""
        for url in reversed(discovery_urls(issuer)):
            answer = await self._http.post(VaultRequest(self.name, url, {}, None, method="GET"))
            if not answer.is_refusal:
                return self._read_metadata(answer.members, issuer)
        raise ConnectionResponseError(f"{issuer} publishes no metadata", connection=self.name)

    def _read_metadata(self, members: Mapping[str, object], issuer: str) -> Endpoints:
        # RFC 8414 §3.3: the issuer, character by character.
        names = ("authorization_endpoint", "token_endpoint")
        urls = [members.get(name) for name in names]
        authorize, token = urls
        revoke = members.get("revocation_endpoint")
        if (
            members.get("issuer") == issuer
            and isinstance(authorize, str)
            and isinstance(token, str)
            and is_secure_url(authorize)
            and is_secure_url(token)
        ):
            can_revoke = isinstance(revoke, str) and is_secure_url(revoke)
            return Endpoints(authorize, token, str(revoke) if can_revoke else None)
        raise ConnectionResponseError(
            f"The metadata of {issuer} is that of another issuer, or lacks a secure "
            f"{' or '.join(names)}",
            connection=self.name,
        )


def new_secret() -> str:
    """Return 256 random bits, for a URL: a ticket, a state, a code verifier (RFC 7636 §4.1)."""
    return secrets.token_urlsafe(32)
