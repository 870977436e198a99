"""Read the answers of Descope's vault.

Pure functions of the answer, the request and the time.
"""

from __future__ import annotations

import re
from typing import Any

from toolguard.connections.descope.models import TokenRequest, TokenResponse, UserTokenRequest
from toolguard.connections.http import VaultAnswer
from toolguard.connections.protocol import Connection
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)
from toolguard.parsing.token_members import is_token, whole_seconds

__all__ = ["read_answer", "token_response"]

# RFC 9110 §11.1: the name of a scheme is a token.
_SCHEME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Descope's code for "there is no such token in the vault".
_NOT_CONNECTED = "E111504"
_ERROR_CODE = re.compile(r"E[0-9]{3,8}")
_IN_THE_RESPONSE_ITSELF = frozenset({"accessToken", "accessTokenExpiry", "scopes"})


def read_answer(
    answer: VaultAnswer, asked: TokenRequest, now: float
) -> Connection | ConnectionTokenError:
    """Return the connection in ``answer``, or the error that explains its absence.

    Args:
        answer: the answer of the vault.
        asked: the request that it answers.
        now: seconds since the epoch.
    """
    name = asked.app_id
    if answer.is_refusal:
        return _read_refusal(answer, asked)
    token = answer.members.get("token")
    named = _another(token, asked)
    if named is not None:
        return ConnectionResponseError(
            f"The vault's answer names another {named} than it was asked for", connection=name
        )
    connection = _read_connection(token)
    if connection is None:
        return ConnectionResponseError(
            "The vault's answer holds no token that can be read", connection=name
        )
    if connection.is_expired(now):
        return ConnectionRequiredError(
            f"The access to {name} has expired: {_instruction(asked)} it again", connection=name
        )
    missing = [scope for scope in asked.scopes or () if scope not in connection.scopes]
    if missing:
        return ConnectionRequiredError(
            _sentence(f"{_instruction(asked)} {name} again and allow what is missing"),
            connection=name,
            missing_scopes=missing,
        )
    return connection


def token_response(
    connection: Connection, answer: VaultAnswer, *, with_refresh_token: bool
) -> TokenResponse:
    """Return ``connection`` with the other members of the answer it was read from."""
    said: dict[str, Any] = answer.members["token"]
    left_out = _IN_THE_RESPONSE_ITSELF | (set() if with_refresh_token else {"refreshToken"})
    metadata = {k: v for k, v in said.items() if k not in left_out and v != ""}
    return TokenResponse.of(connection, metadata)


def _instruction(asked: TokenRequest) -> str:
    if isinstance(asked, UserTokenRequest):
        return "connect"
    return "ask an administrator of your tenant to connect"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _read_refusal(answer: VaultAnswer, asked: TokenRequest) -> ConnectionTokenError:
    name, code = asked.app_id, answer.members.get("errorCode")
    # A 404 of a proxy, or of a wrong URL, says nothing about the user.
    if answer.status in (400, 404) and code == _NOT_CONNECTED:
        return ConnectionRequiredError(
            _sentence(f"{_instruction(asked)} {name} first, then try again"), connection=name
        )
    if answer.status in (401, 403):
        return ConnectionDeniedError(
            f"The vault does not give {name} to this caller: the access token needs the scope "
            "outbound.token.fetch, and the vault's policy has to allow it",
            connection=name,
        )
    # Only text in the form of an error code: descriptions may quote the credential.
    shown = f", {code}" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""
    return ConnectionResponseError(
        f"The vault did not understand the request for {name} ({answer.status}{shown})",
        connection=name,
    )


def _another(token: object, asked: TokenRequest) -> str | None:
    """Return which member of the answer names something else than was asked for, if it says so."""
    if not isinstance(token, dict):
        return None
    expected = {"appId": asked.app_id, "tenantId": asked.tenant_id}
    if isinstance(asked, UserTokenRequest):
        expected["userId"] = asked.user_id
    for member, value in expected.items():
        # Absent and empty (proto3's "not set") name nothing.
        if value is not None and token.get(member) not in (None, "", value):
            return member
    return None


def _read_connection(token: object) -> Connection | None:
    if not isinstance(token, dict):
        return None
    secret, scopes = token.get("accessToken"), token.get("scopes") or []
    scheme = token.get("accessTokenType") or "Bearer"
    if not is_token(secret):
        return None
    if not (isinstance(scheme, str) and _SCHEME.fullmatch(scheme)):
        return None
    if not (isinstance(scopes, list) and all(isinstance(scope, str) for scope in scopes)):
        return None
    # Absent, empty and 0 (proto3's "not set") mean unknown.
    expiry = token.get("accessTokenExpiry")
    try:
        expires_at = whole_seconds(0 if expiry is None or expiry == "" else expiry) or None
    except ValueError:
        return None
    # Providers write `bearer` in any case; many APIs accept only "Bearer".
    token_type = "Bearer" if scheme.lower() == "bearer" else scheme
    return Connection(secret, token_type, tuple(scopes), expires_at)
