"""Credentials of the server at GitHub: an installation of its app."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

from toolguard.connections.http import VaultAnswer, VaultRequest
from toolguard.connections.protocol import Connection
from toolguard.connections.server.source import SourceRequest, lacking
from toolguard.connections.signing import PrivateKey, SigningKey
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
)
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.parsing.token_members import moment, read_token

__all__ = ["GitHubInstallation"]

# GitHub accepts ten minutes, and advises to set "iat" back by one for clocks that differ.
_BACK, _ASSERTION_LIFETIME = 60, 300
_LEVELS = ("read", "write", "admin")
_REMEDIES: Mapping[int, str] = {
    401: "check the id and the key of the app, and this machine's clock",
    403: "the app is suspended, or may not do this",
    404: "check the id of the installation: the app may have been uninstalled",
    422: "the installation has not these permissions, or not these repositories",
}


class GitHubInstallation:
    """A token for an installation of a GitHub App.

    The app signs a JWT, and gets a token of an hour for it. The scopes of the connection are its
    permissions, such as ``contents:read``; a tool that declares some gets a token with those only.
    A higher level includes the lower ones. Documented at
    https://docs.github.com/en/rest/apps/apps#create-an-installation-access-token-for-an-app ::

        GitHubInstallation("Iv23liExample", os.environ["GITHUB_APP_KEY"], 1234567)

    Args:
        app_id: the client id of the app, or its id.
        private_key: the key of the app, or its PEM text.
        installation_id: the id of the installation.
        permissions: the permissions to ask for where a tool declares none, such as
            ``{"contents": "read"}``; without them, all that the installation has.
        repositories: the names of the repositories; without them, all of the installation.
        api_url: the URL of the API; for GitHub Enterprise Server, ``https://HOST/api/v3``.

    Raises:
        ValueError: if one of these cannot be used.
        TypeError: if ``repositories`` is a string.
    """

    owner: Literal["server"] = "server"

    def __init__(
        self,
        app_id: str | int,
        private_key: str | bytes | PrivateKey,
        installation_id: int,
        *,
        permissions: Mapping[str, str] | None = None,
        repositories: Sequence[str] = (),
        api_url: str = "https://api.github.com",
    ) -> None:
        if not app_id or not isinstance(installation_id, int):
            raise ValueError('write GitHubInstallation("Iv23li...", private_key, 1234567)')
        if isinstance(repositories, str):
            raise TypeError(f"repositories are a list: write [{repositories!r}]")
        if not is_secure_url(api_url):
            raise ValueError('write api_url="https://github.example.com/api/v3"')
        for level in (permissions or {}).values():
            if level not in _LEVELS:
                raise ValueError(f"{level!r}: a permission is {', '.join(_LEVELS)}")
        self._app_id = str(app_id)
        self._key = SigningKey(private_key, "RS256")
        self._url = f"{api_url.rstrip('/')}/app/installations/{installation_id}/access_tokens"
        self._permissions = dict(permissions or {})
        self._repositories = list(repositories)

    @property
    def identity(self) -> str:
        """The app, the installation, and what the token is limited to."""
        facts = [self._app_id, self._url, self._permissions, self._repositories]
        return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    async def issue(self, request: SourceRequest) -> Connection | ConnectionTokenError:
        """Return a new token, or the error that explains its absence.

        Args:
            request: what is asked for.

        Raises:
            ConnectionTokenError: if GitHub cannot be asked.
        """
        permissions = _permissions(request.scopes)
        if permissions is None:
            return ConnectionResponseError(
                f"{request.connection} has permissions for scopes: write "
                'scopes=["contents:read", "issues:write"]',
                connection=request.connection,
            )
        prepared = self._prepared(request, permissions or self._permissions)
        return _read(await request.http.post(prepared), request)

    def _prepared(self, request: SourceRequest, permissions: Mapping[str, str]) -> VaultRequest:
        issued_at = math.floor(request.clock()) - _BACK
        claims = {
            "iss": self._app_id,
            "iat": issued_at,
            "exp": issued_at + _BACK + _ASSERTION_LIFETIME,
        }
        limits = {"permissions": dict(permissions), "repositories": self._repositories}
        return VaultRequest(
            request.connection,
            self._url,
            {name: value for name, value in limits.items() if value},
            f"Bearer {self._key.sign(claims)}",
            is_idempotent=True,
        )

    def __repr__(self) -> str:
        return f"<GitHubInstallation: {self._app_id} at {self._url.rpartition('/')[0]}>"


def _permissions(scopes: Sequence[str]) -> dict[str, str] | None:
    """Return scopes such as ``contents:read`` as permissions; None if one is no permission.

    Of one permission at several levels the highest counts.
    """
    found: dict[str, str] = {}
    for scope in scopes:
        name, _, level = scope.partition(":")
        if not name or level not in _LEVELS:
            return None
        found[name] = max(level, found.get(name, level), key=_LEVELS.index)
    return found


def _read(answer: VaultAnswer, request: SourceRequest) -> Connection | ConnectionTokenError:
    name = request.connection
    if answer.is_refusal:
        return _refusal(answer, name)
    try:
        connection = _connection(answer.members)
    except ValueError as fault:
        problem = str(fault)
    else:
        missing = [each for each in request.scopes if each not in connection.scopes]
        return lacking(request, missing) if missing else connection
    return ConnectionResponseError(f"GitHub's answer for {name} {problem}", connection=name)


def _refusal(answer: VaultAnswer, name: str) -> ConnectionTokenError:
    # GitHub's limit on requests is a 403 or a 429, and the former says so in its text only.
    said = answer.members.get("message")
    if answer.status == 403 and isinstance(said, str) and "rate limit" in said.lower():  # noqa: PLR2004
        return ConnectionRateLimitedError(
            f"GitHub is asked too often for {name}: try again later", connection=name
        )
    remedy = _REMEDIES.get(answer.status)
    shown = f"{answer.status}): {remedy}" if remedy else f"{answer.status})"
    return ConnectionResponseError(
        f"GitHub did not give {name} to the server ({shown}", connection=name
    )


def _connection(members: Mapping[str, Any]) -> Connection:
    token, permissions = read_token(members.get("token")), members.get("permissions", {})
    if not isinstance(permissions, Mapping):
        raise ValueError("names permissions in a way that cannot be read")  # noqa: TRY004 - of the answer
    expires_at = moment(members.get("expires_at"))
    return Connection(token, scopes=_held(permissions), expires_at=expires_at)


def _held(permissions: Mapping[str, Any]) -> tuple[str, ...]:
    """Return permissions as scopes, each with the lower levels that it includes."""
    return tuple(
        f"{name}:{each}"
        for name, level in permissions.items()
        if level in _LEVELS
        for each in _LEVELS[: _LEVELS.index(level) + 1]
    )
