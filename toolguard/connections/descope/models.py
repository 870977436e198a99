"""What do the SDK's users hold in their hands: settings, requests and answers?"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from toolguard.connections.descope.project import DescopeProject
from toolguard.connections.protocol import Connection
from toolguard.environment import MANAGEMENT_KEY, taken
from toolguard.errors import ToolGuardError
from toolguard.principal import Principal

__all__ = [
    "DescopeConfig",
    "ErrorResponse",
    "TenantTokenRequest",
    "TokenRequest",
    "TokenResponse",
    "TokenValidationResult",
    "UserTokenRequest",
    "validation_result",
]

_PROFILE = ("name", "email", "phone", "picture")


@dataclass(frozen=True, kw_only=True)
class DescopeConfig:
    """The settings of one MCP server.

    Attributes:
        well_known_url: the server's discovery URL, from Descope's console.
        management_key: opens everybody's connections, past the vault's policies; None for none.
            Never in the representation.
        mcp_server_url: the server's own URL, which tokens name as their audience.

    Raises:
        ValueError: if ``well_known_url`` is none of Descope's.
    """

    well_known_url: str
    management_key: str | None = field(default=None, repr=False)
    mcp_server_url: str | None = None

    def __post_init__(self) -> None:
        DescopeProject.from_well_known_url(self.well_known_url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> DescopeConfig:
        """Return what the environment says.

        Read are ``DESCOPE_MCP_WELL_KNOWN_URL``, ``DESCOPE_MANAGEMENT_KEY`` and
        ``MCP_SERVER_URL``; one that is empty counts as not set. The management key is taken out
        of ``os.environ``, for libraries and child processes not to find it there.

        Raises:
            ValueError: if the first is not set, or none of Descope's.
        """
        well_known_url = environ.get("DESCOPE_MCP_WELL_KNOWN_URL")
        if not well_known_url:
            raise ValueError("set DESCOPE_MCP_WELL_KNOWN_URL to the discovery URL of the server")
        return cls(
            well_known_url=well_known_url,
            management_key=taken(MANAGEMENT_KEY, environ),
            mcp_server_url=environ.get("MCP_SERVER_URL") or None,
        )

    @property
    def project(self) -> DescopeProject:
        """The project, and where its API is."""
        return DescopeProject.from_well_known_url(self.well_known_url)


@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """What is asked of the vault: somebody's token for one app.

    Attributes:
        app_id: the connection's id at Descope, such as ``"google-calendar"``.
        tenant_id: the tenant it is about.
        scopes: third-party scopes the token has to carry; None for the latest token, whatever
            it carries.
        options: further options by their wire names: ``forceRefresh``, ``withRefreshToken``.

    Raises:
        ValueError: if the id, or the list of scopes, is empty.
        TypeError: if ``scopes`` is a string.
    """

    app_id: str
    tenant_id: str | None = None
    scopes: Sequence[str] | None = None
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.app_id or self.tenant_id == "":
            raise ValueError('an app and a tenant have ids: write app_id="google-calendar"')
        if isinstance(self.scopes, str):
            raise TypeError(f"scopes are a list: write scopes={self.scopes.split()!r}")
        if self.scopes is not None and not self.scopes:
            raise ValueError("scopes=[] asks for nothing: leave it out to take what there is")


@dataclass(frozen=True, kw_only=True)
class UserTokenRequest(TokenRequest):
    """Asks for a user's own token; ``tenant_id`` says in which tenant, where it matters.

    Attributes:
        user_id: whose token it is.

    Raises:
        ValueError: if there is no user.
    """

    user_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.user_id:
            raise ValueError("a user has an id: give the one of a verified token")


@dataclass(frozen=True, kw_only=True)
class TenantTokenRequest(TokenRequest):
    """Asks for the token that a whole tenant shares.

    Raises:
        ValueError: if there is no tenant.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tenant_id is None:
            raise ValueError("a tenant has an id: give the one of a verified token")


@dataclass(frozen=True, kw_only=True)
class TokenResponse:
    """A third-party token.

    Attributes:
        token: the token; never in the representation.
        expires_at: when it expires, in seconds since the epoch; None where unknown.
        scopes: what it carries.
        metadata: whatever else the vault said, by its wire names; never in the representation,
            for a refresh token is in it if one was asked for.
    """

    token: str = field(repr=False)
    expires_at: int | None = None
    scopes: Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, connection: Connection, metadata: Mapping[str, Any] | None = None) -> TokenResponse:
        """Return ``connection`` as the SDK's users know it."""
        expires_at = connection.expires_at
        return cls(
            token=connection.token,
            expires_at=None if expires_at is None else int(expires_at),
            scopes=list(connection.scopes),
            metadata=metadata,
        )

    def to_json(self) -> str:
        """Return it as JSON text, with the token."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class ErrorResponse:
    """An error as data, for those who answer with JSON; functions here raise.

    Attributes:
        error: one sentence.
        code: what a program can switch on.
        details: whatever else is known.
    """

    error: str
    code: str | None = None
    details: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, error: ToolGuardError) -> ErrorResponse:
        """Return what ``error`` says; no token is in it."""
        known = error.to_dict()
        code, sentence = known.pop("error"), known.pop("error_description")
        return cls(error=sentence, code=code, details=known or None)

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self))


class TokenValidationResult(TypedDict, total=False):
    """The claims of a verified token, and under the SDK's names what they mean.

    A key is there if the token says so. ``scopes`` always is, however the token writes them.
    Other claims are there under their own names.
    """

    sub: str
    userId: str
    user_id: str
    tenant: str
    tenantId: str
    scopes: list[str]
    aud: str | list[str]
    iss: str
    exp: int
    iat: int
    user: dict[str, Any]


def validation_result(principal: Principal) -> TokenValidationResult:
    """Return what the SDK's users expect of a verified token.

    >>> principal = Principal.from_claims({"sub": "U2alice", "scope": "read write"})
    >>> validation_result(principal)["scopes"]
    ['read', 'write']
    """
    known: dict[str, Any] = {
        **principal.claims,
        **_named(principal.user_id, "sub", "userId", "user_id"),
        **_named(principal.tenant_id, "tenant", "tenantId"),
        "scopes": list(principal.scopes),
        "user": _profile(principal),
    }
    result: Any = {name: value for name, value in known.items() if value is not None}
    verified: TokenValidationResult = result
    return verified


def _named(value: str | None, *names: str) -> dict[str, str | None]:
    # A claim of a strange type that the principal was not read from must not show through.
    return dict.fromkeys(names, value)


def _profile(principal: Principal) -> dict[str, Any] | None:
    if principal.user_id is None:
        return None
    known = {name: principal.claims[name] for name in _PROFILE if name in principal.claims}
    return {**known, "userId": principal.user_id}
