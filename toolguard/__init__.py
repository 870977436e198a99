"""Two decorators that give the tools of any Python MCP server real authorization.

::

    from mcp.server.mcpserver import MCPServer
    from toolguard import StaticConnections, ToolGuard, requires_scopes, with_connection

    mcp = MCPServer("calendar")

    @mcp.tool()
    @requires_scopes("mcp:calendar.write")
    @with_connection("google-calendar")
    async def create_event(title: str, *, user_id: str, connection_token: str) -> str: ...

    vault = StaticConnections({"google-calendar": {"alice": "alices-google-token"}})
    ToolGuard.from_env(connections=vault).protect(mcp)
    mcp.run(transport="streamable-http")
"""

from typing import TYPE_CHECKING, Any

from toolguard.calls.message import current_principal
from toolguard.calls.stdio import TrustedUser
from toolguard.connections import (
    CachedConnections,
    Connection,
    ConnectionProvider,
    ConnectionRequest,
    StaticConnections,
)
from toolguard.decorators.agents import requires_actor, requires_machine, requires_user
from toolguard.decorators.annotations import injected, sent_by_client
from toolguard.decorators.requires import (
    all_of,
    any_of,
    public,
    requires,
    requires_auth,
    requires_claim,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
    with_connection,
)
from toolguard.errors import (
    AccessDeniedError,
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    GuardNotConfiguredError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    InvalidInputError,
    InvalidTokenError,
    KeysUnavailableError,
    MalformedCredentialsError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.frameworks.framework_auth import verifier_for
from toolguard.guard import ToolGuard
from toolguard.http.door import Refusals
from toolguard.parts.readiness import Readiness
from toolguard.policies.operations import OperationCall
from toolguard.policies.scopes import Scope, ScopeHierarchy
from toolguard.principal import Actor, Principal
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.verifier import Verifier

if TYPE_CHECKING:
    from toolguard.frameworks.health import health_routes
    from toolguard.tokens.jwt import JWTVerifier

    __version__: str

__all__ = [
    "AccessDeniedError",
    "Actor",
    "CachedConnections",
    "Connection",
    "ConnectionDeniedError",
    "ConnectionProvider",
    "ConnectionRateLimitedError",
    "ConnectionRequest",
    "ConnectionRequiredError",
    "ConnectionResponseError",
    "ConnectionTokenError",
    "ConnectionUnavailableError",
    "GuardNotConfiguredError",
    "InsufficientAuthenticationError",
    "InsufficientScopeError",
    "InvalidInputError",
    "InvalidTokenError",
    "Issuer",
    "JWTVerifier",
    "KeysUnavailableError",
    "MalformedCredentialsError",
    "MissingTokenError",
    "OperationCall",
    "Principal",
    "Readiness",
    "Refusals",
    "Scope",
    "ScopeHierarchy",
    "StaticConnections",
    "ToolGuard",
    "ToolGuardError",
    "TrustedUser",
    "Verifier",
    "all_of",
    "any_of",
    "current_principal",
    "health_routes",
    "injected",
    "public",
    "requires",
    "requires_actor",
    "requires_auth",
    "requires_claim",
    "requires_client",
    "requires_machine",
    "requires_permissions",
    "requires_recent_auth",
    "requires_roles",
    "requires_scopes",
    "requires_tenant",
    "requires_user",
    "sent_by_client",
    "verifier_for",
    "with_connection",
]


def __getattr__(name: str) -> Any:
    """Import slow modules on first use (PEP 562)."""
    if name == "JWTVerifier":
        from toolguard.tokens.jwt import JWTVerifier  # noqa: PLC0415 - imports cryptography

        return JWTVerifier
    if name == "health_routes":
        from toolguard.frameworks.health import health_routes  # noqa: PLC0415 - imports starlette

        return health_routes
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - takes long to import

        return version("toolguard-mcp")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
