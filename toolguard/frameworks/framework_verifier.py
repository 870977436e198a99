"""Whom has the framework's own auth verified for this very request?

In every line, Starlette's AuthenticationMiddleware puts the user on the scope of each HTTP request
before a route is reached. Nothing is read from a variable of the session, and nothing is kept.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import UnauthenticatedUser

from toolguard.errors import GuardNotConfiguredError, InvalidTokenError
from toolguard.parsing.audience import accepted_audiences, audience_names, canonical_audience
from toolguard.principal import Principal
from toolguard.tokens.claims import check_bearer, check_expiry, check_subject
from toolguard.tokens.forgetting import forget_variables
from toolguard.tokens.jws import parse

__all__ = ["FrameworkVerifier", "framework_principal"]

_log = logging.getLogger("toolguard")

_OAUTH_PROXY = ("fastmcp.server.auth.oauth_proxy.proxy", "OAuthProxy")


class FrameworkVerifier:
    """Takes over what the server's own auth has verified, for the same request and no other.

    For ``MCPServer(token_verifier=..., auth=...)`` (and ``FastMCP`` of mcp 1) and for
    ``fastmcp.FastMCP(auth=...)``: the token is verified once, by the framework.

    Args:
        audience: who this server is: its URL, or what tokens name it by; several count as
            alternatives. A token that says it is for somebody else is refused, whatever the
            framework made of it.
        clock: the time, in seconds since the epoch.

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
        """Refuse: without a request to this server the framework has verified nothing.

        Raises:
            GuardNotConfiguredError: always.
        """
        del token
        raise GuardNotConfiguredError(
            "The framework verifies the tokens of HTTP requests to its own server, and this call "
            "is none (stdio, in process, or a mounted server): give its guard issuer= or a "
            'verifier instead of verifier="framework", or stdio="trusted" for a local user'
        )

    async def verify_request(self, scope: MutableMapping[str, Any], token: str) -> Principal:
        """Return whom the framework verified for this request.

        Args:
            scope: the ASGI scope of the request.
            token: the bearer token that it carries.

        Raises:
            InvalidTokenError: if the framework refused the token, or what it says of it does not
                hold up here.
            GuardNotConfiguredError: if no auth of the framework has seen the request.
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
        # Not the caller's fault: a 401 would send every client into re-authorization.
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
    """Return the caller that the framework's access token describes.

    Subject, client and scopes are the framework's own, everything else is read from the claims.
    A token without an expiry is good for this request, which the framework vouches for: opaque
    tokens need not have one (RFC 6749 §5.1, RFC 7662 §2.2). A JWT does (RFC 9068 §2.2), and the
    frameworks do not insist on it.

    Args:
        access_token: what the framework verified.
        token: the bearer token of the message.
        audiences: who this server is, as it was configured.
        now: the time, in seconds since the epoch.
        exchanges: whether the server gives its clients tokens of its own and answers with the
            one it got for them elsewhere (fastmcp's OAuthProxy). Whom *that* one is for is
            between the two; the audience of its own it has checked.

    Raises:
        InvalidTokenError: if this is about another token, or about one that is not active
            (RFC 7662 §2.2), for another audience, bound to a key, expired, or a JWT without an
            expiry.

    >>> verified = AccessToken(token="abc", client_id="desktop", scopes=["read"], subject="alice")
    >>> framework_principal(verified, "abc", audiences=["https://mcp.example.com/mcp"], now=0)
    <Principal: alice of  via desktop [read]>
    """
    claims = access_token.claims or {}
    if access_token.token == token:
        _check_audience(access_token.resource, claims.get("aud"), audiences)
    elif not exchanges:
        _log.warning("verify_token has to return AccessToken(token=token, ...), as it was called")
        raise InvalidTokenError("claims", "The auth of this server speaks of another token")
    if claims.get("active", True) is not True:
        # RFC 7662 §2.2: a boolean. The framework may have taken the text "false" for a yes.
        raise InvalidTokenError("claims", "The token is not active")
    check_bearer(claims)
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
    check_expiry(principal.expires_at, now)
    return principal


def _check_audience(resource: str | None, audience: object, audiences: Collection[str]) -> None:
    """Refuse a token that says it is for somebody else; an opaque one may say nothing."""
    accepted = accepted_audiences(audiences)
    if resource is not None and canonical_audience(resource) not in accepted:
        raise InvalidTokenError("audience", "The token is for another resource")
    if audience is None:
        return
    named = audience_names(audience)
    if named is None:
        raise InvalidTokenError("audience", "The token names its audience in no readable way")
    if accepted.isdisjoint(map(canonical_audience, named)):
        raise InvalidTokenError("audience", "The token is for another audience")


def _subject(subject: str | None, claims: Mapping[str, Any]) -> str | None:
    if subject:
        return subject
    if claims.get("sub") is None:  # as several verifiers of fastmcp write that there is no user
        return None
    check_subject(claims)
    return str(claims["sub"])


def _is_jwt(token: str) -> bool:
    try:
        parse(token)
    except InvalidTokenError as error:
        return error.reason != "malformed"  # otherwise a JWT that is not accepted here
    return True


def _exchanges_tokens(scope: Mapping[str, Any]) -> bool:
    """Return whether the auth of the application that serves the request is an OAuthProxy."""
    state = getattr(scope.get("app"), "state", None)
    auth = getattr(state, "fastmcp_auth", None)
    providers = (auth, getattr(auth, "server", None))  # MultiAuth tries its server first
    kinds = (kind for each in providers for kind in type(each).__mro__)
    return any((kind.__module__, kind.__qualname__) == _OAUTH_PROXY for kind in kinds)
