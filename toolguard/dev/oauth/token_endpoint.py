"""The token endpoint (RFC 6749 §3.2)."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toolguard.connections.protocol import ConnectionProvider
from toolguard.dev.oauth.clients import Client, authenticate_client
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.exchange import TOKEN_EXCHANGE, exchange_token
from toolguard.dev.oauth.grants import (
    AuthorizationGrant,
    CodeProof,
    find_refresh_token,
    keep_access_token,
    new_refresh_token,
    redeem_code,
    use_refresh_token,
)
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.machines import CLIENT_CREDENTIALS, JWT_BEARER, token_for_machine
from toolguard.dev.oauth.openid import id_token_claims, identity_scopes
from toolguard.dev.oauth.parameters import Parameters, read_form
from toolguard.dev.oauth.policies import decide
from toolguard.dev.oauth.proof_keys import proof_key
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.tokens import Authorization, access_token_claims

__all__ = ["answer_token_request"]

# RFC 7636 §4.1
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")


async def answer_token_request(
    context: ServerContext, vault: ConnectionProvider | None, request: Request
) -> Response:
    """Answer the token endpoint (RFC 6749 §3.2)."""
    form = await read_form(request)
    grant_type = form.require("grant_type")
    if grant_type == TOKEN_EXCHANGE:
        return JSONResponse(await exchange_token(context, vault, request, form))
    if grant_type in (CLIENT_CREDENTIALS, JWT_BEARER) and context.world.machines:
        return JSONResponse(await token_for_machine(context, request, form))
    if grant_type not in ("authorization_code", "refresh_token"):
        raise Refusal("unsupported_grant_type", "This grant type is not supported")
    client = authenticate_client(context, request, form)
    if grant_type not in client.grant_types:
        raise Refusal("unauthorized_client", f"The client has not registered for {grant_type}")
    key = proof_key(context, request)
    if key is None and client.dpop_bound:
        # RFC 9449 §5.2.
        raise Refusal("invalid_dpop_proof", "The client has registered for tokens bound to a key")
    answer = _from_code if grant_type == "authorization_code" else _from_refresh_token
    return JSONResponse(answer(context, client, form, key))


def _from_code(
    context: ServerContext, client: Client, form: Parameters, key: str | None
) -> dict[str, Any]:
    verifier = form.require("code_verifier")
    if not _VERIFIER.fullmatch(verifier):
        raise Refusal("invalid_grant", "code_verifier must be 43 to 128 unreserved characters")
    proof = CodeProof(client.client_id, form.get("redirect_uri"), verifier)
    grant = redeem_code(context, form.require("code"), proof)
    _check_resource(context, grant, form)
    return _issue(context, client, grant, grant.scopes, key)


def _from_refresh_token(
    context: ServerContext, client: Client, form: Parameters, key: str | None
) -> dict[str, Any]:
    token = form.require("refresh_token")
    grant = find_refresh_token(context, token, client.client_id, key)
    _check_resource(context, grant, form)
    scope = form.get("scope")
    scopes = grant.scopes if scope is None else tuple(dict.fromkeys(scope.split(" ")))
    if not set(scopes) <= set(grant.scopes):
        # RFC 6749 §6: never more than the user gave.
        raise Refusal("invalid_scope", "The scope is more than was granted")
    use_refresh_token(context, token, grant)
    return _issue(context, client, grant, scopes, key)


def _check_resource(context: ServerContext, grant: AuthorizationGrant, form: Parameters) -> None:
    for url in form.every("resource"):
        resource = context.world.resource(url)
        if resource is None or resource.url != grant.resource:
            raise Refusal("invalid_target", "The grant is for another resource")


def _issue(
    context: ServerContext,
    client: Client,
    grant: AuthorizationGrant,
    scopes: tuple[str, ...],
    key: str | None,
) -> dict[str, Any]:
    """Return the token response (RFC 6749 §5.1), after asking the policy again."""
    user = context.world.user(grant.user_id)
    is_known = grant.resource == context.issuer or context.world.resource(grant.resource)
    if user is None or not is_known:
        raise Refusal("invalid_grant", "The user or the resource of the grant no longer exists")
    facts = collect_facts(context.world, user)
    allowed = decide(context.world.rules, facts, scopes).granted
    identity = identity_scopes(context.world, scopes)
    asked, scopes = scopes, tuple(scope for scope in scopes if scope in allowed)
    if asked and not scopes and not identity:
        raise Refusal("invalid_grant", "The policy no longer grants any of these scopes")
    authorization = Authorization(user.id, client.client_id, grant.resource, scopes, facts, key)
    claims = access_token_claims(context, authorization, expires_at=grant.expires_at)
    keep_access_token(context, claims["jti"], grant, claims["exp"])
    answer = {
        "access_token": context.keys.sign(claims),
        "token_type": authorization.token_type,
        "expires_in": claims["exp"] - claims["iat"],
        "scope": " ".join((*identity, *scopes)),
    }
    if "openid" in (*identity, *scopes):
        answer["id_token"] = context.keys.sign(id_token_claims(context, grant, user), kind="JWT")
    if "refresh_token" in client.grant_types:
        answer["refresh_token"] = new_refresh_token(
            context, grant, None if client.secret_digest else key
        )
    return answer
