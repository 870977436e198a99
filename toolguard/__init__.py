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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from toolguard.decorators.approval import requires_approval
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
        ApprovalRefusedError,
        ApprovalRequiredError,
        ApprovalUnavailableError,
        ConnectionDeniedError,
        ConnectionRateLimitedError,
        ConnectionRequiredError,
        ConnectionResponseError,
        ConnectionTokenError,
        ConnectionUnavailableError,
        DecisionUnavailableError,
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
    from toolguard.frameworks.health import health_routes
    from toolguard.guard import ToolGuard
    from toolguard.http.door import Refusals
    from toolguard.parts.readiness import Readiness
    from toolguard.policies.answers import Answer
    from toolguard.policies.operations import OperationCall
    from toolguard.policies.scopes import Scope, ScopeHierarchy
    from toolguard.principal import Actor, Principal
    from toolguard.tokens.issuers.issuer import Issuer
    from toolguard.tokens.jwt import JWTVerifier
    from toolguard.tokens.verifier import Verifier

    __version__: str

__all__ = [
    "AccessDeniedError",
    "Actor",
    "Answer",
    "ApprovalRefusedError",
    "ApprovalRequiredError",
    "ApprovalUnavailableError",
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
    "DecisionUnavailableError",
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
    "requires_approval",
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

# A name is imported when it is first used (PEP 562): a module of tools that only decorates does
# not wait for what a guard needs.
_NAMES = {
    "toolguard.calls.message": ("current_principal",),
    "toolguard.calls.stdio": ("TrustedUser",),
    "toolguard.connections": (
        "CachedConnections",
        "Connection",
        "ConnectionProvider",
        "ConnectionRequest",
        "StaticConnections",
    ),
    "toolguard.decorators.agents": ("requires_actor", "requires_machine", "requires_user"),
    "toolguard.decorators.annotations": ("injected", "sent_by_client"),
    "toolguard.decorators.approval": ("requires_approval",),
    "toolguard.decorators.requires": (
        "all_of",
        "any_of",
        "public",
        "requires",
        "requires_auth",
        "requires_claim",
        "requires_client",
        "requires_permissions",
        "requires_recent_auth",
        "requires_roles",
        "requires_scopes",
        "requires_tenant",
        "with_connection",
    ),
    "toolguard.errors": (
        "AccessDeniedError",
        "ApprovalRefusedError",
        "ApprovalRequiredError",
        "ApprovalUnavailableError",
        "ConnectionDeniedError",
        "ConnectionRateLimitedError",
        "ConnectionRequiredError",
        "ConnectionResponseError",
        "ConnectionTokenError",
        "ConnectionUnavailableError",
        "DecisionUnavailableError",
        "GuardNotConfiguredError",
        "InsufficientAuthenticationError",
        "InsufficientScopeError",
        "InvalidInputError",
        "InvalidTokenError",
        "KeysUnavailableError",
        "MalformedCredentialsError",
        "MissingTokenError",
        "ToolGuardError",
    ),
    "toolguard.frameworks.framework_auth": ("verifier_for",),
    "toolguard.frameworks.health": ("health_routes",),
    "toolguard.guard": ("ToolGuard",),
    "toolguard.http.door": ("Refusals",),
    "toolguard.parts.readiness": ("Readiness",),
    "toolguard.policies.answers": ("Answer",),
    "toolguard.policies.operations": ("OperationCall",),
    "toolguard.policies.scopes": ("Scope", "ScopeHierarchy"),
    "toolguard.principal": ("Actor", "Principal"),
    "toolguard.tokens.issuers.issuer": ("Issuer",),
    "toolguard.tokens.jwt": ("JWTVerifier",),
    "toolguard.tokens.verifier": ("Verifier",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        value = getattr(import_module(_MODULES[name]), name)
    elif name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - takes long to import

        value = version("toolguard-mcp")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
