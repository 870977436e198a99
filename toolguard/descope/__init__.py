"""Use Descope: its vault as a connection provider, and an API compatible with its SDK. Public.

For a new server use :class:`DescopeConnections` and the two decorators. The other names are those
of Descope's SDK: :class:`DescopeMCP`, or :func:`init_descope_mcp` and functions. A function whose
name begins with ``a`` is the coroutine version of the one without; functions that are coroutines in
the SDK have kept their names.
"""

from toolguard.calls.message import current_access_token
from toolguard.connections.descope.models import (
    DescopeConfig,
    ErrorResponse,
    TenantTokenRequest,
    TokenRequest,
    TokenResponse,
    TokenValidationResult,
    UserTokenRequest,
)
from toolguard.connections.descope.project import DescopeProject
from toolguard.connections.descope.provider import DescopeConnections
from toolguard.descope.client import DescopeMCP
from toolguard.descope.left_out import DescopeMCPClient, DescopeMCPServer
from toolguard.descope.sdk import (
    aget_connection_token,
    avalidate_token,
    avalidate_token_and_get_user_id,
    avalidate_token_require_scopes_and_get_user_id,
    create_auth_check,
    fetch_tenant_token,
    fetch_tenant_token_by_scopes,
    fetch_user_token,
    fetch_user_token_by_scopes,
    get_connection_token,
    get_descope_client,
    init_descope_mcp,
    require_scopes,
    validate_token,
    validate_token_and_get_user_id,
    validate_token_require_scopes_and_get_user_id,
)
from toolguard.descope.tools import add_descope_tools, create_descope_fastmcp_server
from toolguard.errors import InsufficientScopeError

__all__ = [
    "DescopeConfig",
    "DescopeConnections",
    "DescopeMCP",
    "DescopeMCPClient",
    "DescopeMCPServer",
    "DescopeProject",
    "ErrorResponse",
    "InsufficientScopeError",
    "TenantTokenRequest",
    "TokenRequest",
    "TokenResponse",
    "TokenValidationResult",
    "UserTokenRequest",
    "add_descope_tools",
    "aget_connection_token",
    "avalidate_token",
    "avalidate_token_and_get_user_id",
    "avalidate_token_require_scopes_and_get_user_id",
    "create_auth_check",
    "create_descope_fastmcp_server",
    "current_access_token",
    "fetch_tenant_token",
    "fetch_tenant_token_by_scopes",
    "fetch_user_token",
    "fetch_user_token_by_scopes",
    "get_connection_token",
    "get_descope_client",
    "init_descope_mcp",
    "require_scopes",
    "validate_token",
    "validate_token_and_get_user_id",
    "validate_token_require_scopes_and_get_user_id",
]
