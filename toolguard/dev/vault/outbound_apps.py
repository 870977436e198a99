"""A vault of :mod:`toolguard.vault`, behind the API of Descope's outbound apps.

It has the same paths, ``Authorization: Bearer PROJECT_ID:CREDENTIAL``, bodies in camelCase, the
same form of errors. A caller with an access token gets their own connections, if the token carries
``outbound.token.fetch`` and the policy allows it; a caller with the management key gets
everybody's. Of the error codes only that of "not connected" has a meaning; the others stand for
their HTTP status.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.connections.descope.project import FETCH_SCOPE
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    InvalidTokenError,
    KeysUnavailableError,
)
from toolguard.parsing.strict_json import lenient_object
from toolguard.principal import Principal
from toolguard.tokens.verifier import Verifier
from toolguard.vault import Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = ["FETCH_SCOPE", "OutboundApps", "VaultPolicy"]

VaultPolicy: TypeAlias = Callable[[Principal, str, tuple[str, ...]], bool]
"""Whether this caller gets a token of this app with these scopes."""

_ROOT = "/v1/mgmt/outbound/app"
_MAX_BODY = 64 * 1024
_NOT_CONNECTED = "E111504"


@dataclass(frozen=True)
class _Question:
    """One request for a token, as its caller may ask it; ``caller`` None has the master key."""

    caller: Principal | None
    kind: Literal["user", "tenant"]
    owner: str
    app: str
    scopes: tuple[str, ...]
    force_refresh: bool = False
    with_refresh_token: bool = False


class _VaultError(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, code: str, description: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "errorCode": code,
            "errorDescription": description,
            "errorMessage": message,
        }


class OutboundApps:
    """The API of one project.

    Args:
        vault: keeps and refreshes what users connect, and has the pages where they do.
        issuer: the issuer of the callers' tokens.
        project_id: what callers write before their credential.
        verifier: verifies the access tokens of callers.
        management_key: gives access to the tokens of any user or tenant; None for no such key.
        policy: permits callers with an access token a connection; by default all of their own.
    """

    def __init__(
        self,
        vault: Vault,
        *,
        issuer: str,
        project_id: str,
        verifier: Verifier,
        management_key: str | None = None,
        policy: VaultPolicy = lambda *_: True,
    ) -> None:
        self._vault = vault
        self._issuer = issuer
        self._project_id = project_id
        self._verifier = verifier
        self._management_key = management_key
        self._policy = policy

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
        question = _Question(caller, "user", caller.user_id or "", name, request.scopes)
        try:
            self._authorize(question)
            return (await self._current(question)).connection
        except _VaultError as refused:
            raise _connection_error(refused, name) from None

    async def warm_up(self) -> None:
        """Open the vault's database."""
        await self._vault.warm_up()

    async def aclose(self) -> None:
        """Close what the vault holds open in the running event loop."""
        await self._vault.aclose()

    async def _user_token(self, request: Request) -> Response:
        return await self._token(request, "user", by_scopes=True)

    async def _latest_user_token(self, request: Request) -> Response:
        return await self._token(request, "user", by_scopes=False)

    async def _tenant_token(self, request: Request) -> Response:
        return await self._token(request, "tenant", by_scopes=True)

    async def _latest_tenant_token(self, request: Request) -> Response:
        return await self._token(request, "tenant", by_scopes=False)

    async def _token(
        self, request: Request, kind: Literal["user", "tenant"], *, by_scopes: bool
    ) -> Response:
        caller = await self._caller(request)
        body = await _object(request)
        options = _options(body)
        question = _Question(
            caller,
            kind,
            _text(body, f"{kind}Id"),
            _text(body, "appId"),
            _scopes(body) if by_scopes else (),
            force_refresh=options.get("forceRefresh") is True,
            with_refresh_token=options.get("withRefreshToken") is True and caller is None,
        )
        self._authorize(question)
        grant = await self._current(question)
        return JSONResponse({"token": _token_body(grant, self._key(question), question)})

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
        own = caller.user_id if question.kind == "user" else caller.tenant_id
        if not own or question.owner != own:
            raise _forbidden("The token is for another user or tenant")
        self._check_policy(caller, question.app, question.scopes)

    def _check_policy(self, caller: Principal, app: str, scopes: tuple[str, ...]) -> None:
        if FETCH_SCOPE not in caller.scopes:
            raise _forbidden(f"The token lacks the scope {FETCH_SCOPE}")
        if not self._policy(caller, app, scopes):
            raise _forbidden("The policy does not allow this")

    async def _current(self, question: _Question) -> Grant:
        if question.app not in self._vault.clients:
            raise _not_connected()
        try:
            return await self._vault.grant(
                self._key(question), question.scopes, fresh=question.force_refresh
            )
        except ConnectionRequiredError:
            raise _not_connected() from None
        except ConnectionTokenError:
            raise _unavailable() from None

    def _key(self, question: _Question) -> GrantKey:
        return GrantKey(Owner(self._issuer, question.owner, question.kind), question.app)

    async def _connect(self, request: Request) -> Response:
        caller = await self._caller(request)
        body = await _object(request)
        app, scopes = _text(body, "appId"), _scopes(_options(body), required=False)
        if app not in self._vault.clients:
            raise _nothing_to_connect()
        if caller is None:
            user_id = _text(body, "userId")
        else:
            self._check_policy(caller, app, scopes)
            if caller.user_id is None:
                raise _forbidden("A connection belongs to a user")
            user_id = caller.user_id
        person = Owner(self._issuer, user_id)
        url = await self._vault.link(person, GrantKey(person, app), scopes)
        if url is None:
            raise _nothing_to_connect()
        return JSONResponse({"url": url})


