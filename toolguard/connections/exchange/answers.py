"""Read the answers of a token endpoint (RFC 6749 §5, RFC 8693 §2.2).

All functions are pure. Errors show nothing of an answer but known error codes: any member may
quote a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolguard.connections.exchange.settings import (
    ACCESS_TOKEN,
    JWT,
    ErrorMeaning,
    ExchangeSettings,
)
from toolguard.connections.http import VaultAnswer
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parsing.token_members import read_scopes, read_token, whole_seconds

__all__ = ["read_answer"]


def read_answer(
    answer: VaultAnswer, settings: ExchangeSettings, request: ConnectionRequest, now: float
) -> Connection | ConnectionTokenError:
    """Return the connection, or the error that explains its absence.

    A success is read by RFC 8693 §2.2.1: ``issued_token_type`` is the requested type (an access
    token or a JWT if none was requested), ``token_type`` is Bearer (RFC 6749 §7.1: a token of an
    unknown type is not used), ``expires_in`` is a whole number of seconds or its digits as text,
    absent if it is unknown, and ``scope`` is absent only if it is the requested one.

    A refusal is read by its ``error`` (RFC 6749 §5.2, RFC 8693 §2.2.2).

    Args:
        answer: the answer of the token endpoint.
        settings: the settings of the exchange.
        request: the requested connection.
        now: seconds since the epoch.
    """
    if answer.is_refusal:
        return _refusal(answer, settings, request.name)
    try:
        connection = _read_connection(answer.members, settings, request, now)
    except ValueError as problem:
        message = f"The authorization server's answer for {request.name} {problem}"
    else:
        return _check_usable(connection, settings, request, now)
    return ConnectionResponseError(message, connection=request.name)


def _refusal(answer: VaultAnswer, settings: ExchangeSettings, name: str) -> ConnectionTokenError:
    code = answer.members.get("error")
    meaning: ErrorMeaning | None = settings.find_meaning(code) if isinstance(code, str) else None
    shown = f"{answer.status}, {code}" if meaning else f"{answer.status}"
    if meaning == "connect":
        return ConnectionRequiredError.not_connected(name)
    if meaning == "denied":
        return ConnectionDeniedError(
            f"The authorization server does not give {name} to this caller ({shown})",
            connection=name,
        )
    if meaning == "later":
        return ConnectionUnavailableError(
            f"The authorization server has a problem ({shown}): try again", connection=name
        )
    return ConnectionResponseError(
        f"The authorization server did not accept the request for {name} ({shown})",
        connection=name,
    )


def _read_connection(
    members: Mapping[str, Any], settings: ExchangeSettings, request: ConnectionRequest, now: float
) -> Connection:
    """Read a successful answer.

    Raises:
        ValueError: if the answer is invalid. The text says why, and quotes nothing of the answer.
    """
    token = read_token(members.get("access_token"))
    _check_token_type(members.get("token_type"), settings)
    _check_issued_type(members.get("issued_token_type"), settings)
    lifetime = _read_lifetime(members.get("expires_in"), settings)
    return Connection(
        token,
        scopes=_read_scopes(members.get("scope"), settings, request),
        expires_at=None if lifetime is None else now + lifetime,
    )


def _check_token_type(value: object, settings: ExchangeSettings) -> None:
    if value is None and not settings.strict:
        return
    # RFC 8693 §2.2.1: "N_A" marks a token that is not an access token.
    if not isinstance(value, str) or value.lower() != "bearer":
        raise ValueError("holds no bearer token")


def _check_issued_type(value: object, settings: ExchangeSettings) -> None:
    if value is None and not settings.strict:
        return
    asked = settings.requested_token_type
    if value not in ((ACCESS_TOKEN, JWT) if asked is None else (asked,)):
        raise ValueError("holds another kind of token than was asked for")


def _read_lifetime(value: object, settings: ExchangeSettings) -> float | None:
    if value is None:
        return None
    seconds = whole_seconds(value)
    return seconds if seconds or settings.strict else None


def _read_scopes(
    value: object, settings: ExchangeSettings, request: ConnectionRequest
) -> tuple[str, ...]:
    if value is None:
        if request.scopes and not settings.sends_scope:
            raise ValueError(
                "does not say which scopes the token has: write with_connection() without scopes="
            )
        return request.scopes
    return read_scopes(value)


def _check_usable(
    connection: Connection, settings: ExchangeSettings, request: ConnectionRequest, now: float
) -> Connection | ConnectionTokenError:
    if connection.is_expired(now):
        return ConnectionRequiredError(
            f"The access to {request.name} has expired: connect it again", connection=request.name
        )
    missing = [s for s in request.scopes if not settings.grants(s, connection.scopes)]
    if missing:
        return ConnectionRequiredError.lacking_scopes(request.name, missing)
    return connection
