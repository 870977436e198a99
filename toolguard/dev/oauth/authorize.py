"""The authorization endpoint (RFC 6749 §3.1).

The order of the checks is a security property: nothing is redirected before the redirect URI is
known to belong to the client (RFC 9700 §4.11); later errors are sent to the client, with ``iss``
(RFC 9207).
"""

from __future__ import annotations

import logging
import re

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.dev.oauth.clients import Client, find_client, save_client
from toolguard.dev.oauth.config import ProtectedResource, World
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.metadata_documents import MetadataDocuments
from toolguard.dev.oauth.openid import identity_scopes
from toolguard.dev.oauth.parameters import Parameters, read_query
from toolguard.dev.oauth.redirects import is_same_redirect, parse_redirect, with_parameters
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.registration import client_of_document
from toolguard.dev.oauth.sessions import open_session, session_of
from toolguard.dev.oauth.sign_in_state import AuthorizationRequest, begin_sign_in
from toolguard.pages.layout import page

__all__ = ["answer_client", "authorize", "requested_resource"]

_log = logging.getLogger("toolguard.dev")

# RFC 7636 §4.2: the SHA-256 of the verifier, as base64url without padding.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# RFC 6749 §3.3
_SCOPE = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+(?: [\x21\x23-\x5B\x5D-\x7E]+)*")
# RFC 6749, appendix A.5
_STATE = re.compile(r"[\x20-\x7E]{1,4096}")
_MAX_SCOPES = 50
_NOT_REGISTERED = (
    "This application is not registered here. Has the server forgotten it at its last start? "
    "Then sign the application out, so that it registers again; with toolguard dev --state FILE "
    "registrations are kept"
)


async def authorize(
    context: ServerContext, documents: MetadataDocuments, request: Request
) -> Response:
    """Answer the authorization endpoint: begin a sign-in, or tell the client why not."""
    parameters = read_query(request)
    client = await _client(context, documents, parameters.require("client_id"))
    redirect_uri = _redirect_uri(client, parameters.get("redirect_uri"))
    try:
        asked = _read(context, client, redirect_uri, parameters)
    except Refusal as refusal:
        members = {"error": refusal.error, "error_description": refusal.description}
        states = parameters.every("state")
        is_safe = len(states) == 1 and _STATE.fullmatch(states[0]) is not None
        uri = _response_uri(context, redirect_uri, states[0] if is_safe else None, members)
        return RedirectResponse(uri, 302, {"cache-control": "no-store"})
    return _begin(context, request, asked)


def answer_client(
    context: ServerContext, request: AuthorizationRequest, client_name: str, **members: str
) -> Response:
    """Return what sends the browser back to the client, with ``members`` and ``iss``.

    For use after a form: 303, so that the browser does not post the form on; and a page for an
    application with a scheme of its own, because no browser leaves a page for that.
    """
    uri = _response_uri(context, request.redirect_uri, request.state, members)
    parsed = parse_redirect(request.redirect_uri)
    if parsed is not None and not parsed.is_web:
        handover = page("handover.html", issuer=context.issuer, client=client_name, url=uri)
        handover.headers["refresh"] = f"0; url={uri}"
        return handover
    return RedirectResponse(uri, 303, {"cache-control": "no-store"})


def requested_resource(world: World, named: tuple[str, ...]) -> ProtectedResource:
    """Return the one resource that the ``resource`` parameters name (RFC 8707 §2).

    Where none is named and only one is known, it is that.

    Raises:
        Refusal: ``invalid_target`` if it is unknown, or there is more than one.
    """
    if not named and len(world.resources) == 1:
        return world.resources[0]
    found = {world.resource(url) for url in named}
    if len(found) != 1 or None in found:
        # RFC 8707 §3: a token for several servers can be replayed by each of them at the others.
        raise Refusal("invalid_target", "resource must name one server that is known here")
    return next(resource for resource in world.resources if resource in found)