def _answering(
    endpoint: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except _VaultError as refused:
            response = JSONResponse(refused.body, refused.status)
        response.headers["cache-control"] = "no-store"
        return response

    return answer


def _unauthorized() -> _VaultError:
    return _VaultError(401, "E401", "Unauthorized", "The credential is not accepted")


def _forbidden(message: str) -> _VaultError:
    return _VaultError(403, "E403", "Forbidden", message)


def _unavailable() -> _VaultError:
    return _VaultError(503, "E503", "Service unavailable", "Try again later")


def _not_connected() -> _VaultError:
    return _VaultError(
        404, _NOT_CONNECTED, "Token not found", "The user has not connected this app"
    )


def _nothing_to_connect() -> _VaultError:
    return _VaultError(404, "E404", "Not found", "There is no such app to connect")


def _connection_error(refused: _VaultError, name: str) -> ConnectionTokenError:
    kinds: dict[int, type[ConnectionTokenError]] = {
        404: ConnectionRequiredError,
        503: ConnectionUnavailableError,
    }
    kind = kinds.get(refused.status, ConnectionDeniedError)
    return kind(str(refused), connection=name)


async def _object(request: Request) -> dict[str, Any]:
    content = await request.body()
    value = lenient_object(content) if len(content) <= _MAX_BODY else None
    if value is None:
        raise _VaultError(400, "E011001", "Request is malformed", "The body is not a JSON object")
    return value


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _VaultError(
            400, "E011002", "Request is missing required arguments", f"Missing {name}"
        )
    return value


def _scopes(body: Mapping[str, Any], *, required: bool = True) -> tuple[str, ...]:
    value = body.get("scopes", [])
    if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
        raise _VaultError(400, "E011003", "Request is invalid", "scopes must be a list of strings")
    if required and not value:
        raise _VaultError(400, "E011002", "Request is missing required arguments", "Missing scopes")
    return tuple(value)


def _options(body: Mapping[str, Any]) -> Mapping[str, Any]:
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise _VaultError(400, "E011003", "Request is invalid", "options must be an object")
    return options


def _token_body(grant: Grant, key: GrantKey, question: _Question) -> dict[str, Any]:
    return {
        "id": f"OT{sha256(key.bound_to).hexdigest()[:16]}",
        "appId": question.app,
        f"{question.kind}Id": question.owner,
        "tokenSub": grant.account,
        "accessToken": grant.access_token,
        "accessTokenType": grant.token_type,
        "accessTokenExpiry": str(int(grant.expires_at or 0)),
        "hasRefreshToken": bool(grant.refresh_token),
        "refreshToken": grant.refresh_token if question.with_refresh_token else "",
        "scopes": list(grant.scopes),
    }
