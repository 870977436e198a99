"""The people who open pages: signing in, and the pages that they are shown.

The pages of a vault and those of approvals share all of it: one sign-in, one session, one way to
be told what is wrong.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolguard.errors import ConnectionTokenError, ToolGuardError
from toolguard.pages.layout import load_templates, page, stylesheet
from toolguard.parsing.pkce import s256_challenge
from toolguard.vault.browser import Cookies, new_state, read_state, redirect, single_parameters
from toolguard.vault.grants import Owner
from toolguard.vault.oauth_client import OAuthClient, new_secret
from toolguard.vault.presets import openid
from toolguard.vault.sign_in import OpenIDSignIn, Person, SignIn, read_person

if TYPE_CHECKING:
    from toolguard.connections.http import VaultClient
    from toolguard.vault.slips import Slip

__all__ = ["Endpoint", "Host", "PageError", "SessionStore", "Visitors", "owner_of"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Answers a request."""

_log = logging.getLogger("toolguard.vault")

_SIGN_IN_SECONDS = 600.0
# Of claims: what is longer is not kept, and a requirement that reads it is not met.
_MAX_CLAIMS = 8 * 1024


class PageError(Exception):
    """A request that ends with a page.

    Args:
        text: what to tell the person.
        status: the HTTP status.
        heading: the heading of the page.
        link: where the person may go on; empty for nowhere.
        link_text: what the link says.
    """

    def __init__(
        self,
        text: str,
        status: int = 400,
        heading: str = "This cannot go on",
        *,
        link: str = "",
        link_text: str = "",
    ) -> None:
        super().__init__(text)
        self.status = status
        self.values = {"heading": heading, "text": text, "link": link, "link_text": link_text}


class SessionStore(Protocol):
    """Keeps the sessions of people who are signed in."""

    async def issue(
        self, purpose: Literal["session"], owner: Owner, facts: Mapping[str, Any]
    ) -> str:
        """Return the secret of a new session."""
        ...

    async def peek(self, purpose: Literal["session"], secret: str) -> Slip | None:
        """Return the session that ``secret`` stands for; None if there is none."""
        ...


class Host(Protocol):
    """What the pages are for: a vault, or approvals without one."""

    clock: Callable[[], float]
    issuer: str | None

    @property
    def pages_url(self) -> str | None:
        """The URL below which all pages are; None while the origin is unknown."""
        ...

    @property
    def sign_in(self) -> SignIn | None:
        """How people sign in."""
        ...

    @property
    def http(self) -> VaultClient:
        """Asks the issuer."""
        ...


