"""Access tokens without a browser: for machines, and for people of ``toolguard token``.

A development server asks for no passwords, so a program on this machine may have the token of any
person of the world, by the policy that decides on the consent page. A page of another site may not:
the request is JSON, which no form can send, and one that a browser sends is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.dev.oauth.config import ProtectedResource, User, World
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import keep_access_token, open_direct_grant
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.notes import noting
from toolguard.dev.oauth.policies import UserFacts, decide
from toolguard.dev.oauth.refusals import Refusal, answering_json
from toolguard.dev.oauth.tokens import Authorization, access_token_claims
from toolguard.parsing.strict_json import lenient_object

__all__ = [
    "PERSON_TOKEN_PATH",
    "PersonTokenRequest",
    "issue_directly",
    "person_token_route",
    "token_for_person",
]

PERSON_TOKEN_PATH = "/token-of-person"  # noqa: S105 - a path
"""Where ``toolguard token`` asks, at the origin of the server."""

DEFAULT_CLIENT = "toolguard-cli"
"""The ``client_id`` of tokens that name no other."""

_CLIENT_ID = re.compile(r"[\x21-\x7E]{1,200}")


@dataclass(frozen=True)
class PersonTokenRequest:
    """A request for the token of a person.

    Attributes:
        person: an id, an e-mail address or a name; None for the first person of the world.
        scopes: the scopes asked for; None for those of a client that asks for nothing.
        resource: the server that the token is for; None for the first of the world.
        client_id: the client that the token names.
    """

    person: str | None = None
    scopes: tuple[str, ...] | None = None
    resource: str | None = None
    client_id: str = DEFAULT_CLIENT


def issue_directly(
    context: ServerContext,
    authorization: Authorization,
) -> dict[str, Any]:
    """Return the token answer (RFC 6749 §5.1) for a grant without a user's consent."""
    scopes = authorization.scopes
    grant = open_direct_grant(
        context,
        authorization.client_id,
        authorization.user_id,
        resource=authorization.resource,
        scopes=scopes,
    )
    claims = access_token_claims(context, authorization, expires_at=grant.expires_at)
    keep_access_token(context, claims["jti"], grant, claims["exp"])
    return {
        "access_token": context.keys.sign(claims),
        "token_type": "Bearer",
        "expires_in": claims["exp"] - claims["iat"],
        "scope": " ".join(scopes),
    }


def token_for_person(context: ServerContext, asked: PersonTokenRequest) -> dict[str, Any]:
    """Return the token answer for a person, with ``person`` and ``resource`` beside it.

    Raises:
        Refusal: if the world does not have what is asked for, or its policy refuses a scope.
    """
    world = context.world
    user, resource = _user(world, asked.person), _resource(world, asked.resource)
    if not _CLIENT_ID.fullmatch(asked.client_id):
        raise Refusal("invalid_request", "client_id must be 1 to 200 visible ASCII characters")
    facts = collect_facts(world, user)
    scopes = _granted(world, user, facts, asked.scopes)
    authorization = Authorization(user.id, asked.client_id, resource.url, scopes, facts)
    context.notes.add(
        f"{user.email} signs in to {asked.client_id}, with {' '.join(scopes) or 'no scope'}",
        "asked for by a program on this machine, or on the console",
    )
    answer = issue_directly(context, authorization)
    return {**answer, "person": user.email, "resource": resource.url, "issuer": context.issuer}


def person_token_route(context: ServerContext) -> Route:
    """Return the endpoint of ``toolguard token``."""
    noted = noting(context.notes, "a token of a person", partial(_answer, context))
    endpoint = answering_json(noted)
    return Route(PERSON_TOKEN_PATH, endpoint, methods=["POST"])


async def _answer(context: ServerContext, request: Request) -> Response:
    # Fetch: a browser sends one of the two with every POST.
    if "origin" in request.headers or "sec-fetch-site" in request.headers:
        raise Refusal("access_denied", "This endpoint is not for browsers", status=403)
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise Refusal("invalid_request", "The body must be application/json", status=415)
    return JSONResponse(token_for_person(context, _read(await request.body())))


def _read(body: bytes) -> PersonTokenRequest:
    members = lenient_object(body)
    if members is None:
        raise Refusal("invalid_request", "The body is not a JSON object")
    scope = _text(members, "scope")
    return PersonTokenRequest(
        person=_text(members, "person"),
        scopes=None if scope is None else tuple(dict.fromkeys(scope.split())),
        resource=_text(members, "resource"),
        client_id=_text(members, "client_id") or DEFAULT_CLIENT,
    )


def _text(members: Mapping[str, Any], name: str) -> str | None:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal("invalid_request", f"{name} must be a string")
    return value


def _user(world: World, person: str | None) -> User:
    if person is None and world.users:
        return world.users[0]
    wanted = (person or "").lower()
    for user in world.users:
        if wanted in (user.id.lower(), user.email, user.name.lower()):
            return user
    known = ", ".join(user.id for user in world.users)
    raise Refusal("unknown_person", f"there is no person {person!r} in this world: write {known}")


def _resource(world: World, url: str | None) -> ProtectedResource:
    if url is None:
        return world.resources[0]
    found = world.resource(url)
    if found is None:
        known = ", ".join(each.url for each in world.resources)
        raise Refusal("invalid_target", f"this world has no server at {url!r}: write {known}")
    return found


def _granted(
    world: World, user: User, facts: UserFacts, asked: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Return the scopes of the token, and those that come along with them."""
    decision = decide(world.rules, facts, world.default_scopes if asked is None else asked)
    unknown = [scope for scope in decision.refused if scope not in world.scopes]
    if unknown:
        known = ", ".join(world.scopes)
        raise Refusal(
            "invalid_scope", f"there is no scope {unknown[0]!r} in this world: write {known}"
        )
    if decision.refused and asked is not None:
        refused = " ".join(decision.refused)
        if decision.rule is None:
            raise Refusal("invalid_scope", f"no policy grants {refused} to {user.email}")
        said = (
            f"the policy {decision.rule!r} decides for {user.email}, and does not grant {refused}"
        )
        raise Refusal("invalid_scope", said)
    return decision.granted
