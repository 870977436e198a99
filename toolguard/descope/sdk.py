"""The functions of the SDK's API.

Functions without ``config`` are the methods of the default :class:`DescopeMCP`: the only one, or
the one that :func:`init_descope_mcp` created; see there for arguments and exceptions.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

from toolguard.connections.descope.models import (
    DescopeConfig,
    TenantTokenRequest,
    UserTokenRequest,
)
from toolguard.connections.descope.provider import DescopeConnections
from toolguard.descope.checks import require_scopes
from toolguard.descope.client import DescopeMCP
from toolguard.descope.default import Default
from toolguard.descope.default import default as any_default
from toolguard.parts.environment import MANAGEMENT_KEY, taken
from toolguard.parts.extras import explained
from toolguard.policies.scopes import ScopeHierarchy

__all__ = [
    "aget_connection_token",
    "avalidate_token",
    "avalidate_token_and_get_user_id",
    "avalidate_token_require_scopes_and_get_user_id",
    "create_auth_check",
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

P = ParamSpec("P")
T = TypeVar("T")

default: Default[DescopeMCP] = any_default


def init_descope_mcp(
    well_known_url: str | None = None,
    management_key: str | None = None,
    mcp_server_url: str | None = None,
    *,
    audience: str | Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    scope_hierarchy: ScopeHierarchy | Mapping[str, Iterable[str]] | None = None,
) -> DescopeMCP:
    """Create the :class:`DescopeMCP` that the functions use from now on, and return it.

    Omitted settings are taken from the environment: ``DESCOPE_MCP_WELL_KNOWN_URL``,
    ``DESCOPE_MANAGEMENT_KEY``, ``MCP_SERVER_URL``.

    Args:
        well_known_url: the MCP server's discovery URL, from Descope's console.
        management_key: the key for connections without an access token.
        mcp_server_url: the server's own URL: the required audience of every token.
        audience: the required audience, instead of the URL.
        environ: the environment variables.
        scope_hierarchy: the scopes that a scope includes.

    Raises:
        ValueError: if there is no well-known URL or no audience, or one cannot be used.
    """
    given = {
        "DESCOPE_MCP_WELL_KNOWN_URL": well_known_url,
        MANAGEMENT_KEY: management_key or taken(MANAGEMENT_KEY, environ),
        "MCP_SERVER_URL": mcp_server_url,
    }
    settings = {name: value for name, value in given.items() if value is not None}
    config = DescopeConfig.from_env({**environ, **settings})
    client = DescopeMCP(
        config.well_known_url,
        config.management_key,
        config.mcp_server_url,
        audience=audience,
        scope_hierarchy=scope_hierarchy,
    )
    default.name(client)
    return client


def _of_default(
    method: Callable[Concatenate[DescopeMCP, P], T], *, client_at: int | None = None
) -> Callable[P, T]:
    """Return a function that calls ``method`` of the default client, and looks like it.

    Args:
        method: the method.
        client_at: the position of the ``descope_client`` that the SDK's function takes, and its
            method does not. It is not used; a text or a list in its place is the audience.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        if client_at is not None:
            kwargs.pop("descope_client", None)
            if len(args) > client_at and not isinstance(args[client_at], (str, list, tuple)):
                args = (*args[:client_at], *args[client_at + 1 :])
        return method(default.get(), *args, **kwargs)

    async def acall(*args: Any, **kwargs: Any) -> Any:
        return await call(*args, **kwargs)

    function: Any = acall if inspect.iscoroutinefunction(method) else call
    functools.update_wrapper(function, method)
    signature = inspect.signature(method)
    function.__signature__ = signature.replace(parameters=[*signature.parameters.values()][1:])
    function.__module__, function.__qualname__ = __name__, method.__name__
    known: Callable[P, T] = function
    return known


validate_token = _of_default(DescopeMCP.validate_token, client_at=1)
"""See :meth:`DescopeMCP.validate_token`."""

avalidate_token = _of_default(DescopeMCP.avalidate_token, client_at=1)
"""See :meth:`DescopeMCP.avalidate_token`."""

validate_token_and_get_user_id = _of_default(DescopeMCP.validate_token_and_get_user_id, client_at=1)
"""See :meth:`DescopeMCP.validate_token_and_get_user_id`."""

avalidate_token_and_get_user_id = _of_default(
    DescopeMCP.avalidate_token_and_get_user_id, client_at=1
)
"""See :meth:`DescopeMCP.avalidate_token_and_get_user_id`."""

