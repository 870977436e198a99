"""The pending sign-ins of a browser.

A sign-in belongs to the session in which it began. Its id is in URLs and forms, and is useless in
another browser.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import asdict, dataclass

from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.sessions import BrowserSession
from toolguard.dev.store import digest

__all__ = [
    "AuthorizationRequest",
    "SignInState",
    "begin_sign_in",
    "end_sign_in",
    "find_sign_in",
    "issue_provider_code",
    "note_email",
    "redeem_provider_code",
]


@dataclass(frozen=True)
class AuthorizationRequest:
    """What a client asked for at the authorization endpoint, checked.

    Attributes:
        client_id: the client that asks.
        redirect_uri: where the answer goes.
        redirect_uri_given: whether the request named it, so that the token request must, too.
        state: what the client wants back; None if it sent none.
        scopes: the scopes it asks for.
        resource: the server the token is to be for.
        challenge: the PKCE code challenge, S256.
        nonce: what the ID token has to repeat; None if the request has none.
    """

    client_id: str
    redirect_uri: str
    redirect_uri_given: bool
    state: str | None
    scopes: tuple[str, ...]
    resource: str
    challenge: str
    nonce: str | None = None


@dataclass(frozen=True)
class SignInState:
    """A sign-in on its way: to answer ``request``, or only to come back to ``return_to``."""

    name: str
    request: AuthorizationRequest | None
    return_to: str | None
    email: str | None


def begin_sign_in(
    context: ServerContext,
    session: BrowserSession,
    *,
    request: AuthorizationRequest | None = None,
    return_to: str | None = None,
) -> str:
    """Begin a sign-in in ``session``; return its name."""
    name = secrets.token_urlsafe(24)
    text = None if request is None else json.dumps(asdict(request))
    expires_at = context.clock() + context.world.lifetimes.sign_in
    row = (digest(name), session.digest, text, return_to, None, None, expires_at)
    context.store.forget(context.clock())
    with context.store.transaction() as db:
        db.execute("INSERT INTO sign_in VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    return name


def find_sign_in(context: ServerContext, session: BrowserSession | None, name: str) -> SignInState:
    """Return the sign-in ``name`` of this session.

    Raises:
        Refusal: if there is none: finished, expired, or begun in another browser.
    """
    with context.store.lock:
        row = None if session is None else _row(context, context.store.db, session, name)
    if row is None:
        raise _gone()
    text, return_to, email = row
    request = None
    if text is not None:
        members = json.loads(text)
        request = AuthorizationRequest(**{**members, "scopes": tuple(members["scopes"])})
    return SignInState(name, request, return_to, email)


def note_email(context: ServerContext, sign_in: SignInState, email: str | None) -> None:
    """Record the e-mail address that the user entered; it is not verified."""
    with context.store.transaction() as db:
        db.execute(
            "UPDATE sign_in SET email = ?, provider_code = NULL WHERE digest = ?",
            (email, digest(sign_in.name)),
        )


def issue_provider_code(context: ServerContext, sign_in: SignInState) -> str:
    """Return the code with which the tenant's provider sends the browser back, once."""
    code = secrets.token_urlsafe(24)
    with context.store.transaction() as db:
        db.execute(
            "UPDATE sign_in SET provider_code = ? WHERE digest = ?",
            (digest(code), digest(sign_in.name)),
        )
    return code


def redeem_provider_code(context: ServerContext, sign_in: SignInState, code: str) -> None:
    """Use up the provider's code.

    Raises:
        Refusal: if it is not the one that was issued for this sign-in, or was used.
    """
    with context.store.transaction() as db:
        done = db.execute(
            "UPDATE sign_in SET provider_code = NULL WHERE digest = ? AND provider_code = ?",
            (digest(sign_in.name), digest(code)),
        )
    if done.rowcount != 1:
        raise _gone()


def end_sign_in(context: ServerContext, session: BrowserSession, name: str) -> SignInState:
    """Return the sign-in and forget it, so that it is answered once.

    Raises:
        Refusal: if it has been.
    """
    sign_in = find_sign_in(context, session, name)
    with context.store.transaction() as db:
        done = db.execute("DELETE FROM sign_in WHERE digest = ?", (digest(name),))
    if done.rowcount != 1:
        raise _gone()
    return sign_in


def _row(
    context: ServerContext, db: sqlite3.Connection, session: BrowserSession, name: str
) -> tuple[str | None, str | None, str | None] | None:
    row: tuple[str | None, str | None, str | None] | None = db.execute(
        "SELECT request, return_to, email FROM sign_in"
        " WHERE digest = ? AND session = ? AND expires_at > ?",
        (digest(name), session.digest, context.clock()),
    ).fetchone()
    return row


def _gone() -> Refusal:
    return Refusal(
        "invalid_request", "This sign-in was finished, has expired, or began in another browser"
    )
