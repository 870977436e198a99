"""Token exchange for protected servers (RFC 8693).

The server has to authenticate as the audience of the token. It gets a token for another server,
with at most the same scopes and lifetime; or the caller's third-party connection from the vault.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from toolguard.connections.descope.project import FETCH_SCOPE
from toolguard.connections.protocol import Connection, ConnectionProvider, ConnectionRequest
from toolguard.dev.oauth.clients import authenticate_resource
from toolguard.dev.oauth.config import ProtectedResource
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import grant_of_access_token, keep_access_token
from toolguard.dev.oauth.parameters import Parameters
from toolguard.dev.oauth.policies import UserFacts
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.tokens import Authorization, IssuedTokenVerifier, access_token_claims
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionTokenError,
    InvalidTokenError,
)
from toolguard.principal import Principal

__all__ = ["TOKEN_EXCHANGE", "exchange_token"]

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a grant type
"""The grant type (RFC 8693 §2.1)."""

_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a token type
_JWT = "urn:ietf:params:oauth:token-type:jwt"


async def exchange_token(
    context: ServerContext, vault: ConnectionProvider | None, request: Request, form: Parameters
) -> dict[str, Any]:
    """Return the answer to a token exchange (RFC 8693 §2.2.1).

    Raises:
        Refusal: if it is not to be had, with the codes of RFC 8693 §2.2.2; with
            ``interaction_required`` and perhaps ``connect_url`` where the user has to connect.
    """
    server = authenticate_resource(context, request, form)
    token = _subject_token(form)
    try:
        caller = await IssuedTokenVerifier(context, [server.url]).verify_either(token)
    except InvalidTokenError:
        raise Refusal(
            "invalid_request", "subject_token is not a valid token for this client"
        ) from None
    target = _target(form)
    scopes = tuple(dict.fromkeys((form.get("scope") or "").split()))
    resource = context.world.resource(target)
    if resource is not None:
        return _downstream(context, caller, server, resource, scopes)
    if vault is None:
        raise Refusal("invalid_target", "No resource or connection has this name")
    if FETCH_SCOPE not in caller.scopes:
        raise Refusal("invalid_scope", f"subject_token lacks the scope {FETCH_SCOPE}")
    wanted = ConnectionRequest(target, scopes, caller, token)
    connection = await _connection(vault, wanted)
    expires_in = None
    if connection.expires_at is not None:
        expires_in = max(0, int(connection.expires_at - context.clock()))
    return _answer(connection.token, connection.token_type, connection.scopes, expires_in)


def _subject_token(form: Parameters) -> str:
    token = form.require("subject_token")
    if form.require("subject_token_type") not in (_ACCESS_TOKEN, _JWT):
        raise Refusal("invalid_request", "subject_token_type must be that of an access token")
    if form.get("requested_token_type") not in (None, _ACCESS_TOKEN):
        raise Refusal("invalid_request", "Only access tokens are issued")
    if form.get("actor_token") or form.get("actor_token_type"):
        raise Refusal("invalid_request", "The actor is the server that asks; send no actor_token")
    return token


def _target(form: Parameters) -> str:
    targets = {*form.every("resource"), *form.every("audience")}
    if len(targets) != 1:
        raise Refusal("invalid_target", "Name one resource or one audience")
    return targets.pop()


def _downstream(
    context: ServerContext,
    caller: Principal,
    server: ProtectedResource,
    resource: ProtectedResource,
    scopes: tuple[str, ...],
) -> dict[str, Any]:
    granted = scopes or caller.scopes
    if not set(granted) <= set(caller.scopes):
        raise Refusal("invalid_scope", "The scope is more than subject_token has")
    grant = grant_of_access_token(context, str(caller.claims["jti"]))
    if grant is None or caller.user_id is None:
        raise Refusal("invalid_request", "subject_token belongs to no grant")
    facts = UserFacts(caller.tenant_ids, caller.permissions)
    authorization = Authorization(caller.user_id, server.client_id, resource.url, granted, facts)
    claims = access_token_claims(context, authorization, expires_at=caller.expires_at)
    # RFC 8693 §4.1: who acts for the user now, and before.
    before = caller.claims.get("act")
    claims["act"] = {"sub": server.client_id, **({"act": before} if before else {})}
    keep_access_token(context, claims["jti"], grant, claims["exp"])
    return _answer(context.keys.sign(claims), "Bearer", granted, claims["exp"] - claims["iat"])


async def _connection(vault: ConnectionProvider, wanted: ConnectionRequest) -> Connection:
    try:
        return await vault.fetch(wanted)
    except ConnectionRequiredError as error:
        details = {"connect_url": error.connect_url} if error.connect_url else {}
        raise Refusal("interaction_required", str(error), details=details) from None
    except ConnectionDeniedError:
        raise Refusal(
            "invalid_target", "The vault does not give this connection to this caller"
        ) from None
    except ConnectionTokenError:
        raise Refusal("temporarily_unavailable", "The vault did not answer", status=503) from None


def _answer(
    token: str, token_type: str, scopes: tuple[str, ...], expires_in: int | None
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "access_token": token,
        "issued_token_type": _ACCESS_TOKEN,
        "token_type": token_type,
        "scope": " ".join(scopes),
    }
    return answer if expires_in is None else {**answer, "expires_in": expires_in}
