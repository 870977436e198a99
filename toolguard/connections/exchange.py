"""Which connection does an authorization server give for the caller's token (RFC 8693)?"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from toolguard.connections.client_auth import ClientAuth
from toolguard.connections.http import Transport, VaultClient, VaultRequest
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.retries import Retries
from toolguard.connections.terms import ConnectUrl, Exchange, facts_of, form_of
from toolguard.connections.token_answer import read_answer
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)
from toolguard.parsing.secure_urls import is_secure_url, secure_origin

__all__ = ["TokenExchangeConnections"]

_RETRIES = Retries()
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class _Asking:
    """One exchange, complete but for the proof of the client. Shows no token."""

    request: ConnectionRequest
    exchange: Exchange
    form: Mapping[str, Any] = field(repr=False)


class TokenExchangeConnections:
    """Connections from an authorization server that exchanges the caller's token (RFC 8693).

    The caller's token goes to this token endpoint and nowhere else, and who the user is, is what
    the server reads in it: nothing here comes from a tool's arguments. What each vendor wants is
    in :mod:`toolguard.connections.vendors`::

        TokenExchangeConnections(
            "https://sso.example.com/realms/acme/protocol/openid-connect/token",
            client_auth=ClientSecretBasic("mcp-server", os.environ["CLIENT_SECRET"]),
            connections={"calendar": keycloak("calendar-api")},
        )

    Args:
        token_endpoint: where tokens are exchanged; https, or http to this machine.
        client_auth: proves to the server which client this is.
        connections: how each connection is asked for, by its name. Copied.
        connect_url: says where a user can connect what is not connected yet; for servers without
            an endpoint for that. What it returns is used if it is https, or on this machine.
        timeout: seconds for one exchange with all its attempts.
        retries: how often an exchange is sent again that brought no answer. An answer, and be it
            a refusal, is never asked for twice.
        transport: carries the requests instead of sockets.
        clock: gives seconds since the epoch.

    Raises:
        ValueError: if one of these cannot be used.
        TypeError: if ``client_auth`` or a connection's terms are something else.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        token_endpoint: str,
        *,
        client_auth: ClientAuth,
        connections: Mapping[str, Exchange],
        connect_url: ConnectUrl | None = None,
        timeout: float = 10.0,
        retries: Retries = _RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # RFC 6749 §3.2: a token endpoint has no fragment.
        if not is_secure_url(token_endpoint):
            raise ValueError(
                'write "https://auth.example.com/token": a token endpoint is https (http only on '
                "this machine), without user name, password and fragment"
            )
        if not callable(getattr(client_auth, "credentials", None)):
            raise TypeError('write client_auth=ClientSecretBasic("client-id", secret)')
        if not connections:
            raise ValueError('write connections={"calendar": Exchange(audience=("calendar",))}')
        for name, exchange in connections.items():
            if not isinstance(exchange, Exchange):
                raise TypeError(f"the terms of {name!r} are an Exchange: write Exchange(...)")
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

        That is the token endpoint, the client, and the terms of the connections.
        """
        terms = {name: facts_of(exchange) for name, exchange in self._connections.items()}
        digest = sha256(json.dumps(terms, sort_keys=True).encode()).hexdigest()
        return f"{self._token_endpoint} {self._client_auth.client_id} {digest}"

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return what the caller's token is exchanged for.

        Raises:
            ConnectionRequiredError: if the user has to connect the account or to consent, or has
                allowed too few scopes; with a connect URL where there is one.
            ConnectionDeniedError: if the server says no to this caller, the caller has no access
                token, or a tenant has no connection here.
            ConnectionRateLimitedError: if the server asks to come back later.
            ConnectionUnavailableError: if the server does not answer in time.
            ConnectionResponseError: if the answer makes no sense, or this server is not set up
                right for the exchange.
        """
        asking = await self._asking(request)
        outcome = asking if isinstance(asking, ConnectionTokenError) else await self._ask(asking)
        if isinstance(outcome, Connection):
            return outcome
        # Raised here, where no local variable holds a token.
        raise outcome

    async def _asking(self, request: ConnectionRequest) -> _Asking | ConnectionTokenError:
        exchange = self._connections.get(request.name)
        if exchange is None:
            return ConnectionResponseError(
                f"Nothing says how to ask for {request.name}: write "
                f"connections={{{request.name!r}: Exchange(...)}}",
                connection=request.name,
            )
        refusal = _unaskable(request, exchange)
        if refusal is not None:
            return refusal
        subject = request.access_token
        if exchange.subject_token is not None:
            subject = await exchange.subject_token(request)
            if subject is None:
                return ConnectionRequiredError(
                    f"Connect {request.name} first, then try again", connection=request.name
                )
        actor = None if exchange.actor is None else await exchange.actor.token(request)
        if not _is_token(subject) or (exchange.actor is not None and not _is_token(actor)):
            return _denied(request, "a token that can be sent")
        return _Asking(request, exchange, form_of(exchange, request, str(subject), actor))

    async def _ask(self, asking: _Asking) -> Connection | ConnectionTokenError:
        request = asking.request
        answer = await self._client.post(self._signed(asking), again=lambda: self._signed(asking))
        outcome = read_answer(answer, asking.exchange, request, self._clock())
        if isinstance(outcome, ConnectionRequiredError):
            refusal = answer.members if answer.is_refusal else {}
            outcome.connect_url = self._secure_connect_url(request, refusal)
        return outcome

    def _signed(self, asking: _Asking) -> VaultRequest:
        """Return the request, with a proof of the client that is good for this one."""
        proof = self._client_auth.credentials(self._token_endpoint, self._clock())
        return VaultRequest(
            asking.request.name,
            self._token_endpoint,
            {**asking.form, **proof.parameters},
            proof.authorization,
            encoding="form",
            is_idempotent=asking.exchange.subject_token is None,
        )

    def _secure_connect_url(
        self, request: ConnectionRequest, refusal: Mapping[str, Any]
    ) -> str | None:
        url = None if self._connect_url is None else self._connect_url(request, refusal)
        return url if isinstance(url, str) and secure_origin(url) is not None else None

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later fetch opens new ones."""
        await self._client.aclose()

    def __repr__(self) -> str:
        origin = secure_origin(self._token_endpoint)
        return f"<TokenExchangeConnections: {', '.join(self._connections)} at {origin}>"


def _unaskable(request: ConnectionRequest, exchange: Exchange) -> ConnectionTokenError | None:
    """Say why this caller cannot be asked for at all."""
    if request.access_token is None:
        return _denied(request, "an access token of the caller")
    if request.tenant_id is None:
        return None
    if not exchange.tenant:
        return ConnectionDeniedError(
            f"{request.name} belongs to users here, not to tenants", connection=request.name
        )
    return None if _is_token(request.tenant_id) else _denied(request, "a tenant that can be named")


def _denied(request: ConnectionRequest, what: str) -> ConnectionDeniedError:
    return ConnectionDeniedError(f"{request.name} needs {what}", connection=request.name)


def _is_token(text: str | None) -> bool:
    return isinstance(text, str) and _VISIBLE.fullmatch(text) is not None
