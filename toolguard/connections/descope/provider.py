"""Fetch connections from Descope's vault with the caller's access token.

Requests and answers follow the API reference, docs.descope.com/api/management/outbound-apps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from toolguard.connections.descope.answers import read_answer, token_response
from toolguard.connections.descope.models import (
    TenantTokenRequest,
    TokenRequest,
    TokenResponse,
    UserTokenRequest,
)
from toolguard.connections.descope.project import DescopeProject
from toolguard.connections.http import (
    Transport,
    VaultAnswer,
    VaultClient,
    VaultRequest,
)
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.retries import NO_RETRIES, Retries
from toolguard.errors import ConnectionDeniedError, ConnectionRequiredError, ConnectionTokenError
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parsing.token_members import is_token

__all__ = ["DescopeConnections"]

_log = logging.getLogger("toolguard.connections")

_APP = "/v1/mgmt/outbound/app"
_CONNECT = f"{_APP}/connect"


class DescopeConnections:
    """Connections from Descope's vault ("outbound apps"), fetched with the caller's access token.

    So the vault's policy decides for this user, this tenant and this client; the caller's token
    needs the scope ``outbound.token.fetch``. User and tenant are those of the verified token,
    never values that a client sent. Descope accepts access tokens for both
    (docs.descope.com/agentic-identity-hub/connections/fetching-connection-tokens). After a refusal
    of the vault, nothing is tried again with the management key.

    Args:
        project: the project, or a well-known URL of it.
        management_key: used only if the caller has no access token (a trusted stdio server, a
            job); each use is logged ("toolguard.connections"). The vault's policies do not apply
            to it.
        management_key_for_tenants: use the key for every connection of a tenant, for projects
            whose access tokens may not fetch these; each use is logged.
        with_refresh_token: request refresh tokens too. Only :meth:`token` returns them; a
            :class:`~toolguard.Connection` has none.
        timeout: seconds for one request to the vault, with all its attempts.
        retries: how often a request without an answer is repeated; by default never. A request
            that makes the vault refresh a token is repeated only if it was never sent.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if one of these cannot be used.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        project: DescopeProject | str,
        *,
        management_key: str | None = None,
        management_key_for_tenants: bool = False,
        with_refresh_token: bool = False,
        timeout: float = 10.0,
        retries: Retries = NO_RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(project, DescopeProject):
            project = DescopeProject.from_well_known_url(project)
        if management_key is not None and not is_token(management_key):
            raise ValueError("a management key is one word; write management_key=None for none")
        if management_key_for_tenants and management_key is None:
            raise ValueError("management_key_for_tenants=True needs management_key=...")
        self._project = project
        self._management_key = management_key
        self._key_for_tenants = management_key_for_tenants
        self._with_refresh_token = with_refresh_token
        self._clock = clock
        self._vault = VaultClient(
            timeout=timeout, retries=retries, transport=transport, clock=clock
        )

    @property
    def cache_namespace(self) -> str:
        """What the answers depend on beside the request; no secret, the same in every process.

        That is the base URL, the project id, and the use of the management key: a server to which
        the vault's policies apply must not share entries with one that bypasses them.
        """
        project = f"{self._project.base_url}/{self._project.project_id}"
        if self._management_key is None:
            return project
        return f"{project} {'key for tenants' if self._key_for_tenants else 'key'}"

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection: by scopes if the request names some, else the latest.

        It belongs to the user, or to their tenant if the request names a tenant. A request with
        ``fresh`` makes the vault refresh the token.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if the account is not connected, or with fewer scopes, or
                the access has expired; with a connect URL if the vault sent one. Only user
                connections have a connect URL: no user connects on behalf of a tenant.
            ConnectionDeniedError: if the vault's policy refuses, or the caller is not a user.
            ConnectionRateLimitedError: if the vault limits the rate of requests (429).
            ConnectionUnavailableError: if the vault does not answer in time.
            ConnectionResponseError: if the answer is invalid.
        """
        connection, _ = await self._request_token(
            _HiddenCredential(request.access_token), _build_token_request(request)
        )
        return connection

    async def token(
        self, request: UserTokenRequest | TenantTokenRequest, *, access_token: str | None = None
    ) -> TokenResponse:
        """Return a token of the user or tenant that the request names.

        Args:
            request: the user or tenant. With the management key nothing else limits the access,
                so its values must come from a verified token or from the server itself, never
                from a client.
            access_token: the caller's access token; without it the management key is used.

        Raises:
            ConnectionTokenError: see :meth:`fetch`.
        """
        connection, answer = await self._request_token(_HiddenCredential(access_token), request)
        options = self._options(request)
        return token_response(
            connection, answer, with_refresh_token=options["withRefreshToken"] is True
        )

    async def _request_token(
        self, hidden: _HiddenCredential, asked: TokenRequest
    ) -> tuple[Connection, VaultAnswer]:
        post = self._post(hidden, asked)
        if post is None:
            raise ConnectionDeniedError(
                f"{asked.app_id} needs an access token of the caller, or a management key",
                connection=asked.app_id,
            )
        answer = await self._vault.post(post)
        result = read_answer(answer, asked, self._clock())
        if isinstance(result, Connection):
            return result, answer
        if (
            isinstance(result, ConnectionRequiredError)
            # The vault connects the user of the credential; a management key has no user, and
            # a user is not their tenant.
            and hidden.access_token is not None
            and isinstance(asked, UserTokenRequest)
        ):
            result.connect_url = await self._connect_url(asked, post)
        raise result

    def _post(self, hidden: _HiddenCredential, asked: TokenRequest) -> VaultRequest | None:
        """Return the request to send; None if there is no credential for it."""
        credential = hidden.access_token
        if self._management_key is not None and (
            credential is None or (self._key_for_tenants and isinstance(asked, TenantTokenRequest))
        ):
            credential = self._management_key
            _log_key_use(asked)
        if not is_token(credential):
            return None
        url, body = self._endpoint(asked)
        authorization = f"Bearer {self._project.project_id}:{credential}"
        refreshes = body["options"]["forceRefresh"] is not False
        return VaultRequest(asked.app_id, url, body, authorization, is_idempotent=not refreshes)

    def _endpoint(self, asked: TokenRequest) -> tuple[str, dict[str, Any]]:
        body: dict[str, Any] = {"appId": asked.app_id}
        whose, latest = "tenant", "" if asked.scopes else "/latest"
        if isinstance(asked, UserTokenRequest):
            whose, body["userId"] = "user", asked.user_id
        if asked.tenant_id is not None:
            body["tenantId"] = asked.tenant_id
        if asked.scopes:
            body["scopes"] = [*asked.scopes]
        body["options"] = self._options(asked)
        return f"{self._project.base_url}{_APP}/{whose}/token{latest}", body

    def _options(self, asked: TokenRequest) -> dict[str, Any]:
        ours = {"withRefreshToken": self._with_refresh_token, "forceRefresh": False}
        return {**ours, **(asked.options or {})}

    async def _connect_url(self, asked: UserTokenRequest, post: VaultRequest) -> str | None:
        options = {"scopes": [*asked.scopes]} if asked.scopes else {}
        body = {"appId": asked.app_id, "options": options}
        try:
            answer = await self._vault.post(
                replace(post, url=self._project.base_url + _CONNECT, body=body)
            )
        except ConnectionTokenError:
            return None
        url = None if answer.is_refusal else answer.members.get("url")
        return url if isinstance(url, str) and secure_origin(url) is not None else None

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later fetch opens new ones."""
        await self._vault.aclose()

    def __repr__(self) -> str:
        return f"<DescopeConnections: {self._project.project_id} at {self._project.base_url}>"


@dataclass(frozen=True)
class _HiddenCredential:
    """The credential of a request, hidden from debuggers that show the variables of frames."""

    access_token: str | None = field(repr=False)


def _build_token_request(request: ConnectionRequest) -> UserTokenRequest | TenantTokenRequest:
    options = {"forceRefresh": request.fresh}
    scopes = request.scopes or None
    if request.tenant_id is not None:
        return TenantTokenRequest(
            app_id=request.name, tenant_id=request.tenant_id, scopes=scopes, options=options
        )
    if not request.principal.user_id:
        raise ConnectionDeniedError(
            f"{request.name} needs a user; this caller is a client", connection=request.name
        )
    return UserTokenRequest(
        app_id=request.name, user_id=request.principal.user_id, scopes=scopes, options=options
    )


def _log_key_use(asked: TokenRequest) -> None:
    is_user = isinstance(asked, UserTokenRequest)
    _log.info(
        "management key used for connection %r of %s %r",
        asked.app_id,
        "user" if is_user else "tenant",
        asked.user_id if isinstance(asked, UserTokenRequest) else asked.tenant_id,
    )
