"""The data classes of the SDK's API: settings, requests and answers."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, TypedDict, TypeVar

from toolguard.connections.descope.project import DescopeProject
from toolguard.connections.protocol import Connection
from toolguard.errors import ToolGuardError
from toolguard.parts.environment import MANAGEMENT_KEY, taken
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

ModelT = TypeVar("ModelT")


def _model(dataclass_: type[ModelT]) -> type[ModelT]:
    """Answer a missing field as the SDK does: with pydantic's ``ValidationError``."""
    make = vars(dataclass_)["__init__"]
    required = [each.name for each in fields(dataclass_) if each.default is MISSING]  # type: ignore[arg-type]

    @functools.wraps(make)
    def checked(self: ModelT, *by_position: Any, **given: Any) -> None:
        missing = [name for name in required if name not in given]
        if missing and not by_position:
            raise _lacks(dataclass_.__name__, missing)
        make(self, *by_position, **given)

    dataclass_.__init__ = checked  # type: ignore[assignment, method-assign]
    return dataclass_


def _lacks(name: str, missing: Sequence[str]) -> ValueError:
    from pydantic_core import ValidationError  # noqa: PLC0415 - only for this mistake

    return ValidationError.from_exception_data(
        # What was given may be a secret.
        name,
        [{"type": "missing", "loc": (each,), "input": None} for each in missing],
        hide_input=True,
    )


@_model
@dataclass(frozen=True, kw_only=True)
class DescopeConfig:
    """The settings of one MCP server.

    Attributes:
        well_known_url: the server's discovery URL, from Descope's console.
        management_key: gives access to the connections of all users, without the vault's
            policies; None for no key. Never in the representation.
        mcp_server_url: the server's own URL, the audience (``aud``) of its access tokens.

    Raises:
        ValueError: if ``well_known_url`` is not a Descope well-known URL.
    """

    well_known_url: str
    management_key: str | None = field(default=None, repr=False)
    mcp_server_url: str | None = None

    def __post_init__(self) -> None:
        DescopeProject.from_well_known_url(self.well_known_url)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> DescopeConfig:
        """Return the settings in the environment.

        The variables are ``DESCOPE_MCP_WELL_KNOWN_URL``, ``DESCOPE_MANAGEMENT_KEY`` and
        ``MCP_SERVER_URL``; an empty variable counts as not set. The management key is removed
        from ``os.environ``, so that libraries and child processes cannot read it.

        Args:
            environ: the environment variables.

        Raises:
            ValueError: if the first is not set, or is not a Descope well-known URL.
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
        """The project, with the base URL of its API."""
        return DescopeProject.from_well_known_url(self.well_known_url)


@_model
@dataclass(frozen=True, kw_only=True)
class TokenRequest:
    """A request to the vault for a token of one outbound app.

    Attributes:
        app_id: the connection's id at Descope, such as ``"google-calendar"``.
        tenant_id: the tenant of the connection.
        scopes: third-party scopes the token must have; None for the latest token with any scopes.
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
            raise ValueError(
                "scopes=[] asks for nothing: leave it out to accept the scopes that were granted"
            )


@_model
@dataclass(frozen=True, kw_only=True)
class UserTokenRequest(TokenRequest):
    """Requests the token of a user, with the attributes of :class:`TokenRequest`.

    Its ``tenant_id`` selects the tenant if there are several.

    Attributes:
        user_id: the user that the token belongs to.

    Raises:
        ValueError: if there is no user.
    """

    user_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.user_id:
            raise ValueError("a user has an id: give the one of a verified token")


@_model
@dataclass(frozen=True, kw_only=True)
class TenantTokenRequest(TokenRequest):
    """Requests the token that all users of a tenant share; see :class:`TokenRequest`.

    Raises:
        ValueError: if there is no tenant.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tenant_id is None:
            raise ValueError("a tenant has an id: give the one of a verified token")


@_model
@dataclass(frozen=True, kw_only=True)
class TokenResponse:
    """A third-party token.

    Attributes:
        token: the token; never in the representation.
        expires_at: when it expires, in seconds since the epoch; None where unknown.
        scopes: the third-party scopes it was granted.
        metadata: the other members of the vault's answer, by their wire names; never in the
            representation, because it contains the refresh token if one was requested.
    """

    token: str = field(repr=False)
    expires_at: int | None = None
    scopes: Sequence[str] | None = None
    metadata: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, connection: Connection, metadata: Mapping[str, Any] | None = None) -> TokenResponse:
        """Return ``connection`` as the SDK's response class.

        Args:
            connection: the connection.
            metadata: the other members of the vault's answer.
        """
        expires_at = connection.expires_at
        return cls(
            token=connection.token,
            expires_at=None if expires_at is None else int(expires_at),
            scopes=list(connection.scopes),
            metadata=metadata,
        )

    def to_json(self) -> str:
        """Return the response as JSON text, with the token."""
        return json.dumps(asdict(self))


@_model
@dataclass(frozen=True, kw_only=True)
class ErrorResponse:
    """An error as data, for JSON answers; the functions of this package raise instead.

    Attributes:
        error: one sentence.
        code: a stable error code for programs.
        details: further facts.
    """

    error: str
    code: str | None = None
    details: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, error: ToolGuardError) -> ErrorResponse:
        """Return the response for ``error``; it contains no token."""
        known = error.to_dict()
        code, sentence = known.pop("error"), known.pop("error_description")
        return cls(error=sentence, code=code, details=known or None)

    def to_json(self) -> str:
        """Return the error as JSON text."""
        return json.dumps(asdict(self))


class TokenValidationResult(TypedDict, total=False):
    """The claims of a verified token, with the SDK's names for the facts in them.

    A key is present if the token has the fact. ``scopes`` is always present, whichever form the
    token uses. Other claims are present under their own names.
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
    """Return the facts of a verified token in the SDK's form.

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
    # A claim of an unexpected type, which the principal ignores, must not show through.
    return dict.fromkeys(names, value)


def _profile(principal: Principal) -> dict[str, Any] | None:
    if principal.user_id is None:
        return None
    known = {name: principal.claims[name] for name in _PROFILE if name in principal.claims}
    return {**known, "userId": principal.user_id}
