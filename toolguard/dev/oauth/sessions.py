"""Browser sessions and CSRF tokens."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.requests import Request
from starlette.responses import Response

from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.store import digest

__all__ = ["COOKIE", "BrowserSession", "check_csrf", "csrf_token", "open_session", "session_of"]

COOKIE = "toolguard_dev_session"
"""The cookie that holds a session's secret."""


@dataclass(frozen=True)
class BrowserSession:
    """One browser, signed in or not.

    Attributes:
        secret: the value of its cookie.
        user_id: the signed-in user; None before the sign-in.
    """

    secret: str = field(repr=False)
    user_id: str | None

    @property
    def digest(self) -> str:
        """What the store knows it by."""
        return digest(self.secret)


def session_of(context: ServerContext, request: Request) -> BrowserSession | None:
    """Return the session whose cookie the browser sent, if it is still good."""
    secret = request.cookies.get(COOKIE)
    if not secret:
        return None
    with context.store.lock:
        row = context.store.db.execute(
            "SELECT user_id FROM session WHERE digest = ? AND expires_at > ?",
            (digest(secret), context.clock()),
        ).fetchone()
    return None if row is None else BrowserSession(secret, row[0])


def open_session(
    context: ServerContext,
    response: Response,
    *,
    user_id: str | None,
    instead_of: BrowserSession | None,
) -> BrowserSession:
    """Give the browser a new session, and return it.

    The secret changes at every sign-in, which prevents session fixation; the sign-ins that began
    in the old session continue in the new one.
    """
    session = BrowserSession(secrets.token_urlsafe(32), user_id)
    lifetime = context.world.lifetimes.session
    with context.store.transaction() as db:
        if instead_of is not None:
            db.execute("DELETE FROM session WHERE digest = ?", (instead_of.digest,))
            db.execute(
                "UPDATE sign_in SET session = ? WHERE session = ?",
                (session.digest, instead_of.digest),
            )
        db.execute(
            "INSERT INTO session VALUES (?, ?, ?)",
            (session.digest, user_id, context.clock() + lifetime),
        )
    response.set_cookie(
        COOKIE,
        session.secret,
        max_age=lifetime,
        path="/",
        secure=context.origin.startswith("https:"),
        httponly=True,
        samesite="lax",
    )
    return session


def csrf_token(session: BrowserSession, purpose: str) -> str:
    """Return what a form must carry: bound to the browser's cookie and to ``purpose``."""
    return hmac.new(session.secret.encode(), purpose.encode(), sha256).hexdigest()


def check_csrf(request: Request, session: BrowserSession, purpose: str, token: str | None) -> None:
    """Refuse a form without a CSRF token of this server for this browser and purpose.

    Raises:
        Refusal: if the token is missing or another one, or the browser says that the form came
            from elsewhere.
    """
    expected = csrf_token(session, purpose)
    # With `Referrer-Policy: no-referrer` the Origin of a form is "null"; this header is not.
    site = request.headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin" or not hmac.compare_digest((token or "").encode(), expected.encode()):
        raise Refusal(
            "access_denied", "This form was not sent from a page of this server", status=403
        )
