"""Take the caller of a request from the framework's own auth.

In every line, Starlette's AuthenticationMiddleware sets the user in the scope of each HTTP request
before a route is reached. Nothing is read from a variable of the session, and nothing is cached.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import UnauthenticatedUser
from starlette.types import Scope

from toolguard.errors import GuardNotConfiguredError, InvalidTokenError
from toolguard.parsing.audience import accepted_audiences, audience_fault, canonical_audience
from toolguard.principal import Principal
from toolguard.tokens.claims import Times, check_actors, check_bearer, check_subject, check_times
from toolguard.tokens.forgetting import forget_variables
from toolguard.tokens.jws import parse

__all__ = ["FrameworkVerifier", "framework_principal"]

_log = logging.getLogger("toolguard")

_OAUTH_PROXY = ("fastmcp.server.auth.oauth_proxy.proxy", "OAuthProxy")


class FrameworkVerifier:
    """Accepts the verification of the server's own auth, for the same request only.

    For ``MCPServer(token_verifier=..., auth=...)`` (and ``FastMCP`` of mcp 1) and for
    ``fastmcp.FastMCP(auth=...)``: the token is verified once, by the framework.

    Args:
        audience: the ``aud`` value of this server: its URL, or another identifier; several are
            alternatives. A token with another audience is refused, even if the framework
            accepted it.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if no audience is given, or an empty one.
    """

    def __init__(
        self, audience: str | Sequence[str], *, clock: Callable[[], float] = time.time
    ) -> None:
        self.audiences = (audience,) if isinstance(audience, str) else tuple(audience or ())
        if not self.audiences or not all(self.audiences):
            raise ValueError('write audience="https://mcp.example.com/mcp", the URL of this server')
        self._clock = clock

    async def verify(self, token: str) -> Principal:
        """Refuse the token: without a request the framework has verified nothing.

        Raises:
            GuardNotConfiguredError: always.
        """
        del token
        raise GuardNotConfiguredError(
            "The framework verifies the tokens of HTTP requests to its own server, and this call "
            "is not such a request (stdio, in process, or a mounted server): give its guard "
            'issuer= or a verifier instead of verifier="framework", or stdio=TrustedUser("...") '
            "for a local user"
        )

    async def verify_request(self, scope: Scope, token: str) -> Principal:
        """Return the principal that the framework verified for this request.

        Args:
            scope: the ASGI scope of the request.
            token: the bearer token that it carries.

        Raises:
            InvalidTokenError: if the framework refused the token, or its facts are not valid
                here.
            GuardNotConfiguredError: if no auth of the framework has processed the request.
        """
        try:
            return self._taken_over(scope, token)
        except BaseException as error:
            forget_variables(error)
            del scope, token
            raise

    def _taken_over(self, scope: Mapping[str, Any], token: str) -> Principal:
        user = scope.get("user")
        if isinstance(user, AuthenticatedUser):
            return framework_principal(
                user.access_token,
                token,
                audiences=self.audiences,
                now=self._clock(),
                exchanges=_exchanges_tokens(scope),
            )
        if isinstance(user, UnauthenticatedUser):
            raise InvalidTokenError("claims", "The auth of this server does not accept the token")
        # A fault of the server: a 401 would make every client authorize again.
        raise GuardNotConfiguredError(
            "The server has verified no token by itself: write FastMCP(..., auth=...) or "
            "MCPServer(..., token_verifier=..., auth=AuthSettings(...)), or give the guard "
            'issuer= instead of verifier="framework"'
        )

    def __repr__(self) -> str:
        return f"<FrameworkVerifier: for {', '.join(self.audiences)}>"


def framework_principal(
    access_token: AccessToken,
    token: str,
    *,
    audiences: Collection[str],
    now: float,
    exchanges: bool = False,
) -> Principal:
    """Return the principal that the framework's access token describes.

    Subject, client and scopes are those of the framework, everything else is read from the claims.
    A token without an expiry is accepted for this request, as the framework accepted it: opaque
    tokens need not have one (RFC 6749 §5.1, RFC 7662 §2.2). A JWT needs one (RFC 9068 §2.2), which
    the frameworks do not check.

    Args:
        access_token: the access token object of the framework.
        token: the bearer token of the message.
        audiences: the configured audiences of this server.
        now: the time, in seconds since the epoch.
        exchanges: whether the server issues its own tokens to clients and returns the upstream
            token for them (fastmcp's OAuthProxy). The audience of the *upstream* token is not
            this server; the proxy has checked the audience of its own token.

    Raises:
        InvalidTokenError: if the object is about another token, or the token is not active
            (RFC 7662 §2.2), for another audience, sender-constrained, expired, a JWT without an
            expiry, or names an actor in a way not understood.

    >>> verified = AccessToken(token="abc", client_id="desktop", scopes=["read"], subject="alice")
    >>> framework_principal(verified, "abc", audiences=["https://mcp.example.com/mcp"], now=0)
    <Principal: alice of  via desktop [read]>
    """
    claims = access_token.claims or {}
    if access_token.token == token:
        _check_audience(access_token.resource, claims.get("aud"), audiences)
    elif not exchanges:
        _log.warning("verify_token has to return AccessToken(token=token, ...), as it was called")
        raise InvalidTokenError("claims", "The auth of this server answered for another token")
    if claims.get("active", True) is not True:
        # RFC 7662 §2.2: a boolean. The framework may have taken the text "false" as true.
        raise InvalidTokenError("claims", "The token is not active")
    check_bearer(claims)
    check_actors(claims)
    expiry = access_token.expires_at if access_token.expires_at is not None else claims.get("exp")
    if expiry is None and _is_jwt(access_token.token):
        raise InvalidTokenError("claims", "The token has no expiry")
    described = Principal.from_claims({**claims, "exp": expiry})
    principal = replace(
        described,
        user_id=_subject(access_token.subject, claims),
        client_id=access_token.client_id or described.client_id,
        scopes=tuple(dict.fromkeys(scope for scope in access_token.scopes if scope)),
        expires_at=math.inf if expiry is None else described.expires_at,
        claims=MappingProxyType(dict(claims)),
    )
    check_times(Times(-math.inf, principal.expires_at), now, 0)
    return principal


def _check_audience(resource: str | None, audience: object, audiences: Collection[str]) -> None:
    """Refuse a token with another audience; an opaque token may have no audience."""
    accepted = accepted_audiences(audiences)
    if resource is not None and canonical_audience(resource) not in accepted:
        raise InvalidTokenError("audience", "The token is for another resource")
    fault = None if audience is None else audience_fault(audience, accepted)
    if fault is not None:
        raise InvalidTokenError("audience", fault)


def _subject(subject: str | None, claims: Mapping[str, Any]) -> str | None:
    if subject:
        return subject
    if claims.get("sub") is None:  # several verifiers of fastmcp write null if there is no user
        return None
    check_subject(claims)
    return str(claims["sub"])


def _is_jwt(token: str) -> bool:
    try:
        parse(token)
    except InvalidTokenError as error:
        return error.reason != "malformed"  # else it is a JWT that is not accepted here
    return True


def _exchanges_tokens(scope: Mapping[str, Any]) -> bool:
    """Return whether the auth of the application that serves the request is an OAuthProxy."""
    state = getattr(scope.get("app"), "state", None)
    auth = getattr(state, "fastmcp_auth", None)
    providers = (auth, getattr(auth, "server", None))  # MultiAuth uses its server first
    kinds = (kind for each in providers for kind in type(each).__mro__)
    return any((kind.__module__, kind.__qualname__) == _OAUTH_PROXY for kind in kinds)
