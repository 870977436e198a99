"""Tokens for machines: client credentials, and the JWT bearer grant of an identity provider.

A machine is a client of the world that has no browser. It proves itself with a secret or with an
assertion of its key (RFC 7523 §2.2), and gets a token of its own (RFC 6749 §4.4), or one for a user
whom an identity provider has named to it (RFC 7523 §2.1, with the ID-JAG of the draft "Identity
Assertion JWT Authorization Grant").
"""

from __future__ import annotations

import hmac
from typing import Any

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from starlette.requests import Request

from toolguard.dev.oauth.clients import client_credentials, unknown_client
from toolguard.dev.oauth.config import Machine, ProtectedResource
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.direct import issue_directly
from toolguard.dev.oauth.grants import use_assertion
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.parameters import Parameters
from toolguard.dev.oauth.policies import UserFacts, decide
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.tokens import Authorization
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.tokens.issuers import Issuer
from toolguard.tokens.jwt import DEFAULT_ALGORITHMS
from toolguard.tokens.keys import StaticKeys
from toolguard.tokens.trust import trusted

__all__ = ["CLIENT_CREDENTIALS", "ID_JAG", "JWT_BEARER", "token_for_machine"]

CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ID_JAG = "oauth-id-jag+jwt"
"""The ``typ`` of an identity assertion that is a grant."""

_MAX_LIFETIME = 300
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


async def token_for_machine(
    context: ServerContext, request: Request, form: Parameters
) -> dict[str, Any]:
    """Return the answer to client credentials, or to a JWT bearer grant.

    Raises:
        Refusal: if the machine has not proved itself, or may not have this token.
    """
    machine = _authenticate(context, request, form)
    if form.require("grant_type") == JWT_BEARER:
        return await _for_user(context, machine, form)
    scopes = _scopes(form, machine.scopes)
    resource = _resource(context, form.get("resource"))
    name = machine.client_id
    return issue_directly(context, Authorization(name, name, resource.url, scopes, UserFacts()))


def _authenticate(context: ServerContext, request: Request, form: Parameters) -> Machine:
    assertion = form.get("client_assertion")
    if assertion is not None:
        if "authorization" in request.headers or form.get("client_secret") is not None:
            # RFC 6749 §2.3: one method per request.
            raise Refusal("invalid_request", "Authenticate by one method only")
        if form.get("client_assertion_type") != _ASSERTION_TYPE:
            raise Refusal("invalid_request", f"client_assertion_type must be {_ASSERTION_TYPE}")
        return _by_assertion(context, assertion, form.get("client_id"))
    client_id, secret = client_credentials(request, form)
    machine = context.world.machine(client_id)
    expected = None if machine is None else machine.client_secret
    if machine is None or expected is None or secret is None:
        raise unknown_client()
    if not hmac.compare_digest(secret.encode(), expected.encode()):
        raise unknown_client()
    return machine


def _by_assertion(context: ServerContext, assertion: str, named: str | None) -> Machine:
    """Return the machine whose key signed an assertion for this server (RFC 7523 §3)."""
    try:
        stated = jwt.decode(assertion, options={"verify_signature": False})
        machine = context.world.machine(str(stated.get("sub")))
        if machine is None or machine.public_key is None:
            raise unknown_client()
        key: Any = load_pem_public_key(machine.public_key.encode())
        claims = jwt.decode(
            assertion,
            key,
            algorithms=[name for name in DEFAULT_ALGORITHMS if name != "Ed25519"],
            audience=[context.issuer, context.url("token")],
            issuer=machine.client_id,
            # The clock of the server, which tests stop.
            options={"require": ["exp", "jti"], "verify_exp": False, "verify_iat": False},
        )
    except (jwt.PyJWTError, TypeError, ValueError):
        raise unknown_client() from None
    left = claims["exp"] - context.clock() if isinstance(claims["exp"], int) else 0
    is_current = 0 < left <= _MAX_LIFETIME
    if not is_current or named not in (None, machine.client_id):
        raise unknown_client()
    if not use_assertion(context, machine.client_id, claims["jti"], claims["exp"]):
        raise unknown_client()
    return machine


async def _for_user(context: ServerContext, machine: Machine, form: Parameters) -> dict[str, Any]:
    caller = await _named_by_provider(context, machine, form.require("assertion"))
    user = context.world.user(caller.user_id or "")
    if user is None:
        raise Refusal("invalid_grant", "The assertion names a user that is not known here")
    resource = _resource(context, caller.claims.get("resource"), form.get("resource"))
    facts = collect_facts(context.world, user)
    asked = _scopes(form, caller.scopes or machine.scopes)
    granted = decide(context.world.rules, facts, asked).granted
    scopes = tuple(each for each in asked if each in granted and each in machine.scopes)
    if not scopes:
        raise Refusal("invalid_scope", "The policy grants none of these scopes")
    return issue_directly(
        context, Authorization(user.id, machine.client_id, resource.url, scopes, facts)
    )


async def _named_by_provider(context: ServerContext, machine: Machine, assertion: str) -> Principal:
    """Return the caller of an identity assertion, which is accepted once."""
    providers = [
        Issuer(
            each.issuer,
            keys=StaticKeys(each.public_key),
            token_types=[ID_JAG],
            audience=context.issuer,
        )
        for each in context.world.identity_providers
    ]
    if not providers:
        raise Refusal("invalid_grant", "The world has no [[identity_providers]]")
    try:
        caller = await trusted(providers, (), context.clock).verify(assertion)
    except InvalidTokenError as error:
        raise Refusal("invalid_grant", f"The assertion is not accepted: {error}") from None
    jti = caller.claims.get("jti")
    if caller.claims.get("client_id") != machine.client_id:
        raise Refusal("invalid_grant", "The assertion was issued to another client")
    if not isinstance(jti, str) or not use_assertion(
        context, caller.issuer, jti, caller.expires_at
    ):
        raise Refusal("invalid_grant", "The assertion has no jti, or was used before")
    return caller


def _scopes(form: Parameters, allowed: tuple[str, ...]) -> tuple[str, ...]:
    asked = tuple(dict.fromkeys((form.get("scope") or "").split())) or allowed
    if not set(asked) <= set(allowed):
        raise Refusal("invalid_scope", "The scope is more than this client may have")
    return asked


def _resource(context: ServerContext, *urls: object) -> ProtectedResource:
    """Return the one resource that is named, or the only one of the world."""
    named = [url for url in urls if isinstance(url, str)]
    known = context.world.resources
    found = {context.world.resource(url) for url in named} if named else set(known)
    only = next(iter(found)) if len(found) == 1 else None
    if only is None:
        raise Refusal("invalid_target", "Name one of the resources of the world")
    return only
