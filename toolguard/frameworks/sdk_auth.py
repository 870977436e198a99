"""A token verifier for the official SDK that uses a verifier of toolguard."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TypeVar

from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
from mcp.server.auth.provider import AccessToken
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.frameworks.server_guard import ServerGuard, mode_of, verifier_of
from toolguard.http.answers import build_error
from toolguard.http.identity import access_token, told_client
from toolguard.parsing.audience import accepted_audiences, audience_names, canonical_audience
from toolguard.tokens.proofs.presented import check_accepted
from toolguard.tokens.verifier import Verifier

__all__ = ["SDKTokenVerifier", "answering_outages", "token_verifier", "verified"]

_log = logging.getLogger("toolguard")

AccessTokenT = TypeVar("AccessTokenT", bound=AccessToken)


class SDKTokenVerifier:
    """An implementation of ``mcp.server.auth.provider.TokenVerifier``.

    Args:
        verifying: the guard or verifier that verifies tokens.
    """

    def __init__(self, verifying: ServerGuard | Verifier) -> None:
        #: The guard or verifier that verifies tokens.
        self.verifying = verifying

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token object for ``token``; None if the token is invalid.

        Raises:
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        return await verified(self.verifying, token, AccessToken)

    def __repr__(self) -> str:
        return f"<SDKTokenVerifier: {self.verifying!r}>"


def token_verifier(
    verifying: ServerGuard | Verifier, required_scopes: Sequence[str]
) -> SDKTokenVerifier:
    """Return the verifier for the SDK, which has its own setting for ``required_scopes``."""
    del required_scopes
    return SDKTokenVerifier(verifying)


async def verified(
    verifying: ServerGuard | Verifier, token: str, kind: type[AccessTokenT]
) -> AccessTokenT | None:
    """Return an access token object of this class for ``token``; None if it is invalid.

    Raises:
        KeysUnavailableError: if the token cannot be verified at this time.
    """
    verifier = verifier_of(verifying)
    try:
        principal = await verifier.verify(token)
        # The frameworks read no proofs.
        check_accepted(principal.jkt, mode_of(verifying, principal.issuer), bound=False)
    except InvalidTokenError as error:
        _log.info("refused a token: %s", error.reason)
        return None
    resource = _resource(verifying, principal.claims.get("aud"))
    return access_token(kind, principal, told_client(principal, verifier), token, resource)


def _resource(verifying: ServerGuard | Verifier, audience: object) -> str | None:
    """Return the resource that the token was issued for (RFC 8707); None if it is ambiguous."""
    resource: object = getattr(verifying, "resource", None)
    if isinstance(resource, str):
        return resource
    named = audience_names(audience) or ()
    ours = accepted_audiences(getattr(verifying, "audiences", ()))
    if not ours:
        return named[0] if len(named) == 1 else None
    return next((each for each in named if canonical_audience(each) in ours), None)


def answering_outages(stack: Sequence[Middleware]) -> list[Middleware]:
    """Return the middleware of an application that answers 503 while keys are unavailable.

    The SDK's own answer would be 500, and a traceback in the log. A JSON-RPC request gets a
    JSON-RPC error. Set it before the application's first request::

        app.user_middleware[:] = answering_outages(app.user_middleware)
    """
    return [_answering(each) for each in stack]


def _answering(middleware: Middleware) -> Middleware:
    made: object = middleware.cls
    backend = middleware.kwargs.get("backend")
    if made is not AuthenticationMiddleware or not isinstance(backend, BearerAuthBackend):
        return middleware
    return Middleware(AuthenticationMiddleware, backend=_OutageBackend(backend), on_error=_answer)


class _OutageBackend(AuthenticationBackend):
    """Wraps a backend, and turns its outages into Starlette's authentication errors."""

    def __init__(self, backend: AuthenticationBackend) -> None:
        self._backend = backend

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        try:
            return await self._backend.authenticate(conn)
        except KeysUnavailableError as outage:
            raise _OutageError(outage) from None


class _OutageError(AuthenticationError):
    def __init__(self, outage: KeysUnavailableError) -> None:
        super().__init__(str(outage))
        self.outage = outage


def _answer(conn: HTTPConnection, error: AuthenticationError) -> Response:
    if not isinstance(error, _OutageError):
        return AuthenticationMiddleware.default_on_error(conn, error)
    outage = error.outage
    headers = {"retry-after": str(outage.retry_after), "cache-control": "no-store"}
    is_message = conn.scope.get("method") == "POST"
    body = build_error(outage, None) if is_message else outage.to_dict()
    return JSONResponse(body, status_code=outage.status, headers=headers)
