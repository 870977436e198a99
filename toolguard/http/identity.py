"""What does the framework know of the caller?

What its own auth would have told it, for each message: the user and the credentials of the
request, and the SDK's context variable. Sealed request states, background tasks, sessions, caches
and ``get_access_token()`` are bound to that. One difference is meant: ``AccessToken.token`` is a
digest of the token, which is as unique, and opens nothing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from typing import Any, TypeVar, cast

from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials

from toolguard.calls.request import RequestAuth
from toolguard.principal import Principal
from toolguard.tokens.memo import own_claims

__all__ = ["access_token", "sdk_user", "telling"]

AccessTokenT = TypeVar("AccessTokenT", bound=AccessToken)

sdk_user = cast("ContextVar[object]", auth_context_var)
"""Who sent the message that is served, as the SDK knows it: an ``AuthenticatedUser`` or None.

In stateful sessions of mcp 1.x the handlers run in the context of whoever opened the session, so it
is set for each message, too. A message without a caller is nobody's.
"""


@contextmanager
def telling(
    scope: MutableMapping[str, Any], auth: RequestAuth, *, as_user: bool = True
) -> Iterator[None]:
    """Tell the framework who sent the request that is served within the block.

    Args:
        scope: the ASGI scope of the request.
        auth: its caller.
        as_user: whether the framework may hold the request's session to this user. Where nobody
            opened the session, it would refuse everybody.
    """
    if auth.principal is not None and auth.token is not None:
        known = scope.get("user")
        if isinstance(known, AuthenticatedUser):  # the framework has verified the token as well
            auth.user = _completed(known.access_token, auth.principal)
        else:
            digest = sha256(auth.token.encode("utf-8", "surrogatepass")).hexdigest()
            resource = getattr(auth.guard, "resource", None)
            # fastmcp makes its own kind of any other, and loses the subject on the way.
            fastmcp = sys.modules.get("fastmcp.server.auth")
            kind: type[AccessToken] = getattr(fastmcp, "AccessToken", AccessToken)
            told = access_token(kind, auth.principal, f"sha256:{digest}", resource)
            auth.user = AuthenticatedUser(told)
            scope["auth"] = AuthCredentials(list(auth.principal.scopes))
        if as_user:
            scope["user"] = auth.user
    token = sdk_user.set(auth.user)
    try:
        yield
    finally:
        sdk_user.reset(token)


def access_token(
    kind: type[AccessTokenT], principal: Principal, token: str, resource: str | None
) -> AccessTokenT:
    """Return a verified caller as the frameworks describe one.

    Args:
        kind: the framework's class.
        principal: the caller.
        token: what stands as the token in it.
        resource: for which resource the token was issued (RFC 8707).
    """
    return kind(
        token=token,
        client_id=principal.client_id or "",
        scopes=list(principal.scopes),
        expires_at=_expires_at(principal.expires_at),
        resource=resource,
        subject=principal.user_id,
        claims=_claims(principal.claims, principal),
    )


def _expires_at(expires_at: float) -> int | None:
    """Return the expiry as the SDK takes it: None is never, and so would be 0."""
    if expires_at == math.inf:
        return None
    return max(1, int(expires_at)) if math.isfinite(expires_at) else 1


def _claims(claims: Mapping[str, Any], principal: Principal) -> dict[str, Any]:
    """Return claims of the message's own, with the issuer: the frameworks bind users to it."""
    issuer = {"iss": principal.issuer} if principal.issuer else {}
    return {**own_claims(claims), **issuer}


def _completed(verified: AccessToken, principal: Principal) -> AuthenticatedUser:
    """Return what the framework verified with subject and issuer: it binds sessions to them."""
    claims = _claims(verified.claims or {}, principal)
    known = {"subject": principal.user_id, "claims": claims}
    return AuthenticatedUser(verified.model_copy(update=known))
