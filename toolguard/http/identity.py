"""Pass the identity of the caller to the framework.

For each message the framework gets what its own auth would have set: the user and the credentials
of the request, and the SDK's context variable. Sealed request states, background tasks, sessions,
caches and ``get_access_token()`` depend on that. One difference is intended: ``AccessToken.token``
is a digest of the token, which is as unique, and cannot be used as a credential.
"""

from __future__ import annotations

import functools
import math
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from hashlib import sha256
from typing import Any, TypeVar, cast

from mcp.server.auth.middleware import bearer_auth
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.types import Scope

from toolguard.calls.request import RequestAuth
from toolguard.principal import Principal
from toolguard.tokens.memo import own_claims
from toolguard.tokens.verifier import Verifier

__all__ = [
    "AuthenticatedUser",
    "access_token",
    "sdk_user",
    "tell",
    "telling_digest",
    "telling_stranger",
    "told_client",
]

AccessTokenT = TypeVar("AccessTokenT", bound=AccessToken)

sdk_user = cast("ContextVar[object]", auth_context_var)
"""The caller of the current message for the SDK: an ``AuthenticatedUser`` or None.

In stateful sessions of mcp 1.x the handlers run in the context of the request that opened the
session, so it is set for each message too. A message without a caller is anonymous.
"""


class AuthenticatedUser(bearer_auth.AuthenticatedUser):
    """The SDK's user of a verified caller; the access token is made when it is first read.

    Args:
        principal: the caller.
        client: the client id; see :func:`told_client`.
        token: the caller's token, of which the framework gets a digest.
        resource: the resource that the token was issued for (RFC 8707).
    """

    def __init__(self, principal: Principal, client: str, token: str, resource: str | None) -> None:
        SimpleUser.__init__(self, client)
        self.scopes = list(principal.scopes)
        self._facts = (principal, client, token, resource)

    # Declared by the SDK as an attribute, which this is from the first time that it is read.
    @functools.cached_property
    def access_token(self) -> AccessToken:  # type: ignore[override]
        """The caller as the access token object of the framework."""
        # fastmcp converts other classes to its own, and loses the subject.
        kind: type[AccessToken] = getattr(
            sys.modules.get("fastmcp.server.auth"), "AccessToken", AccessToken
        )
        principal, client, token, resource = self._facts
        return access_token(kind, principal, client, _digest(token), resource)


def tell(scope: Scope, auth: RequestAuth, *, as_user: bool = True) -> Token[object]:
    """Set the caller of the request for the framework; return the token to reset ``sdk_user``.

    Args:
        scope: the ASGI scope of the request.
        auth: its caller.
        as_user: whether the framework may bind the request's session to this user. A session
            that was opened anonymously would refuse every user.
    """
    if auth.principal is not None and auth.token is not None:
        known = scope.get("user")
        if isinstance(known, bearer_auth.AuthenticatedUser):
            # The framework has verified the token as well. It binds sessions to the subject and
            # the issuer, which its own verifier may have left out.
            verified = known.access_token
            claims = _claims(verified.claims or {}, auth.principal)
            added = {"subject": auth.principal.user_id, "claims": claims}
            auth.user = bearer_auth.AuthenticatedUser(verified.model_copy(update=added))
        else:
            client = told_client(auth.principal, auth.guard.verifier)
            resource = getattr(auth.guard, "resource", None)
            auth.user = AuthenticatedUser(auth.principal, client, auth.token, resource)
            scope["auth"] = AuthCredentials(auth.principal.scopes)
        if as_user:
            scope["user"] = auth.user
    return sdk_user.set(auth.user)


def telling_stranger(request: Any) -> AbstractContextManager[None]:
    """Set an unknown user as the caller of the message, for the framework.

    Args:
        request: the Starlette request that carried it; None without HTTP.
    """
    stranger = Principal(None, "", expires_at=math.inf)
    return _telling(request, AuthenticatedUser(stranger, uuid.uuid4().hex, "", None))


def telling_digest(request: Any, auth: RequestAuth | None) -> AbstractContextManager[None]:
    """Give the framework only the digest of the caller's token, so that it stores no token.

    Args:
        request: the Starlette request that carried the message; None without HTTP.
        auth: the caller.
    """
    user = auth.user if auth is not None else None
    if auth is None or auth.token is None or not isinstance(user, bearer_auth.AuthenticatedUser):
        return nullcontext()
    told = user.access_token.model_copy(update={"token": _digest(auth.token)})
    return _telling(request, bearer_auth.AuthenticatedUser(told))


@contextmanager
def _telling(request: Any, user: bearer_auth.AuthenticatedUser) -> Iterator[None]:
    scope: Scope = {} if request is None else request.scope
    known = {"user": scope["user"]} if "user" in scope else {}
    token = sdk_user.set(user)
    scope["user"] = user
    try:
        yield
    finally:
        del scope["user"]
        scope.update(known)
        sdk_user.reset(token)


def access_token(
    kind: type[AccessTokenT], principal: Principal, client: str, token: str, resource: str | None
) -> AccessTokenT:
    """Return a verified caller as the framework's access token object.

    Args:
        kind: the framework's class.
        principal: the caller.
        client: the client id; see :func:`told_client`.
        token: the value of its ``token``: a digest.
        resource: the resource that the token was issued for (RFC 8707).
    """
    return kind(
        token=token,
        client_id=client,
        scopes=list(principal.scopes),
        expires_at=_expires_at(principal.expires_at),
        resource=resource,
        subject=principal.user_id,
        claims=_claims(principal.claims, principal),
    )


def told_client(principal: Principal, verifier: Verifier) -> str:
    """Return the client id that the framework is told: maybe a longer one.

    fastmcp binds background tasks to client and subject, and neither is unique across issuers, nor
    do they tell the key that a token is bound to. Neither an issuer nor a thumbprint has a space,
    so two callers never give the same text.
    """
    client = principal.client_id or ""
    is_alone = len(getattr(verifier, "verifiers", ())) < 2  # noqa: PLR2004 - needs no telling apart
    if is_alone and principal.jkt is None:
        return client
    names = (principal.issuer, client, principal.jkt)
    return " ".join(name for name in names if name is not None)


def _expires_at(expires_at: float) -> int | None:
    """Return the expiry for the SDK, which takes None, and also 0, as "never"."""
    if expires_at == math.inf:
        return None
    return max(1, int(expires_at)) if math.isfinite(expires_at) else 1


def _claims(claims: Mapping[str, Any], principal: Principal) -> dict[str, Any]:
    """Return a copy of the claims with the issuer, to which the frameworks bind users."""
    issuer = {"iss": principal.issuer} if principal.issuer else {}
    return {**own_claims(claims), **issuer}


def _digest(token: str) -> str:
    return f"sha256:{sha256(token.encode('utf-8', 'surrogatepass')).hexdigest()}"
