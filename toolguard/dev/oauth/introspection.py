"""Token introspection (RFC 7662) and revocation (RFC 7009)."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toolguard.dev.oauth.clients import Client, authenticate_client, authenticate_resource
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import (
    AuthorizationGrant,
    grant_of_access_token,
    refresh_token_grant,
    revoke_access_token,
    revoke_grant,
)
from toolguard.dev.oauth.parameters import read_form
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.tokens import IssuedTokenVerifier
from toolguard.errors import InvalidTokenError

__all__ = ["introspect", "revoke"]


async def introspect(context: ServerContext, request: Request) -> Response:
    """Answer introspection for a token of the requesting server; others are inactive."""
    form = await read_form(request)
    server = authenticate_resource(context, request, form)
    try:
        principal = await IssuedTokenVerifier(context, [server.url]).verify_either(
            form.require("token")
        )
    except InvalidTokenError:
        # RFC 7662 §2.2: not why.
        return JSONResponse({"active": False})
    kind = "Bearer" if principal.jkt is None else "DPoP"
    answer: dict[str, Any] = {"active": True, "token_type": kind, **principal.claims}
    return JSONResponse(answer)


async def revoke(context: ServerContext, request: Request) -> Response:
    """Revoke a token of the client that asks: with a refresh token, its whole family.

    A token that is not known is answered like one that was (RFC 7009 §2.2); one of another
    client is refused (§2.1).
    """
    form = await read_form(request)
    client = authenticate_client(context, request, form)
    token = form.require("token")
    found = refresh_token_grant(context, token)
    if found is not None:
        _check_owner(found[0], client)
        revoke_grant(context, found[0].grant_id)
    else:
        await _revoke_access_token(context, token, client)
    return Response(status_code=200)


async def _revoke_access_token(context: ServerContext, token: str, client: Client) -> None:
    known = [resource.url for resource in context.world.resources]
    try:
        principal = await IssuedTokenVerifier(context, known).verify_either(token)
    except InvalidTokenError:
        return
    jti = str(principal.claims["jti"])
    grant = grant_of_access_token(context, jti)
    if grant is not None:
        _check_owner(grant, client)
        revoke_access_token(context, jti)


def _check_owner(grant: AuthorizationGrant, client: Client) -> None:
    if grant.client_id != client.client_id:
        raise Refusal("invalid_grant", "The token was issued to another client")
