"""Read what a token endpoint answers (RFC 6749 §5), with the oddities of its service.

All functions are pure. Errors show nothing of an answer but its status: any member may quote a
token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolguard.connections.http import VaultAnswer
from toolguard.errors import (
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    InvalidTokenError,
)
from toolguard.parsing.token_members import is_token, read_scopes, read_token, whole_seconds
from toolguard.tokens.jws import parse, parse_object
from toolguard.vault.grants import Grant
from toolguard.vault.providers import OAuthProvider

__all__ = ["account_name", "id_token_claims", "read_grant"]

# Schemes that stand for "Bearer": RFC 6750, and the kinds of users and bots at Slack.
_BEARER = frozenset({"bearer", "user", "bot"})
_LATER = frozenset({"temporarily_unavailable", "server_error", "ratelimited", "rate_limited"})


def read_grant(
    answer: VaultAnswer, provider: OAuthProvider, name: str, before: Grant, now: float
) -> Grant | ConnectionTokenError:
    """Return the grant, or the error that explains its absence.

    What an answer leaves out is as before: the scopes (RFC 6749 §5.1) and, at a refresh, the
    refresh token (§6).

    Args:
        answer: the answer of the token endpoint.
        provider: the service.
        name: the name of the connection.
        before: the scopes that were asked for and, at a refresh, the tokens that were sent.
        now: seconds since the epoch.
    """
    code = answer.members.get("error", answer.members.get("status"))
    if answer.is_refusal or "error" in answer.members or answer.members.get("ok") is False:
        return _refusal(answer.status, code, provider, name)
    try:
        return _read(answer.members, provider, before, now)
    except ValueError as problem:
        message = f"The answer of {provider.title} for {name} {problem}"
    return ConnectionResponseError(message, connection=name)


def account_name(members: Mapping[str, Any], provider: OAuthProvider) -> str:
    """Return the name of the account that an answer is about; empty if it does not say."""
    claims = id_token_claims(members.get("id_token"))
    for path in provider.account_names:
        found = _at(members, path) or _at(claims, path)
        if isinstance(found, str) and found:
            return found
    return ""


def _refusal(status: int, code: object, provider: OAuthProvider, name: str) -> ConnectionTokenError:
    if code == "invalid_grant" or (isinstance(code, str) and code in provider.gone):
        return ConnectionRequiredError(
            f"Connect {name} again: {provider.title} no longer accepts what it gave",
            connection=name,
        )
    if isinstance(code, str) and code in _LATER:
        return ConnectionUnavailableError(
            f"{provider.title} has a problem: try again", connection=name
        )
    return ConnectionResponseError(
        f"{provider.title} did not accept the request for {name} ({status})", connection=name
    )


def _read(members: Mapping[str, Any], provider: OAuthProvider, before: Grant, now: float) -> Grant:
    nested = members.get(provider.answer_member) if provider.answer_member else None
    tokens = nested if isinstance(nested, Mapping) and "access_token" in nested else members
    token, refresh_token = read_token(tokens.get("access_token")), tokens.get("refresh_token")
    if refresh_token is not None and not is_token(refresh_token):
        raise ValueError("holds no refresh token that can be read")
    if str(tokens.get("token_type", "bearer")).lower() not in _BEARER:
        raise ValueError("holds no bearer token")
    lifetime, scope = tokens.get("expires_in"), tokens.get("scope")
    separators = f" {provider.scope_separator}"
    return Grant(
        token,
        refresh_token or before.refresh_token,
        scopes=before.scopes
        if scope is None
        else read_scopes(scope, separators, accepts_lists=True),
        expires_at=None if lifetime is None else now + whole_seconds(lifetime),
        account=account_name(members, provider) or before.account,
        obtained_at=now,
    )


def id_token_claims(id_token: object) -> Mapping[str, Any]:
    """Return the claims of an ID token that came from the token endpoint itself.

    Its signature need not be verified (OpenID Connect Core §3.1.3.7); it only names the account.
    """
    if not isinstance(id_token, str):
        return {}
    try:
        return parse_object(parse(id_token).payload)
    except InvalidTokenError:
        return {}


def _at(members: Mapping[str, Any], path: str) -> object:
    found: object = members
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
