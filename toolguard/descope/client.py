"""The SDK-compatible client: validates access tokens, and fetches connection tokens.

It uses the same verifier, provider and decision as the decorators.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from typing_extensions import Unpack

from toolguard.calls.message import here
from toolguard.calls.waiting import wait_for
from toolguard.connections.descope.models import (
    DescopeConfig,
    TokenValidationResult,
    UserTokenRequest,
    validation_result,
)
from toolguard.connections.descope.provider import DescopeConnections
from toolguard.descope.checks import check, check_owner, require_all, require_user_id
from toolguard.descope.default import default
from toolguard.errors import ToolGuardError
from toolguard.guard import ToolGuard
from toolguard.policies.policy import Policy
from toolguard.policies.scopes import ScopeHierarchy
from toolguard.principal import Principal
from toolguard.settings import GuardSettings
from toolguard.tokens.discovery import issuer_of
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.jwt import JWTVerifier

__all__ = ["AuthCheck", "DescopeMCP"]

_log = logging.getLogger("toolguard.descope")

T = TypeVar("T")
AuthCheck = Callable[[Any], Awaitable[bool]]
"""The ``auth=`` of a fastmcp tool: returns whether a call, given its context, is permitted."""


class DescopeMCP:
    """The SDK's object: validates access tokens, and fetches connection tokens.

    The functions of the module use it if it is the only one, or the one that
    :func:`~toolguard.descope.init_descope_mcp` created.

    The methods without ``a`` are synchronous: they work with and without a running event loop in
    the calling thread, but block it during a fetch, and keep no TCP connection open. In
    coroutines use the methods with ``a``.

    Args:
        well_known_url: the MCP server's discovery URL, from Descope's console.
        management_key: the key for connections without an access token; each use is logged.
        mcp_server_url: the server's own URL: the required audience (``aud``) of every token; by
            default the environment variable ``MCP_SERVER_URL``.
        audience: the required audience, instead of the URL, if the project configures none:
            ``audience="P2abc"``, the project id. The audience check cannot be disabled.
        timeout: seconds for one request to the vault.
        scope_hierarchy: the scopes that a scope includes: ``{"a.write": ["a.read"]}``. While a
            guard serves a message, the guard's hierarchy is used.

    Raises:
        ValueError: if there is no audience, or a setting is invalid.

    >>> DescopeMCP(
    ...     "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration",
    ...     mcp_server_url="https://mcp.example.com/mcp",
    ... )
    <DescopeMCP: P2abc for https://mcp.example.com/mcp>
    """

    def __init__(
        self,
        well_known_url: str,
        management_key: str | None = None,
        mcp_server_url: str | None = None,
        *,
        audience: str | Sequence[str] | None = None,
        timeout: float = 10.0,
        scope_hierarchy: ScopeHierarchy | Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        if mcp_server_url is None and audience is None:
            mcp_server_url = os.environ.get("MCP_SERVER_URL") or None
        # The SDK's examples write os.getenv("DESCOPE_MANAGEMENT_KEY", "").
        management_key = management_key or None
        self.config = DescopeConfig(
            well_known_url=well_known_url,
            management_key=management_key,
            mcp_server_url=mcp_server_url,
        )
        accepted = mcp_server_url if audience is None else audience
        if accepted is None:
            raise ValueError(
                'say which server tokens are for: mcp_server_url="https://mcp.example.com/mcp" '
                '(in the environment: MCP_SERVER_URL), or audience="P..." if the tokens of this '
                "project name its id"
            )
        self.scope_hierarchy = ScopeHierarchy.of(scope_hierarchy)
        self._keys = JWKS(well_known_url=well_known_url)
        self.verifier = self._verifier(accepted)
        self.connections = DescopeConnections(
            self.config.project, management_key=management_key, timeout=timeout
        )
        default.offer(self)

    @classmethod
    def from_config(cls, config: DescopeConfig) -> DescopeMCP:
        """Return the object for ``config``.

        Raises:
            ValueError: if it has no ``mcp_server_url``.
        """
        return cls(config.well_known_url, config.management_key, config.mcp_server_url)

    def guard(self, **settings: Unpack[GuardSettings]) -> ToolGuard:
        """Return a guard with this verifier and these connections, for the decorators.

        Args:
            settings: further settings of :class:`~toolguard.ToolGuard`.

        Raises:
            ValueError: if there is no ``mcp_server_url`` and no ``resource=`` to name the server.
        """
        completed: GuardSettings = {
            "verifier": self.verifier,
            "issuer": issuer_of(self.config.well_known_url),
            "resource": self.config.mcp_server_url,
            "connections": self.connections,
            "scope_hierarchy": self.scope_hierarchy,
        }
        completed.update(settings)
        return ToolGuard(**completed)

    def validate_token(
        self, access_token: str, audience: str | Sequence[str] | None = None
    ) -> TokenValidationResult:
        """Validate a token and return its claims.

        Args:
            access_token: the bearer token that the client sent, without ``Bearer``.
            audience: the required ``aud``, instead of this object's audience.

        Raises:
            InvalidTokenError: if the token is not valid.
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        return validation_result(self._verify(access_token, audience))

    async def avalidate_token(
        self, access_token: str, audience: str | Sequence[str] | None = None
    ) -> TokenValidationResult:
        """Validate a token as :meth:`validate_token` does, without blocking."""
        return validation_result(await self._verifier(audience).verify(access_token))

    def validate_token_and_get_user_id(
        self, access_token: str, audience: str | Sequence[str] | None = None
    ) -> str:
        """Validate a token and return its user id.

        Args:
            access_token: the bearer token that the client sent, without ``Bearer``.
            audience: the required ``aud``, instead of this object's audience.

        Raises:
            InvalidTokenError: if the token is not valid.
            AccessDeniedError: if it names no user.
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        return require_user_id(self._verify(access_token, audience))

    async def avalidate_token_and_get_user_id(
        self, access_token: str, audience: str | Sequence[str] | None = None
    ) -> str:
        """Return the user id as :meth:`validate_token_and_get_user_id` does, without blocking."""
        return require_user_id(await self._verifier(audience).verify(access_token))

    def validate_token_require_scopes_and_get_user_id(
        self,
        access_token: str,
        required_scopes: Sequence[str],
        audience: str | Sequence[str] | None = None,
        error_description: str | None = None,
    ) -> str:
        """Validate a token, check its scopes, and return its user id.

        Args:
            access_token: the bearer token that the client sent, without ``Bearer``.
            required_scopes: the scopes that the token must have.
            audience: the required ``aud``, instead of this object's audience.
            error_description: the text of the refusal, instead of one that names the
                scopes.

        Raises:
            InvalidTokenError: if the token is not valid.
            InsufficientScopeError: if it lacks scopes; see :meth:`require_scopes`.
            AccessDeniedError: if it names no user.
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        rule = require_all(required_scopes)
        principal = self._verify(access_token, audience)
        check(rule, principal, error_description, self.scope_hierarchy)
        return require_user_id(principal)

    async def avalidate_token_require_scopes_and_get_user_id(
        self,
        access_token: str,
        required_scopes: Sequence[str],
        audience: str | Sequence[str] | None = None,
        error_description: str | None = None,
    ) -> str:
        """Do :meth:`validate_token_require_scopes_and_get_user_id` without blocking."""
        rule = require_all(required_scopes)
        principal = await self._verifier(audience).verify(access_token)
        check(rule, principal, error_description, self.scope_hierarchy)
        return require_user_id(principal)

    def require_scopes(
        self,
        token_result: TokenValidationResult,
        required_scopes: Sequence[str],
        error_description: str | None = None,
    ) -> None:
        """Check scopes as :func:`toolguard.descope.require_scopes` does."""
        principal = Principal.from_claims(token_result)
        check(require_all(required_scopes), principal, error_description, self.scope_hierarchy)

    def get_connection_token(
        self,
        user_id: str,
        app_id: str,
        scopes: Sequence[str] | None = None,
        tenant_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        access_token: str | None = None,
    ) -> str:
        """Return a user's token for a third-party service.

        Args:
            user_id: the user id of a verified token.
            app_id: the connection's id at Descope, such as ``"google-calendar"``.
            scopes: third-party scopes the token must have; None for the latest token.
            tenant_id: the tenant in which the user has connected it, if there are several.
            options: further options by their wire names, such as ``{"forceRefresh": True}``.
            access_token: the user's own access token, so that the vault's policies apply. It is
                verified again. Without it the management key is used, which is logged.

        Raises:
            ConnectionRequiredError: if the user has not connected the account with these scopes;
                with a connect URL if the vault sent one.
            ConnectionDeniedError: if the access token belongs to another user or tenant, or the
                vault refuses.
            ConnectionTokenError: if the vault cannot answer; the subclass says why.
            InvalidTokenError: if the access token is not valid.
            KeysUnavailableError: if the access token cannot be verified at this time.
        """

        async def once() -> str:
            try:
                return await self.aget_connection_token(
                    user_id, app_id, scopes, tenant_id, options, access_token
                )
            finally:
                await self.connections.aclose()

        return wait_for(once)

    async def aget_connection_token(
        self,
        user_id: str,
        app_id: str,
        scopes: Sequence[str] | None = None,
        tenant_id: str | None = None,
        options: Mapping[str, Any] | None = None,
        access_token: str | None = None,
    ) -> str:
        """Return a token as :meth:`get_connection_token` does, without blocking."""
        request = UserTokenRequest(
            app_id=app_id, user_id=user_id, tenant_id=tenant_id, scopes=scopes, options=options
        )
        if access_token is not None:
            check_owner(request, await self.verifier.verify(access_token))
        return (await self.connections.token(request, access_token=access_token)).token

    def create_auth_check(self, required_scopes: Sequence[str] | None = None) -> AuthCheck:
        """Return a check for the ``auth=`` of a fastmcp tool (3.x and 4.x).

        It admits callers with a valid token for this server that has all of the scopes. fastmcp
        answers a refusal with "unknown tool"; :func:`toolguard.requires_scopes` answers it with a
        challenge that clients can act on.

        Args:
            required_scopes: the scopes that the token must have; None for any valid token.

        Raises:
            ValueError: if the list is empty.

        Example::

            @mcp.tool(auth=descope.create_auth_check(["calendar.read"]))
            def list_events() -> list[str]: ...
        """
        policy = Policy() if required_scopes is None else require_all(required_scopes)

        async def admits(context: Any) -> bool:
            token = _find_token(context)
            if token is None:
                return False
            try:
                check(policy, await self.verifier.verify(token), None, self.scope_hierarchy)
            except ToolGuardError as refusal:
                _log.info("auth check: %s", refusal.error)
                return False
            return True

        return admits

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; later calls open new ones."""
        await self.connections.aclose()

    def _verifier(self, audience: str | Sequence[str] | None) -> JWTVerifier:
        if audience is None:
            return self.verifier
        return JWTVerifier(issuer=None, audience=audience, keys=self._keys)

    def _verify(self, access_token: str, audience: str | Sequence[str] | None) -> Principal:
        verifier = self._verifier(audience)
        principal = verifier.verify_now(access_token)
        if principal is not None:
            return principal
        return wait_for(functools.partial(verifier.verify, access_token))

    def __repr__(self) -> str:
        audiences = ", ".join(self.verifier.audiences)
        return f"<DescopeMCP: {self.config.project.project_id} for {audiences}>"


def _find_token(context: Any) -> str | None:
    """Return the caller's token in a check of fastmcp's."""
    frame = here()
    if frame is not None:
        # Behind a ToolGuard the token is hidden from the frameworks.
        auth = frame.message.auth
        return auth.token if auth is not None else None
    token = getattr(context, "token", None)
    text = getattr(token, "token", token)
    return text if isinstance(text, str) and text else None