async def _client(context: ServerContext, documents: MetadataDocuments, client_id: str) -> Client:
    if client_id.startswith(("https://", "http://")):
        metadata = await documents.fetch(client_id)
        client = client_of_document(context.world, client_id, metadata)
        save_client(context, client)
        return client
    known = find_client(context, client_id)
    if known is None:
        raise Refusal("invalid_client", _NOT_REGISTERED)
    return known


def _redirect_uri(client: Client, asked: str | None) -> str:
    if asked is None and len(client.redirect_uris) == 1:
        return client.redirect_uris[0]
    if asked is None or not any(is_same_redirect(uri, asked) for uri in client.redirect_uris):
        _log.warning("authorization of %r refused: unregistered redirect URI", client.name)
        raise Refusal(
            "invalid_redirect_uri", "The address to return to is not one of this application's"
        )
    return asked


def _read(
    context: ServerContext, client: Client, redirect_uri: str, parameters: Parameters
) -> AuthorizationRequest:
    state = parameters.get("state")
    if state is not None and not _STATE.fullmatch(state):
        raise Refusal("invalid_request", "state must be printable ASCII, at most 4096 characters")
    nonce = parameters.get("nonce")
    if nonce is not None and not _STATE.fullmatch(nonce):
        raise Refusal("invalid_request", "nonce must be printable ASCII, at most 4096 characters")
    if parameters.require("response_type") != "code":
        raise Refusal("unsupported_response_type", "response_type must be code")
    if parameters.get("response_mode") not in (None, "query"):
        raise Refusal("invalid_request", "response_mode must be query")
    if parameters.get("request") or parameters.get("request_uri"):
        raise Refusal("invalid_request", "Request objects are not supported")
    scopes, named = _scopes(context.world, parameters.get("scope")), parameters.every("resource")
    only_identity = bool(scopes) and identity_scopes(context.world, scopes) == scopes
    if only_identity and not named:
        resource = context.issuer  # no server accepts the access token
    else:
        resource = requested_resource(context.world, named).url
    return AuthorizationRequest(
        client_id=client.client_id,
        redirect_uri=redirect_uri,
        redirect_uri_given=parameters.get("redirect_uri") is not None,
        state=state,
        scopes=scopes,
        resource=resource,
        challenge=_challenge(parameters),
        nonce=nonce,
    )


def _scopes(world: World, text: str | None) -> tuple[str, ...]:
    if text is None:
        return world.default_scopes
    if not _SCOPE.fullmatch(text) or text.count(" ") >= _MAX_SCOPES:
        raise Refusal("invalid_scope", "scope must list scopes with one space between them")
    return tuple(dict.fromkeys(text.split(" ")))


def _challenge(parameters: Parameters) -> str:
    challenge = parameters.get("code_challenge")
    if challenge is None:
        raise Refusal("invalid_request", "code_challenge is missing: PKCE is required")
    # RFC 7636 §4.3: a request that names no method means "plain".
    if parameters.get("code_challenge_method") != "S256":
        raise Refusal("invalid_request", "code_challenge_method must be S256")
    if not _CHALLENGE.fullmatch(challenge):
        raise Refusal("invalid_request", "code_challenge must be 43 characters of base64url")
    return challenge


def _response_uri(
    context: ServerContext, redirect_uri: str, state: str | None, members: dict[str, str]
) -> str:
    parameters = [*members.items(), *([("state", state)] if state is not None else [])]
    return with_parameters(redirect_uri, [*parameters, ("iss", context.issuer)])


def _begin(context: ServerContext, request: Request, asked: AuthorizationRequest) -> Response:
    session = session_of(context, request)
    response = RedirectResponse("/", 302, {"cache-control": "no-store"})
    if session is None:
        session = open_session(context, response, user_id=None, instead_of=None)
    name = begin_sign_in(context, session, request=asked)
    step = "sign-in" if session.user_id is None else "consent"
    response.headers["location"] = with_parameters(context.url(step), [("tx", name)])
    return response
