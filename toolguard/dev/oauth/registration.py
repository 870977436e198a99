"""Client registration, by a request (RFC 7591) or a client ID metadata document."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toolguard.dev.oauth.clients import Client, save_client
from toolguard.dev.oauth.config import World
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.redirects import parse_redirect
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.store import digest
from toolguard.pages.names import display_name
from toolguard.parsing.strict_json import lenient_object

__all__ = ["client_of_document", "is_approved", "register"]

_log = logging.getLogger("toolguard.dev")

_SECRET_METHODS = ("client_secret_basic", "client_secret_post")
_GRANT_TYPES = ("authorization_code", "refresh_token")
_MAX_REDIRECTS = 20
_SHOWN = 200


async def register(context: ServerContext, request: Request) -> Response:
    """Answer a registration request (RFC 7591 §3)."""
    metadata = await _object(request)
    name = _name(metadata)
    redirect_uris = _redirect_uris(metadata)
    for uri in redirect_uris:
        if not is_approved(context.world, uri):
            raise _refused_redirect(name, uri)
    # RFC 7591 §2: basic where nothing is said.
    method = metadata.get("token_endpoint_auth_method") or "client_secret_basic"
    if method not in ("none", *_SECRET_METHODS):
        raise _invalid(
            f"token_endpoint_auth_method must be one of none, {', '.join(_SECRET_METHODS)}"
        )
    secret = None if method == "none" else secrets.token_urlsafe(32)
    client = Client(
        client_id=f"client-{secrets.token_hex(12)}",
        name=name,
        redirect_uris=redirect_uris,
        grant_types=_grant_types(metadata),
        auth_method=method,
        secret_digest=None if secret is None else digest(secret),
        dpop_bound=_is_dpop_bound(metadata),
    )
    save_client(context, client)
    return JSONResponse(_registered(context, client, secret), 201)


def client_of_document(world: World, client_id: str, metadata: Mapping[str, Any]) -> Client:
    """Return the client that a Client ID Metadata Document describes.

    Its redirect URIs have to be approved, as anybody's, or to be of the document's own origin:
    whoever can publish the document there could answer there as well.

    Args:
        world: the world whose patterns approve.
        client_id: the URL that the document came from.
        metadata: the document.

    Raises:
        Refusal: if it is of another client, or asks for what is not to be had.
    """
    if metadata.get("client_id") != client_id:
        raise Refusal("invalid_client", "The metadata document names another client_id")
    method = metadata.get("token_endpoint_auth_method") or "none"
    if method != "none" or "client_secret" in metadata:
        # A published secret is useless, and no other method is supported here.
        raise Refusal(
            "invalid_client", "A client with a metadata document has to be a public client here"
        )
    name = _name(metadata)
    own = parse_redirect(client_id)
    redirect_uris = _redirect_uris(metadata)
    for uri in redirect_uris:
        redirect = parse_redirect(uri)
        is_own = own is not None and redirect is not None and own.origin == redirect.origin
        if not is_own and not is_approved(world, uri):
            raise _refused_redirect(name, uri)
    return Client(
        client_id,
        name,
        redirect_uris,
        _grant_types(metadata),
        dpop_bound=_is_dpop_bound(metadata),
    )


def is_approved(world: World, uri: str) -> bool:
    """Return whether a client may register ``uri`` as a redirect URI."""
    parsed = parse_redirect(uri)
    return parsed is not None and any(
        pattern.matches(parsed) for pattern in world.approved_redirects
    )


def _registered(context: ServerContext, client: Client, secret: str | None) -> dict[str, Any]:
    """Return what was registered, which may be less than was asked for (RFC 7591 §3.2.1)."""
    answer: dict[str, Any] = {
        "client_id": client.client_id,
        "client_id_issued_at": int(context.clock()),
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"],
        "token_endpoint_auth_method": client.auth_method,
    }
    if client.dpop_bound:
        answer["dpop_bound_access_tokens"] = True
    if secret is not None:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    return answer


async def _object(request: Request) -> dict[str, Any]:
    value = lenient_object(await request.body())
    if value is None:
        raise _invalid("The body is not a JSON object")
    return value


def _name(metadata: Mapping[str, Any]) -> str:
    name = metadata.get("client_name")
    if name is not None and not isinstance(name, str):
        raise _invalid("client_name must be a string")
    return display_name(name or "") or "An application without a name"


def _redirect_uris(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    uris = metadata.get("redirect_uris")
    if not isinstance(uris, list) or not 0 < len(uris) <= _MAX_REDIRECTS:
        raise Refusal("invalid_redirect_uri", "redirect_uris must be a list of 1 to 20 URIs")
    if not all(isinstance(uri, str) for uri in uris):
        raise Refusal("invalid_redirect_uri", "redirect_uris must be a list of strings")
    return tuple(dict.fromkeys(uris))


def _is_dpop_bound(metadata: Mapping[str, Any]) -> bool:
    bound = metadata.get("dpop_bound_access_tokens", False)
    if not isinstance(bound, bool):
        raise _invalid("dpop_bound_access_tokens must be true or false")
    return bound


def _grant_types(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    asked = metadata.get("grant_types") or ["authorization_code"]
    responses = metadata.get("response_types") or ["code"]
    if not isinstance(asked, list) or "authorization_code" not in asked:
        raise _invalid("grant_types must include authorization_code")
    if not isinstance(responses, list) or "code" not in responses:
        raise _invalid("response_types must include code")
    return tuple(kind for kind in _GRANT_TYPES if kind in asked)


def _invalid(description: str) -> Refusal:
    return Refusal("invalid_client_metadata", description)


def _refused_redirect(name: str, uri: str) -> Refusal:
    _log.warning("registration of %r refused: %r is not approved", name, uri[:_SHOWN])
    return Refusal(
        "invalid_redirect_uri", "A redirect URI is not among those approved for this server"
    )
