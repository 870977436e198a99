"""Add the SDK's four token tools to a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toolguard.connections.descope.models import DescopeConfig, TokenResponse
from toolguard.connections.descope.project import FETCH_SCOPE
from toolguard.connections.protocol import Connection
from toolguard.decorators.annotations import injected
from toolguard.decorators.requires import with_connection
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.descope.checks import require_all
from toolguard.descope.client import DescopeMCP
from toolguard.frameworks import adapter_for, sdk_server_class
from toolguard.policies.argument_scopes import bounded_scopes

__all__ = ["add_descope_tools", "create_descope_fastmcp_server"]

_NOT_ASKED_FOR = (
    "these tools hand third-party tokens to the model: a tool of your own that uses the token "
    "(@with_connection) needs none of them. If they are wanted all the same, write "
    "expose_tokens=True"
)


def add_descope_tools(
    server: Any,
    config: DescopeConfig | None = None,
    *,
    expose_tokens: bool = False,
    required_scopes: Sequence[str] = (FETCH_SCOPE,),
) -> None:
    """Add the SDK's four tools, which return third-party tokens as JSON.

    Warning:
        The model reads the results of tools: the token is then in its context and in the client's
        log, and exposed to prompt injection and to the other tools of the model. Prefer
        ``@with_connection``, which passes the token to your function only.

    The tools are ``fetch_user_token``, ``fetch_user_token_by_scopes``, ``fetch_tenant_token`` and
    ``fetch_tenant_token_by_scopes``. They are guarded, and fetch only the caller's own connections
    and those of the tenant that the caller's token names: unlike in the SDK, no client can name a
    user or a tenant. The connections are those of the guard that protects the server. A server
    without a guard gets one here, from ``config``; so protect it before this call, or not at all.

    Args:
        server: a server of one of the supported frameworks.
        config: the settings of the guard, if the server is not protected yet; by default those in
            the environment.
        expose_tokens: must be True, to confirm that tokens may be exposed to the model.
        required_scopes: the scopes that the caller's token must have.

    Raises:
        ValueError: without ``expose_tokens=True``; if there is a guard and a ``config``, or no
            audience; if ``required_scopes`` is empty.
        TypeError: if ``server`` is not a server of a supported framework, or ``required_scopes``
            is a string.
    """
    if not expose_tokens:
        raise ValueError(_NOT_ASKED_FOR)
    guarded = GuardDecorator(require_all(required_scopes))
    _protect(server, config)
    for tool in (
        fetch_user_token_by_scopes,
        fetch_user_token,
        fetch_tenant_token_by_scopes,
        fetch_tenant_token,
    ):
        server.tool()(guarded(tool))


def create_descope_fastmcp_server(
    name: str = "descope",
    config: DescopeConfig | None = None,
    *,
    expose_tokens: bool = False,
    **fastmcp_kwargs: Any,
) -> Any:
    """Return a protected server of the official SDK: ``MCPServer`` (2.x) or ``FastMCP`` (1.x).

    Args:
        name: the name of the server.
        config: the settings of its guard; by default those in the environment.
        expose_tokens: whether to add the tools that return third-party tokens to the model; see
            the warning of :func:`add_descope_tools`.
        fastmcp_kwargs: further arguments of the server's class.

    Raises:
        ValueError: if there is no well-known URL or no audience.
    """
    server = sdk_server_class()(name, **fastmcp_kwargs)
    _protect(server, config)
    if expose_tokens:
        add_descope_tools(server, expose_tokens=True)
    return server


def _protect(server: Any, config: DescopeConfig | None) -> None:
    guard = adapter_for(server).guard
    if guard is None:
        DescopeMCP.from_config(config or DescopeConfig.from_env()).guard().protect(server)
    elif config is not None:
        raise ValueError(
            "the server is protected already, and the connections of its guard are used: leave "
            "config out"
        )
    elif guard.connections is None:
        raise ValueError("the guard has no connections: write ToolGuard(..., connections=...)")


async def fetch_user_token_by_scopes(
    app_id: str, scopes: list[str], options: dict[str, Any] | None = None
) -> str:
    """Fetch your token for a connected app, with specific scopes."""
    return await _token(app_id, scopes, options, tenant=False)


async def fetch_user_token(app_id: str, options: dict[str, Any] | None = None) -> str:
    """Fetch your latest token for a connected app."""
    return await _token(app_id, None, options, tenant=False)


async def fetch_tenant_token_by_scopes(
    app_id: str, scopes: list[str], options: dict[str, Any] | None = None
) -> str:
    """Fetch your tenant's token for a connected app, with specific scopes."""
    return await _token(app_id, scopes, options, tenant=True)


async def fetch_tenant_token(app_id: str, options: dict[str, Any] | None = None) -> str:
    """Fetch your tenant's latest token for a connected app."""
    return await _token(app_id, None, options, tenant=True)


async def _token(
    app_id: str,
    scopes: Sequence[str] | None,
    options: Mapping[str, Any] | None,
    *,
    tenant: bool,
) -> str:
    bounded_scopes(scopes or ())
    # Of the options only this one: a refresh token must not be exposed to a model.
    fresh = (options or {}).get("forceRefresh") is True

    @with_connection(app_id, scopes=scopes, as_="connection", tenant=tenant, fresh=fresh)
    async def hand_over(*, connection: Connection = injected) -> str:
        return TokenResponse.of(connection).to_json()

    return await hand_over()
