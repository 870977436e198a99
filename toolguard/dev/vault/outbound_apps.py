"""The development vault, with the API of Descope's outbound apps.

It has the API of Descope's outbound apps: the same paths, ``Authorization: Bearer
PROJECT_ID:CREDENTIAL``, bodies in camelCase, the same form of errors. A caller with an access
token gets their own connections, if the token carries ``outbound.token.fetch`` and the policy
allows it; a caller with the management key gets everybody's. Of the error codes only that of "not
connected" has a meaning; the others stand for their HTTP status.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.connections.descope.project import FETCH_SCOPE
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.dev.vault.connection_table import ConnectionTable, Owner, ProviderToken
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    InvalidTokenError,
    KeysUnavailableError,
)
from toolguard.principal import Principal
from toolguard.tokens.verifier import Verifier

__all__ = ["FETCH_SCOPE", "ConnectLinks", "Provider", "Vault", "VaultPolicy"]

VaultPolicy: TypeAlias = Callable[[Principal, str, tuple[str, ...]], bool]
"""Whether this caller gets a token of this app with these scopes."""

_ROOT = "/v1/mgmt/outbound/app"
_MAX_BODY = 64 * 1024
_NOT_CONNECTED = "E111504"


class Provider(Protocol):
    """What the vault needs of a third-party service."""

    async def refresh(self, token: ProviderToken) -> ProviderToken | None:
        """Return ``token`` with a new access token; None if its owner has revoked the consent.

        Raises:
            ConnectionError: if the service cannot be reached.
        """
        ...


class ConnectLinks(Protocol):
    """Makes the pages where a user connects an account."""

    def new(self, user_id: str, app: str, scopes: tuple[str, ...]) -> str:
        """Return a URL at which only this user can connect ``app``."""
        ...


@dataclass(frozen=True)
class _Question:
    """One request for a token, as its caller may ask it; ``caller`` None has the master key."""

    caller: Principal | None
    owner: Owner
    app: str
    scopes: tuple[str, ...]
    force_refresh: bool = False
    with_refresh_token: bool = False


class _Refused(Exception):  # noqa: N818 - an answer, not a fault of the program
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, description: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "errorCode": code,
            "errorDescription": description,
            "errorMessage": message,
        }


class Vault:
    """The vault of one project.

    Args:
        project_id: what callers write before their credential.
        connections: the tokens.
        verifier: verifies the access tokens of callers.
        providers: the services by app id; an app that is not in it is unknown.
        links: makes connect URLs; None if users cannot connect accounts here.
        management_key: gives access to the tokens of any user or tenant; None for no such key.
        policy: permits callers with an access token a connection; by default all of their own.
        clock: the time in seconds since the epoch.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        *,
        project_id: str,
        connections: ConnectionTable,
        verifier: Verifier,
        providers: Mapping[str, Provider],
        links: ConnectLinks | None = None,
        management_key: str | None = None,
        policy: VaultPolicy = lambda *_: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._project_id = project_id
        self._connections = connections
        self._verifier = verifier
        self._providers = providers
        self._links = links
        self._management_key = management_key
        self._policy = policy
        self._clock = clock

    def routes(self) -> list[Route]:
        """Return the endpoints, for the root of the authorization server's origin."""
        endpoints: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/user/token": self._user_token,
            "/user/token/latest": self._latest_user_token,
            "/tenant/token": self._tenant_token,
            "/tenant/token/latest": self._latest_tenant_token,
            "/connect": self._connect,
        }
        return [
            Route(_ROOT + path, _answering(endpoint), methods=["POST"])
            for path, endpoint in endpoints.items()
        ]

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return a caller's own connection, for servers in the same process.

        Raises:
            ConnectionRequiredError: if the user has not connected the account like this.
            ConnectionDeniedError: if the policy refuses, or the caller is not a user.
            ConnectionUnavailableError: if the service is away.
        """
        caller, name = request.principal, request.name
        question = _Question(caller, Owner("user", caller.user_id or ""), name, request.scopes)
        try:
            self._authorize(question)
            token = await self._current(question)
        except _Refused as refused:
            raise _connection_error(refused, name) from None
        return Connection(token.access_token, "Bearer", token.scopes, token.expires_at)

    async def _user_token(self, request: Request) -> Response:
        return await self._token(request, "userId", by_scopes=True)

    async def _latest_user_token(self, request: Request) -> Response:
        return await self._token(request, "userId", by_scopes=False)

    async def _tenant_token(self, request: Request) -> Response:
        return await self._token(request, "tenantId", by_scopes=True)

    async def _latest_tenant_token(self, request: Request) -> Response:
        return await self._token(request, "tenantId", by_scopes=False)

    async def _token(self, request: Request, whose: str, *, by_scopes: bool) -> Response:
        caller = await self._caller(request)
        body = await _object(request)
        options = _options(body)
        question = _Question(
            caller,
            Owner("user" if whose == "userId" else "tenant", _text(body, whose)),
            _text(body, "appId"),
            _scopes(body) if by_scopes else (),
            force_refresh=options.get("forceRefresh") is True,
            with_refresh_token=options.get("withRefreshToken") is True and caller is None,
        )
        self._authorize(question)
        return JSONResponse({"token": _token_body(await self._current(question), question)})

    async def _caller(self, request: Request) -> Principal | None:
        scheme, _, credentials = request.headers.get("authorization", "").partition(" ")
        project_id, colon, credential = credentials.partition(":")
        if scheme.lower() != "bearer" or not colon or project_id != self._project_id:
            raise _unauthorized()
        key = self._management_key
        if key is not None and hmac.compare_digest(credential.encode(), key.encode()):
            return None
        try:
            return await self._verifier.verify(credential)
        except InvalidTokenError:
            raise _unauthorized() from None
        except KeysUnavailableError:
            raise _unavailable() from None

    def _authorize(self, question: _Question) -> None:
        caller = question.caller
        if caller is None:
            return
        own = caller.user_id if question.owner.kind == "user" else caller.tenant_id
        if not own or question.owner.id != own:
            raise _forbidden("The token is for another user or tenant")
        self._check_policy(caller, question.app, question.scopes)

    def _check_policy(self, caller: Principal, app: str, scopes: tuple[str, ...]) -> None:
        if FETCH_SCOPE not in caller.scopes:
            raise _forbidden(f"The token lacks the scope {FETCH_SCOPE}")
        if not self._policy(caller, app, scopes):
            raise _forbidden("The policy does not allow this")

    async def _current(self, question: _Question) -> ProviderToken:
        token = self._connections.get(question.owner, question.app)
        provider = self._providers.get(question.app)
        if token is None or provider is None:
            raise _not_connected()
        if not set(question.scopes) <= set(token.scopes):
            raise _not_connected()
        has_expired = token.expires_at is not None and token.expires_at <= self._clock()
        if question.force_refresh or has_expired:
            return await self._refreshed(question, provider, token)
        return token

    async def _refreshed(
        self, question: _Question, provider: Provider, token: ProviderToken
    ) -> ProviderToken:
        try:
            fresh = await provider.refresh(token) if token.refresh_token else None
        except ConnectionError:
            raise _unavailable() from None
        if fresh is None:
            self._connections.remove(question.owner, question.app)
            raise _not_connected()
        self._connections.put(question.owner, question.app, fresh)
        return fresh

    async def _connect(self, request: Request) -> Response:
        caller = await self._caller(request)
        body = await _object(request)
        app, scopes = _text(body, "appId"), _scopes(_options(body), required=False)
        if self._links is None or app not in self._providers:
            raise _Refused(404, "E404", "Not found", "There is no such app to connect")
        if caller is None:
            user_id = _text(body, "userId")
        else:
            self._check_policy(caller, app, scopes)
            if caller.user_id is None:
                raise _forbidden("A connection belongs to a user")
            user_id = caller.user_id
        return JSONResponse({"url": self._links.new(user_id, app, scopes)})


def _answering(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except _Refused as refused:
            response = JSONResponse(refused.body, refused.status)
        response.headers["cache-control"] = "no-store"
        return response

    return answer


def _unauthorized() -> _Refused:
    return _Refused(401, "E401", "Unauthorized", "The credential is not accepted")


def _forbidden(message: str) -> _Refused:
    return _Refused(403, "E403", "Forbidden", message)


def _unavailable() -> _Refused:
    return _Refused(503, "E503", "Service unavailable", "Try again later")


def _not_connected() -> _Refused:
    return _Refused(404, _NOT_CONNECTED, "Token not found", "The user has not connected this app")


def _connection_error(refused: _Refused, name: str) -> ConnectionTokenError:
    kinds: dict[int, type[ConnectionTokenError]] = {
        404: ConnectionRequiredError,
        503: ConnectionUnavailableError,
    }
    kind = kinds.get(refused.status, ConnectionDeniedError)
    return kind(str(refused), connection=name)


async def _object(request: Request) -> dict[str, Any]:
    content = await request.body()
    try:
        value = json.loads(content.decode()) if len(content) <= _MAX_BODY else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _Refused(400, "E011001", "Request is malformed", "The body is not a JSON object")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _Refused(400, "E011002", "Request is missing required arguments", f"Missing {name}")
    return value


def _scopes(body: Mapping[str, Any], *, required: bool = True) -> tuple[str, ...]:
    value = body.get("scopes", [])
    if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
        raise _Refused(400, "E011003", "Request is invalid", "scopes is a list of strings")
    if required and not value:
        raise _Refused(400, "E011002", "Request is missing required arguments", "Missing scopes")
    return tuple(value)


def _options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise _Refused(400, "E011003", "Request is invalid", "options is an object")
    return options


def _token_body(token: ProviderToken, question: _Question) -> dict[str, Any]:
    return {
        "id": token.id,
        "appId": question.app,
        "userId" if question.owner.kind == "user" else "tenantId": question.owner.id,
        "tokenSub": token.subject,
        "accessToken": token.access_token,
        "accessTokenType": "Bearer",
        "accessTokenExpiry": str(int(token.expires_at or 0)),
        "hasRefreshToken": bool(token.refresh_token),
        "refreshToken": token.refresh_token if question.with_refresh_token else "",
        "scopes": list(token.scopes),
    }
