"""What is particular about Descope: its URL forms, its token endpoints, its connect flow?

Shapes are those of the public API reference, docs.descope.com/api/management/outbound-apps.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from toolguard.connections.http import (
    Transport,
    VaultAnswer,
    VaultClient,
    VaultRequest,
    secure_origin,
)
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)

__all__ = ["DescopeConnections", "DescopeProject"]

_log = logging.getLogger("toolguard.connections")

_USER_TOKEN = "/v1/mgmt/outbound/app/user/token"  # noqa: S105 - a path
_LATEST_USER_TOKEN = "/v1/mgmt/outbound/app/user/token/latest"  # noqa: S105 - a path
_CONNECT = "/v1/mgmt/outbound/app/connect"

_PROJECT_ID = re.compile(r"P[A-Za-z0-9_-]+")
_SERVER_ID = re.compile(r"[A-Za-z0-9_-]+")
_WELL_KNOWN_PATH = re.compile(
    r"/(?:v1/apps/(?P<agentic>agentic/)?)?"
    rf"(?P<project>{_PROJECT_ID.pattern})(?(agentic)/(?P<server>{_SERVER_ID.pattern}))"
    r"/\.well-known/(?:openid-configuration|oauth-authorization-server)"
)
_EXAMPLE = "https://api.descope.com/v1/apps/agentic/P.../MS.../.well-known/openid-configuration"

_VISIBLE = re.compile(r"[\x21-\x7e]+")
# RFC 9110 §11.1: the name of a scheme is a token.
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# A number of milliseconds would have 13 digits.
_SECONDS = re.compile(r"[0-9]{1,11}")
# Descope's code for "there is no such token in the vault".
_NOT_CONNECTED = "E111504"
_ERROR_CODE = re.compile(r"E[0-9]{3,8}")


@dataclass(frozen=True)
class DescopeProject:
    """What a Descope well-known URL says.

    Attributes:
        base_url: where the API is, such as ``"https://api.descope.com"`` or a custom domain.
        project_id: the project, such as ``"P2abc"``.
        mcp_server_id: the MCP server, where the URL is that of one.
        well_known_url: the URL itself.

    Raises:
        ValueError: if ``base_url`` is not a secure origin, or an identifier is not one.
    """

    base_url: str
    project_id: str
    mcp_server_id: str | None
    well_known_url: str

    def __post_init__(self) -> None:
        if self.base_url != secure_origin(self.base_url):
            raise ValueError('write base_url="https://api.descope.com": an origin without a path')
        if not _PROJECT_ID.fullmatch(self.project_id):
            raise ValueError('write project_id="P...": letters and digits that begin with P')
        if self.mcp_server_id is not None and not _SERVER_ID.fullmatch(self.mcp_server_id):
            raise ValueError('write mcp_server_id="MS...": letters and digits, or None')

    @classmethod
    def from_well_known_url(cls, url: str) -> DescopeProject:
        """Return what ``url`` says: of a project, of its inbound apps, or of an MCP server.

        Raises:
            ValueError: if it has none of the three forms, or is plain http to another machine.
            TypeError: if it is not a string.

        >>> project = DescopeProject.from_well_known_url(
        ...     "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration"
        ... )
        >>> project.base_url, project.project_id, project.mcp_server_id
        ('https://api.descope.com', 'P2abc', 'MS3d')
        """
        if not isinstance(url, str):
            raise TypeError(f"a well-known URL is a string: write {_EXAMPLE!r}")
        origin = secure_origin(url)
        if origin is None:
            raise ValueError(
                "a well-known URL is https without user name and password (http only on this "
                f"machine): write one such as {_EXAMPLE!r}"
            )
        match = _WELL_KNOWN_PATH.fullmatch(url, pos=len(origin))
        if match is None:
            raise ValueError(
                "not a well-known URL of Descope: copy it from the console, such as "
                f"{_EXAMPLE!r}, '.../v1/apps/P.../.well-known/openid-configuration' or "
                "'.../P.../.well-known/openid-configuration'"
            )
        return cls(origin, match["project"], match["server"], url)


class DescopeConnections:
    """Connections from Descope's vault ("outbound apps"), fetched with the caller's own token.

    So the vault's policy decides for this user and this client; the caller's token has to carry
    the scope ``outbound.token.fetch``. A user is asked for as the verified principal, never as
    anything a client sent.

    Args:
        project: the project, or a well-known URL of it.
        management_key: used only where the caller has no access token (a trusted stdio server),
            each time with a line in the log "toolguard.connections". Policies do not bind it.
        timeout: seconds for one request to the vault.
        transport: carries the requests instead of sockets.
        clock: gives seconds since the epoch.

    Raises:
        ValueError: if one of these cannot be used.
    """

    def __init__(
        self,
        project: DescopeProject | str,
        *,
        management_key: str | None = None,
        timeout: float = 10.0,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(project, DescopeProject):
            project = DescopeProject.from_well_known_url(project)
        if management_key is not None and not _VISIBLE.fullmatch(management_key):
            raise ValueError("a management key is one word; write management_key=None for none")
        self._project = project
        self._management_key = management_key
        self._clock = clock
        self._vault = VaultClient(timeout=timeout, transport=transport, clock=clock)

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the user's connection: by scopes if the request names some, else the latest.

        Raises:
            ConnectionRequiredError: if the user has not connected the account, or with fewer
                scopes, or the access has expired; with a connect URL where the vault gave one.
            ConnectionDeniedError: if the vault's policy says no, or the caller is no user.
            ConnectionRateLimitedError: if the vault asks to come back later.
            ConnectionUnavailableError: if the vault does not answer in time.
            ConnectionResponseError: if the answer makes no sense.
        """
        asked = self._token_request(request)
        outcome = _outcome(await self._vault.post(asked), request, self._clock())
        if isinstance(outcome, Connection):
            return outcome
        if isinstance(outcome, ConnectionRequiredError):
            outcome.connect_url = await self._connect_url(request, asked)
        raise outcome

    def _token_request(self, request: ConnectionRequest) -> VaultRequest:
        if not request.principal.user_id:
            raise ConnectionDeniedError(
                f"{request.name} belongs to a user, and this caller is none",
                connection=request.name,
            )
        authorization = self._authorization(request)
        if authorization is None:
            raise ConnectionDeniedError(
                f"{request.name} needs an access token of the caller, or a management key",
                connection=request.name,
            )
        body = {
            "appId": request.name,
            "userId": request.principal.user_id,
            "options": {"withRefreshToken": False, "forceRefresh": False},
        }
        if request.scopes:
            url, body["scopes"] = self._project.base_url + _USER_TOKEN, [*request.scopes]
        else:
            url = self._project.base_url + _LATEST_USER_TOKEN
        return VaultRequest(request.name, url, body, authorization)

    def _authorization(self, request: ConnectionRequest) -> str | None:
        credential = request.access_token
        if credential is None and self._management_key is not None:
            credential = self._management_key
            _log.info(
                "management key used for connection %r of user %r",
                request.name,
                request.principal.user_id,
            )
        if credential is None or not _VISIBLE.fullmatch(credential):
            return None
        return f"Bearer {self._project.project_id}:{credential}"

    async def _connect_url(self, request: ConnectionRequest, asked: VaultRequest) -> str | None:
        # The vault connects whoever shows the credential; a management key is nobody.
        if request.access_token is None:
            return None
        options = {"scopes": [*request.scopes]} if request.scopes else {}
        body = {"appId": request.name, "options": options}
        try:
            answer = await self._vault.post(
                replace(asked, url=self._project.base_url + _CONNECT, body=body)
            )
        except ConnectionTokenError:
            return None
        url = None if answer.is_refusal else answer.members.get("url")
        return url if isinstance(url, str) and secure_origin(url) is not None else None

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later fetch opens new ones."""
        await self._vault.aclose()

    def __repr__(self) -> str:
        return f"<DescopeConnections: {self._project.project_id} at {self._project.base_url}>"


def _outcome(
    answer: VaultAnswer, request: ConnectionRequest, now: float
) -> Connection | ConnectionTokenError:
    if answer.is_refusal:
        return _refusal(answer, request.name)
    connection = _connection(answer.members.get("token"))
    if connection is None:
        return ConnectionResponseError(
            "The vault's answer holds no token that can be read", connection=request.name
        )
    if connection.is_expired(now):
        return ConnectionRequiredError(
            f"The access to {request.name} has expired: connect it again", connection=request.name
        )
    missing = [scope for scope in request.scopes if scope not in connection.scopes]
    if missing:
        return ConnectionRequiredError(
            f"Connect {request.name} again and allow what is missing",
            connection=request.name,
            missing_scopes=missing,
        )
    return connection


def _refusal(answer: VaultAnswer, name: str) -> ConnectionTokenError:
    code = answer.members.get("errorCode")
    if answer.status == 404 or (answer.status == 400 and code == _NOT_CONNECTED):  # noqa: PLR2004
        return ConnectionRequiredError(f"Connect {name} first, then try again", connection=name)
    if answer.status in (401, 403):
        return ConnectionDeniedError(
            f"The vault does not give {name} to this caller: the access token needs the scope "
            "outbound.token.fetch, and the vault's policy has to allow it",
            connection=name,
        )
    # Only what looks like a code: a vault may quote the credential in its descriptions.
    shown = f", {code}" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
    return ConnectionResponseError(
        f"The vault did not understand the request for {name} ({answer.status}{shown})",
        connection=name,
    )


def _connection(token: object) -> Connection | None:
    if not isinstance(token, dict):
        return None
    secret, scopes = token.get("accessToken"), token.get("scopes") or []
    scheme = token.get("accessTokenType") or "Bearer"
    if not (isinstance(secret, str) and _VISIBLE.fullmatch(secret)):
        return None
    if not (isinstance(scheme, str) and _SCHEME.fullmatch(scheme)):
        return None
    if not (isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)):
        return None
    try:
        expires_at = _expiry(token.get("accessTokenExpiry"))
    except ValueError:
        return None
    # Providers write `bearer` in any case; many APIs accept only this one.
    token_type = "Bearer" if scheme.lower() == "bearer" else scheme
    return Connection(secret, token_type, tuple(scopes), expires_at)


def _expiry(value: object) -> float | None:
    """Read seconds since the epoch; absent, empty and 0 (proto3's "not set") mean unknown.

    Raises:
        ValueError: for anything else.
    """
    text = "0" if value is None or value == "" else str(value)
    if not _SECONDS.fullmatch(text):
        raise ValueError("not a number of seconds")
    return float(text) or None
