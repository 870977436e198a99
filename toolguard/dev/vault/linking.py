"""The pages on which a user connects an account to the vault.

A link is for one user. The browser that opens it has to be signed in as that user, at the
beginning and at the end, so that no user can be tricked into connecting an account to another
user (or the other way round).
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from toolguard.dev.oauth.config import User
from toolguard.dev.oauth.parameters import read_query
from toolguard.dev.oauth.refusals import Refusal, answering_pages
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import digest
from toolguard.dev.vault.connection_table import ConnectionTable, Owner
from toolguard.dev.vault.providers import OutboundClient
from toolguard.pages.layout import page

__all__ = ["CALLBACK_PATH", "Linking"]

CALLBACK_PATH = "/connect/callback"
"""Where consent pages send users back to, on the authorization server's origin."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS connect_link (
    digest TEXT PRIMARY KEY, user_id TEXT NOT NULL, app TEXT NOT NULL, scopes TEXT NOT NULL,
    return_to TEXT NOT NULL, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS connect_attempt (
    digest TEXT PRIMARY KEY, user_id TEXT NOT NULL, app TEXT NOT NULL, return_to TEXT NOT NULL,
    verifier TEXT NOT NULL, expires_at REAL NOT NULL
);
"""
_LIFETIME = 600
_log = logging.getLogger("toolguard.dev")


@dataclass(frozen=True)
class _Link:
    """What a link stands for; ``return_to`` is empty where the way ends with a page."""

    user_id: str
    app: str
    scopes: tuple[str, ...]
    return_to: str


@dataclass(frozen=True)
class _Attempt:
    """A user who is at the consent page of a service."""

    user_id: str
    app: str
    return_to: str
    verifier: str = field(repr=False)


class Linking:
    """The pages on which users connect accounts.

    Args:
        server: whose users they are, and whose pages these become.
        connections: where the tokens go.
        clients: the services by app id.
        clock: the time in seconds since the epoch.
    """

    def __init__(
        self,
        server: DevServer,
        connections: ConnectionTable,
        clients: Mapping[str, OutboundClient],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._connections = connections
        self._clients = clients
        self._clock = clock
        with server.store.lock:
            server.store.db.executescript(_SCHEMA)

    def new(self, user_id: str, app: str, scopes: tuple[str, ...], return_to: str = "") -> str:
        """Return a URL at which only this user can connect ``app``.

        Args:
            user_id: the user.
            app: a service, by its app id.
            scopes: what to ask for there; empty for what the service is usually asked for.
            return_to: a URL of the server to go on to; empty for a page that says "done".
        """
        ticket = secrets.token_urlsafe(32)
        row = (digest(ticket), user_id, app, " ".join(scopes), return_to, self._deadline())
        with self._server.store.transaction() as db:
            db.execute("DELETE FROM connect_link WHERE expires_at <= ?", (self._clock(),))
            db.execute("INSERT INTO connect_link VALUES (?, ?, ?, ?, ?, ?)", row)
        return f"{self._server.origin}/connect/{ticket}"

    def for_consent(self, user: User, return_to: str) -> str | None:
        """Return a link for the consent page; None if everything is connected already."""
        for app in self._clients:
            if self._connections.get(Owner("user", user.id), app) is None:
                return self.new(user.id, app, (), return_to)
        return None

    def routes(self) -> list[Route]:
        """Return the pages, for the root of the server's origin."""
        issuer = self._server.issuer
        return [
            Route(CALLBACK_PATH, answering_pages(self._finish, issuer), methods=["GET"]),
            Route("/connect/{ticket}", answering_pages(self._begin, issuer), methods=["GET"]),
        ]

    async def _begin(self, request: Request) -> Response:
        link = self._link(request.path_params["ticket"])
        if link is None:
            raise Refusal("expired_link", "This link is no longer good: ask for a new one")
        user = self._server.sign_in_user(request)
        if user is None:
            return _redirect(self._server.sign_in_url(f"{self._server.origin}{request.url.path}"))
        if user.id != link.user_id:
            _log.warning("connect link of %r refused to %r", link.user_id, user.id)
            raise Refusal(
                "access_denied",
                f"This link is for another user. You are signed in as {user.email}, and nothing "
                "was connected.",
                status=403,
            )
        return self._confirmation(self._clients[link.app].app.name, link, user)

    def _confirmation(self, name: str, link: _Link, user: User) -> Response:
        # A link and not a redirect: a browser that comes here from the sign-in form may be
        # redirected to no other origin (Content Security Policy 3 §6.4.1, form-action).
        return page(
            "connect.html",
            issuer=self._server.issuer,
            service=name,
            user=user,
            consent_url=self._consent_url(link, user),
        )

    async def _finish(self, request: Request) -> Response:
        query = read_query(request)
        attempt = self._take_attempt(query.require("state"))
        user = self._server.sign_in_user(request)
        if attempt is None or user is None or user.id != attempt.user_id:
            raise Refusal("access_denied", "Nobody here asked for this connection", status=403)
        client = self._clients[attempt.app]
        if query.get("error") is not None:
            return self._done(attempt, f"{client.app.name} was not connected.")
        try:
            token = await client.exchange(query.require("code"), attempt.verifier)
        except ConnectionError:
            raise Refusal("unavailable", f"{client.app.name} is away", status=503) from None
        if token is None:
            raise Refusal("access_denied", f"{client.app.name} did not agree")
        self._connections.put(Owner("user", user.id), attempt.app, token)
        return self._done(attempt, f"{client.app.name} is connected for {user.email}.")

    def _done(self, attempt: _Attempt, text: str) -> Response:
        if self._server.owns(attempt.return_to):
            return _redirect(attempt.return_to)
        return page("closing.html", issuer=self._server.issuer, text=text)

    def _consent_url(self, link: _Link, user: User) -> str:
        client = self._clients[link.app]
        state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        row = (digest(state), user.id, link.app, link.return_to, verifier, self._deadline())
        with self._server.store.transaction() as db:
            db.execute("DELETE FROM connect_attempt WHERE expires_at <= ?", (self._clock(),))
            db.execute("INSERT INTO connect_attempt VALUES (?, ?, ?, ?, ?, ?)", row)
        held = self._connections.get(Owner("user", user.id), link.app)
        asked = link.scopes or client.app.scopes
        # What was connected stays connected: the new token takes the place of the old one.
        scopes = dict.fromkeys((*(held.scopes if held else ()), *asked))
        return client.consent_url(
            scopes=[*scopes], state=state, verifier=verifier, login_hint=user.email
        )

    def _link(self, ticket: str) -> _Link | None:
        with self._server.store.lock:
            row = self._server.store.db.execute(
                "SELECT user_id, app, scopes, return_to FROM connect_link"
                " WHERE digest = ? AND expires_at > ?",
                (digest(ticket), self._clock()),
            ).fetchone()
        return None if row is None else _Link(row[0], row[1], tuple(row[2].split()), row[3])

    def _take_attempt(self, state: str) -> _Attempt | None:
        with self._server.store.transaction() as db:
            row = db.execute(
                "SELECT user_id, app, return_to, verifier FROM connect_attempt"
                " WHERE digest = ? AND expires_at > ?",
                (digest(state), self._clock()),
            ).fetchone()
            db.execute("DELETE FROM connect_attempt WHERE digest = ?", (digest(state),))
        return None if row is None else _Attempt(*row)

    def _deadline(self) -> float:
        return self._clock() + _LIFETIME


def _redirect(url: str) -> Response:
    # No referrer: the address that is left holds a ticket.
    return RedirectResponse(
        url, 303, {"referrer-policy": "no-referrer", "cache-control": "no-store"}
    )