validate_token_require_scopes_and_get_user_id = _of_default(
    DescopeMCP.validate_token_require_scopes_and_get_user_id, client_at=2
)
"""See :meth:`DescopeMCP.validate_token_require_scopes_and_get_user_id`."""

avalidate_token_require_scopes_and_get_user_id = _of_default(
    DescopeMCP.avalidate_token_require_scopes_and_get_user_id, client_at=2
)
"""See :meth:`DescopeMCP.avalidate_token_require_scopes_and_get_user_id`."""

get_connection_token = _of_default(DescopeMCP.get_connection_token, client_at=6)
"""See :meth:`DescopeMCP.get_connection_token`."""

aget_connection_token = _of_default(DescopeMCP.aget_connection_token, client_at=6)
"""See :meth:`DescopeMCP.aget_connection_token`."""

create_auth_check = _of_default(DescopeMCP.create_auth_check, client_at=1)
"""See :meth:`DescopeMCP.create_auth_check`."""


def get_descope_client(config: DescopeConfig) -> Any:
    """Return the client of Descope's own package ``descope``, for what toolguard does not do.

    Args:
        config: the project and the management key.

    Raises:
        ValueError: if there is no management key.
        ModuleNotFoundError: if the package is not installed.
    """
    if not config.management_key:
        raise ValueError('give the key: DescopeConfig(well_known_url=..., management_key="K2...")')
    with explained():
        descope = importlib.import_module("descope")
    return descope.DescopeClient(
        project_id=config.project.project_id, management_key=config.management_key
    )


async def fetch_user_token(
    config: DescopeConfig,
    app_id: str,
    user_id: str,
    tenant_id: str | None = None,
    options: Mapping[str, Any] | None = None,
    access_token: str | None = None,
) -> str:
    """Return a user's latest third-party token, as the JSON of a :class:`TokenResponse`.

    Args:
        config: the project of the vault, and the management key.
        app_id: the connection's id at Descope.
        user_id: the user. Without an access token nothing else limits the access: never take it
            from a client.
        tenant_id: the tenant in which the user has connected it, if there are several.
        options: further options by their wire names, such as ``{"forceRefresh": True}``.
        access_token: the user's own access token, which the vault verifies; without it the
            management key is used, to which no policy applies and which is logged.

    Raises:
        ConnectionTokenError: if there is no token; the subclass says why.
    """
    request = UserTokenRequest(app_id=app_id, user_id=user_id, tenant_id=tenant_id, options=options)
    return await _fetch(config, request, access_token)


async def fetch_user_token_by_scopes(
    config: DescopeConfig,
    app_id: str,
    user_id: str,
    scopes: Sequence[str],
    options: Mapping[str, Any] | None = None,
    tenant_id: str | None = None,
) -> str:
    """Return a user's third-party token with these scopes, by the management key.

    For a caller with an access token use :func:`aget_connection_token`, which takes scopes too;
    for the arguments see :func:`fetch_user_token`.
    """
    request = UserTokenRequest(
        app_id=app_id, user_id=user_id, tenant_id=tenant_id, scopes=scopes, options=options
    )
    return await _fetch(config, request, None)


async def fetch_tenant_token(
    config: DescopeConfig,
    app_id: str,
    tenant_id: str,
    options: Mapping[str, Any] | None = None,
    access_token: str | None = None,
) -> str:
    """Return the latest third-party token that a tenant shares; see :func:`fetch_user_token`."""
    request = TenantTokenRequest(app_id=app_id, tenant_id=tenant_id, options=options)
    return await _fetch(config, request, access_token)


async def fetch_tenant_token_by_scopes(
    config: DescopeConfig,
    app_id: str,
    tenant_id: str,
    scopes: Sequence[str],
    options: Mapping[str, Any] | None = None,
    access_token: str | None = None,
) -> str:
    """Return a tenant's third-party token with these scopes; see :func:`fetch_user_token`."""
    request = TenantTokenRequest(app_id=app_id, tenant_id=tenant_id, scopes=scopes, options=options)
    return await _fetch(config, request, access_token)


async def _fetch(
    config: DescopeConfig,
    request: UserTokenRequest | TenantTokenRequest,
    access_token: str | None,
) -> str:
    connections = DescopeConnections(config.project, management_key=config.management_key or None)
    try:
        return (await connections.token(request, access_token=access_token)).to_json()
    finally:
        await connections.aclose()
