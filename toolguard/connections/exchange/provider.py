"""Connections by token exchange at an authorization server (RFC 8693)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from toolguard.connections.client_auth import ClientAuth, check_token_endpoint
from toolguard.connections.exchange.answers import read_answer
from toolguard.connections.exchange.settings import (
    ConnectUrl,
    ExchangeSettings,
    build_form,
    list_settings,
)
from toolguard.connections.http import Transport, VaultClient, VaultRequest
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.retries import Retries
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parsing.token_members import is_token

__all__ = ["TokenExchangeConnections"]

_RETRIES = Retries()


@dataclass(frozen=True)
class _ExchangeRequest:
    """One exchange without the client authentication. Its representation shows no token."""

    request: ConnectionRequest
    settings: ExchangeSettings
    form: Mapping[str, Any] = field(repr=False)


class TokenExchangeConnections:
    """Connections from an authorization server that exchanges the caller's token (RFC 8693).

    The caller's token is sent to this token endpoint and nowhere else, and the server reads the
    user from it: nothing comes from a tool's arguments. The settings for well-known vendors are
    in :mod:`toolguard.connections.exchange`::

        TokenExchangeConnections(
            "https://sso.example.com/realms/acme/protocol/openid-connect/token",
            client_auth=ClientSecretBasic("mcp-server", os.environ["CLIENT_SECRET"]),
            connections={"calendar": keycloak("calendar-api")},
        )

    Args:
        token_endpoint: the URL of the token endpoint; https, or http to this machine.
        client_auth: the client authentication at the token endpoint; ``PublicClient()`` where the
            server takes the caller's token as the only proof.
        connections: the settings of each exchange, by the connection's name. Copied.
        connect_url: returns the URL at which a user can connect an account; for servers that do
            not send one. The URL is used if it is https, or on this machine.
        timeout: seconds for one exchange with all its attempts.
        retries: how often an exchange without an answer is repeated. An exchange that was
            answered, even with a refusal, is never repeated.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if one of these cannot be used.
        TypeError: if ``client_auth`` or the settings of a connection have the wrong type.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        token_endpoint: str,
        *,
        client_auth: ClientAuth,
        connections: Mapping[str, ExchangeSettings],
        connect_url: ConnectUrl | None = None,
        timeout: float = 10.0,
        retries: Retries = _RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_token_endpoint(token_endpoint)
        if not callable(getattr(client_auth, "credentials", None)):
            raise TypeError('write client_auth=ClientSecretBasic("client-id", secret)')
        if not connections:
            raise ValueError(
                'write connections={"calendar": ExchangeSettings(audience=("calendar",))}'
            )
        for name, settings in connections.items():
            if not isinstance(settings, ExchangeSettings):
                raise TypeError(
                    f"{name!r} needs the settings of an exchange: write ExchangeSettings(...)"
                )
        self._token_endpoint = token_endpoint
        self._client_auth = client_auth
        self._connections = dict(connections)
        self._connect_url = connect_url
        self._clock = clock
        self._client = VaultClient(
            timeout=timeout, retries=retries, transport=transport, clock=clock
        )

    @property
    def cache_namespace(self) -> str:
        """What the answers depend on beside the request; no secret, the same in every process.

        That is the token endpoint, the client, and the settings of the connections.
        """
        listed = {name: list_settings(settings) for name, settings in self._connections.items()}
        digest = sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
        return f"{self._token_endpoint} {self._client_auth.client_id} {digest}"

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Exchange the caller's access token for the connection.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if the user has to connect the account or to consent, or has
                granted too few scopes; with a connect URL if there is one.
            ConnectionDeniedError: if the server refuses this caller, the caller has no access
                token, or tenants have no connection here.
            ConnectionRateLimitedError: if the server limits the rate of requests (429).
            ConnectionUnavailableError: if the server does not answer in time.
            ConnectionResponseError: if the answer is invalid, or this server is not configured
                correctly for the exchange.
        """
        prepared = await self._prepare(request)
        outcome = (
            prepared if isinstance(prepared, ConnectionTokenError) else await self._ask(prepared)
        )
        if isinstance(outcome, Connection):
            return outcome
        # Raised here, where no local variable holds a token.
        raise outcome

    async def _prepare(self, request: ConnectionRequest) -> _ExchangeRequest | ConnectionTokenError:
        settings = self._connections.get(request.name)
        if settings is None:
            return ConnectionResponseError(
                f"There are no settings for {request.name}: write "
                f"connections={{{request.name!r}: ExchangeSettings(...)}}",
                connection=request.name,
            )
        refusal = _refuse_early(request, settings)
        if refusal is not None:
            return refusal
        subject = request.access_token
        if settings.subject_token is not None:
            subject = await settings.subject_token(request)
            if subject is None:
                return ConnectionRequiredError.not_connected(request.name)
        actor = None if settings.actor is None else await settings.actor.token(request)
        if not is_token(subject) or (settings.actor is not None and not is_token(actor)):
            return _deny(request, "a token that can be sent")
        return _ExchangeRequest(request, settings, build_form(settings, request, subject, actor))

    async def _ask(self, prepared: _ExchangeRequest) -> Connection | ConnectionTokenError:
        request = prepared.request
        answer = await self._client.post(
            self._authenticate(prepared), again=lambda: self._authenticate(prepared)
        )
        outcome = read_answer(answer, prepared.settings, request, self._clock())
        if isinstance(outcome, ConnectionRequiredError):
            refusal = answer.members if answer.is_refusal else {}
            url = None if self._connect_url is None else self._connect_url(request, refusal)
            is_secure = isinstance(url, str) and secure_origin(url) is not None
            outcome.connect_url = url if is_secure else None
        return outcome

    def _authenticate(self, prepared: _ExchangeRequest) -> VaultRequest:
        """Return the request, with client authentication made for this request."""
        proof = self._client_auth.credentials(self._token_endpoint, self._clock())
        return VaultRequest(
            prepared.request.name,
            self._token_endpoint,
            {**prepared.form, **proof.parameters},
            proof.authorization,
            encoding="form",
            is_idempotent=prepared.settings.subject_token is None,
        )

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later fetch opens new ones."""
        await self._client.aclose()

    def __repr__(self) -> str:
        origin = secure_origin(self._token_endpoint)
        return f"<TokenExchangeConnections: {', '.join(self._connections)} at {origin}>"


def _refuse_early(
    request: ConnectionRequest, settings: ExchangeSettings
) -> ConnectionTokenError | None:
    """Return why no exchange is possible for this caller."""
    if request.access_token is None:
        return _deny(request, "an access token of the caller")
    if request.tenant_id is None:
        return None
    if not settings.tenant:
        return ConnectionDeniedError(
            f"{request.name} belongs to users here, not to tenants", connection=request.name
        )
    return None if is_token(request.tenant_id) else _deny(request, "a tenant that can be named")


def _deny(request: ConnectionRequest, what: str) -> ConnectionDeniedError:
    return ConnectionDeniedError(f"{request.name} needs {what}", connection=request.name)
