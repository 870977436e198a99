"""OAuth clients and their authentication (RFC 6749 §2.3)."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from starlette.requests import Request

from toolguard.dev.oauth.config import ProtectedResource
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.parameters import Parameters
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.store import digest

__all__ = [
    "Client",
    "all_clients",
    "authenticate_client",
    "authenticate_resource",
    "client_credentials",
    "find_client",
    "save_client",
    "unknown_client",
]


@dataclass(frozen=True)
class Client:
    """An OAuth client.

    Attributes:
        client_id: its id; for a client with a metadata document, the document's URL.
        name: what it calls itself, fit to be shown.
        redirect_uris: where it may be, as it wrote them.
        grant_types: what it may ask for at the token endpoint.
        auth_method: how it proves who it is: ``none`` or with a secret.
        secret_digest: of its secret; None for a public client.
        dpop_bound: whether its tokens have to be bound to a key (RFC 9449 §5.2).
    """

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    grant_types: tuple[str, ...]
    auth_method: str = "none"
    secret_digest: str | None = field(default=None, repr=False)
    dpop_bound: bool = False


def save_client(context: ServerContext, client: Client) -> None:
    """Keep ``client``, instead of what was there under its id."""
    row = (
        *(client.client_id, client.name, json.dumps(client.redirect_uris)),
        *(json.dumps(client.grant_types), client.auth_method, client.secret_digest),
        int(client.dpop_bound),
    )
    with context.store.transaction() as db:
        db.execute("INSERT OR REPLACE INTO client VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def find_client(context: ServerContext, client_id: str) -> Client | None:
    """Return the client of that id; None if there is none."""
    with context.store.lock:
        row = context.store.db.execute(
            "SELECT name, redirect_uris, grant_types, auth_method, secret_digest,"
            " dpop_bound FROM client"
            " WHERE client_id = ?",
            (client_id,),
        ).fetchone()
    if row is None:
        return None
    name, redirect_uris, grant_types, auth_method, secret_digest, dpop_bound = row
    redirects, grants = tuple(json.loads(redirect_uris)), tuple(json.loads(grant_types))
    return Client(client_id, name, redirects, grants, auth_method, secret_digest, bool(dpop_bound))


def all_clients(context: ServerContext) -> list[Client]:
    """Return the clients that are known, by their names."""
    with context.store.lock:
        rows = context.store.db.execute("SELECT client_id FROM client ORDER BY name").fetchall()
    found = (find_client(context, client_id) for (client_id,) in rows)
    return [client for client in found if client is not None]


def authenticate_client(context: ServerContext, request: Request, form: Parameters) -> Client:
    """Return the client that sent ``request`` to the token or revocation endpoint.

    A public client is the one it says it is (RFC 6749 §3.2.1); one with a secret proves it, in
    the header or in the body, whichever it registered (RFC 6749 §2.3.1).

    Raises:
        Refusal: if it does not (401 ``invalid_client``), or does so twice (``invalid_request``).
    """
    client_id, secret = client_credentials(request, form)
    client = find_client(context, client_id)
    if client is None:
        raise unknown_client()
    given = "" if secret is None else digest(secret)
    # That refuses a secret from a public client, too: a mistake that should not go unnoticed.
    if not hmac.compare_digest(given, client.secret_digest or ""):
        raise unknown_client()
    return client


def authenticate_resource(
    context: ServerContext, request: Request, form: Parameters
) -> ProtectedResource:
    """Return the protected server that sent ``request`` and has proved it with its secret.

    Raises:
        Refusal: if it has not.
    """
    client_id, secret = client_credentials(request, form)
    expected = context.server_secrets.get(client_id)
    if secret is None or expected is None:
        raise unknown_client()
    if not hmac.compare_digest(secret.encode(), expected.encode()):
        raise unknown_client()
    return next(item for item in context.world.resources if item.client_id == client_id)


def client_credentials(request: Request, form: Parameters) -> tuple[str, str | None]:
    """Return the id and the secret that a client sent, in the header or in the body.

    Raises:
        Refusal: if it sent no id, or authenticates twice.
    """
    headers = request.headers.getlist("authorization")
    named, secret = form.get("client_id"), form.get("client_secret")
    if not headers:
        if named is None:
            raise unknown_client()
        return named, secret
    if len(headers) > 1 or secret is not None:
        # RFC 6749 §2.3: one method per request.
        raise Refusal("invalid_request", "Authenticate in the header or in the body, once")
    client_id, secret = _basic(headers[0])
    if named not in (None, client_id):
        raise Refusal("invalid_request", "Header and body name different clients")
    return client_id, secret


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    try:
        text = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise unknown_client() from None
    client_id, colon, secret = text.partition(":")
    if scheme.lower() != "basic" or not colon:
        raise unknown_client()
    # RFC 6749 §2.3.1: both are form-encoded before they are joined.
    return unquote_plus(client_id), unquote_plus(secret)


def unknown_client() -> Refusal:
    """Return the refusal of a client that is not known, or has not proved itself."""
    return Refusal("invalid_client", "The client is not known, or has not proved it", status=401)