class Visitors:
    """The people who open the pages of one origin.

    Args:
        host: what the pages are for.
        sessions: the sessions of people who are signed in.

    Raises:
        ValueError: if the origin is not known, or how or where people sign in.
        ModuleNotFoundError: if Jinja2 is not installed.
    """

    def __init__(self, host: Host, sessions: SessionStore) -> None:
        load_templates()
        if host.pages_url is None or host.sign_in is None:
            raise ValueError(
                f'write {type(host).__name__}(..., public_url="https://mcp.example.com", '
                "sign_in=OpenIDSignIn(...))"
            )
        #: The URL below which all pages are.
        self.url = host.pages_url
        self._sign_in = host.sign_in
        self._sessions = sessions
        self._clock = host.clock
        #: The cookies of the pages.
        self.cookies = Cookies(self.url)
        self._issuer_client = _issuer_client(host.sign_in, host)

    def routes(self) -> list[Route]:
        """Return the routes that every set of pages needs: the sign-in and the stylesheet."""
        signed_in = self.answering(self._signed_in)
        return [
            Route("/connections/signed-in", signed_in, methods=["GET"]),
            Route("/connections/style.css", stylesheet, methods=["GET"]),
        ]

    async def person(self, request: Request) -> Person | Response | None:
        """Return the person who is signed in in this browser; None if there is none."""
        sign_in = self._sign_in
        if not isinstance(sign_in, OpenIDSignIn):
            return await sign_in(request)
        slip = await self._sessions.peek("session", self.cookies.read(request, "session"))
        if slip is None:
            return None
        claims = slip.facts.get("claims", {})
        return Person(slip.owner.issuer, slip.owner.id, slip.facts["name"], claims)

    async def person_or_sign_in(self, request: Request, then: str) -> Person | Response:
        """Return the person who is signed in, or the response that begins a sign-in.

        Args:
            request: the request.
            then: the page to go on to, below the URL of the pages.

        Raises:
            PageError: if people sign in elsewhere, and nobody is signed in.
        """
        again = bool(self._issuer_client) and "again" in request.query_params
        person = None if again else await self.person(request)
        if person is not None:
            return person
        if self._issuer_client is None:
            raise PageError("Sign in to the application first, then open the link again.", 401)
        return await self._begin_sign_in(request, self._issuer_client, then, again=again)

    async def _begin_sign_in(
        self, request: Request, client: OAuthClient, then: str, *, again: bool
    ) -> Response:
        browser = self.cookies.browser(request)
        verifier, nonce = new_secret(), new_secret()
        until = self._clock() + _SIGN_IN_SECONDS
        facts = {"verifier": verifier, "nonce": nonce, "then": then, "until": until}
        state = new_state(browser, facts)
        url = client.provider.consent_url(
            await client.endpoints(),
            f"{self.url}/signed-in",
            client.provider.always,
            state=state,
            nonce=nonce,
            code_challenge=s256_challenge(verifier),
            **({"prompt": "login"} if again else {}),
        )
        response = redirect(url)
        self.cookies.set(response, "browser", browser)
        return response

    async def _signed_in(self, request: Request) -> Response:
        query = single_parameters(request) or {}
        client = self._issuer_client
        # Without this, a stranger's sign-in could be finished in this browser.
        begun = read_state(self.cookies.read(request, "browser"), query.get("state", ""))
        if (
            begun is None
            or client is None
            or begun["until"] <= self._clock()
            or query.get("iss", client.provider.issuer) != client.provider.issuer
        ):
            raise PageError("You did not sign in from this browser.", 403)
        if "code" not in query:
            raise PageError("You are not signed in.", 403)
        person = await self._exchanged(client, query["code"], begun)
        claims: Mapping[str, Any] = person.claims
        if len(json.dumps(dict(claims), default=str)) > _MAX_CLAIMS:
            claims = {}
        facts = {"name": person.name, "claims": claims}
        session = await self._sessions.issue("session", owner_of(person), facts)
        then = begun["then"]
        response = redirect(f"{self.url}/{then}" if then else self.url)
        self.cookies.set(response, "session", session)
        return response

    async def _exchanged(self, client: OAuthClient, code: str, begun: Mapping[str, Any]) -> Person:
        sign_in = self._sign_in
        assert isinstance(sign_in, OpenIDSignIn)  # noqa: S101 - there is a client
        _, answer = await client.exchange(
            code, begun["verifier"], f"{self.url}/signed-in", client.provider.always
        )
        issuer = client.provider.issuer or ""
        person = read_person(answer, sign_in, issuer, begun["nonce"], self._clock())
        if person is None:
            raise PageError("The answer of the sign-in is not valid.", 403)
        return person

    def again_link(self, path: str) -> str:
        """Return the link to a page that signs in another person first; empty if it cannot."""
        return f"{self.url}/{path}?again=1" if self._issuer_client else ""

    def answering(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint that answers errors with a page."""

        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except PageError as error:
                status, values = error.status, error.values
            except ToolGuardError as error:
                about = error.connection if isinstance(error, ConnectionTokenError) else "a page"
                _log.warning("connecting %s: %s", about, error)
                status = 503
                values = PageError("The service did not answer as expected: try again.").values
            return self.page(request, "vault_message.html", status=status, **values)

        return answer

    def page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        """Return a page, for a browser that is known from now on."""
        response = page(template, issuer=self.url, status=status, **values)
        self.cookies.set(response, "browser", self.cookies.browser(request))
        return response


def owner_of(person: Person) -> Owner:
    """Return a person as the owner of rows."""
    return Owner(person.issuer, person.subject)


def _issuer_client(sign_in: SignIn, host: Host) -> OAuthClient | None:
    if not isinstance(sign_in, OpenIDSignIn):
        return None
    known = sign_in.issuer or host.issuer
    if known is None:
        raise ValueError('write OpenIDSignIn(..., issuer="https://auth.example.com")')
    provider = openid(known, sign_in.client_id, sign_in.client_secret, title="The issuer")
    provider = replace(provider, always=("openid", *sign_in.scopes))
    return OAuthClient("the sign-in", provider, host.http, host.clock)
