"""The pages on which people connect accounts, and see what they have connected.

A link is a ticket for one person. The browser that opens it has to be signed in as that person, at
the beginning and when the service sends it back, so that nobody can be tricked into connecting an
account for another person, or the other way round.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolguard.errors import ConnectionTokenError
from toolguard.pages.layout import load_templates, page, stylesheet
from toolguard.pages.names import display_name
from toolguard.parsing.pkce import s256_challenge
from toolguard.vault.browser import (
    Cookies,
    new_state,
    read_form,
    read_state,
    redirect,
    single_parameters,
)
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.oauth_client import OAuthClient, new_secret
from toolguard.vault.presets import openid
from toolguard.vault.sign_in import OpenIDSignIn, Person, read_person
from toolguard.vault.slips import Slip

if TYPE_CHECKING:
    from toolguard.vault.vault import Connected, Vault

__all__ = ["connect_routes"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger("toolguard.vault")

_SIGN_IN_SECONDS = 600.0
_OLD_LINK = "This link is no longer good: ask for a new one in the application that gave it to you."


class _PageError(Exception):
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


def connect_routes(vault: Vault) -> list[Route]:
    """Return the connect pages of a vault, for the root of an application.

    A server of the SDK or of fastmcp that a guard with this vault protects serves them by itself.

    Args:
        vault: the vault.

    Raises:
        ValueError: if the vault does not know its origin, or how people sign in.
        MissingTemplatesError: if Jinja2 is not installed.
    """
    if vault.pages_url is None or vault.sign_in is None:
        raise ValueError(
            'write Vault(..., public_url="https://mcp.example.com", sign_in=OpenIDSignIn(...))'
        )
    load_templates()
    return _ConnectPages(vault, vault.pages_url).routes()


class _ConnectPages:
    """The pages of one vault."""

    def __init__(self, vault: Vault, url: str) -> None:
        self._vault = vault
        self._url = url
        self._cookies = Cookies(self._url)
        self._issuer_client = self._new_issuer_client()

    def routes(self) -> list[Route]:
        get = {
            "/connections": self._list,
            "/connections/link/{ticket}": self._open_link,
            "/connections/go/{ticket}": self._go,
            "/connections/signed-in": self._signed_in,
            "/connections/callback/{connection}": self._finish,
        }
        return [
            *(Route(path, self._answering(each), methods=["GET"]) for path, each in get.items()),
            Route("/connections/disconnect", self._answering(self._disconnect), methods=["POST"]),
            Route("/connections/style.css", stylesheet, methods=["GET"]),
        ]

    # --- connecting

    async def _open_link(self, request: Request) -> Response:
        ticket = request.path_params["ticket"]
        slip = await self._vault.slips.peek("ticket", ticket)
        if slip is None:
            raise _PageError(_OLD_LINK, 410)
        person = await self._person_or_sign_in(request, f"link/{ticket}")
        if isinstance(person, Response):
            return person
        self._check_owner(slip, person, ticket)
        client = self._client(slip.facts["connection"])
        scopes = await self._scopes(slip)
        return self._page(
            request,
            "vault_connect.html",
            service=client.provider.title,
            person=display_name(person.shown),
            for_tenant=slip.facts["owner"] if slip.facts["kind"] == "tenant" else "",
            scopes=scopes,
            go=f"{self._url}/go/{ticket}",
        )

    async def _go(self, request: Request) -> Response:
        """Use the ticket up, and send its person to the service."""
        ticket = request.path_params["ticket"]
        slip = await self._vault.slips.peek("ticket", ticket)
        person = await self._person(request)
        if slip is None or not isinstance(person, Person):
            raise _PageError(_OLD_LINK, 410)
        self._check_owner(slip, person, ticket)
        if await self._vault.slips.take("ticket", ticket) is None:
            raise _PageError(_OLD_LINK, 410)
        client = self._client(slip.facts["connection"])
        verifier, scopes = new_secret(), await self._scopes(slip)
        facts = {**slip.facts, "scopes": scopes, "verifier": verifier}
        state = await self._vault.slips.issue("consent", slip.owner, facts)
        url = client.provider.consent_url(
            await client.endpoints(),
            self._callback(client),
            scopes,
            state=state,
            code_challenge=s256_challenge(verifier),
            **({"login_hint": person.name} if client.provider.login_hint and person.name else {}),
        )
        return redirect(url)

    async def _finish(self, request: Request) -> Response:
        query = single_parameters(request) or {}
        slip = await self._vault.slips.take("consent", query.get("state", ""))
        person = await self._person(request)
        if slip is None or not isinstance(person, Person) or slip.owner != _owner(person):
            raise _PageError("You did not ask for this connection in this browser.", 403)
        client = self._client(slip.facts["connection"])
        title = client.provider.title
        issuer = client.provider.issuer
        # RFC 9207 §2.4, RFC 9700 §4.4: the answer has to come from the service that was asked.
        if request.path_params["connection"] != client.name or (
            issuer is not None and query.get("iss", issuer) != issuer
        ):
            raise _PageError("This answer is not from the service that was asked.", 403)
        is_given, return_to = "code" in query and "error" not in query, slip.facts.get("return_to")
        grant = await self._exchange_and_keep(client, query["code"], slip) if is_given else None
        if return_to:
            return redirect(return_to)
        if grant is None:
            raise _PageError(f"{title} was not connected.", 200, "Not connected")
        return self._connected(request, title, person, grant)

    async def _exchange_and_keep(self, client: OAuthClient, code: str, slip: Slip) -> Grant:
        """Keep what the service gives, unless the person is forgotten meanwhile."""
        running = await self._vault.slips.issue("exchange", slip.owner, {})
        grant, _ = await client.exchange(
            code, slip.facts["verifier"], self._callback(client), slip.facts["scopes"]
        )
        key = GrantKey(_grant_owner(slip), client.name)
        await self._vault.keep(key, grant, slip.owner)
        # Asked after the grant is kept: who is forgotten from now on is forgotten with it.
        if await self._vault.slips.take("exchange", running) is None:
            await self._vault.drop(key)
            raise _PageError(f"{client.provider.title} was not connected.", 410, "Not connected")
        return grant

    def _connected(self, request: Request, title: str, person: Person, grant: Grant) -> Response:
        account = f" ({display_name(grant.account)})" if grant.account else ""
        return self._page(
            request,
            "vault_message.html",
            heading="You can close this window",
            text=f"{title}{account} is connected for {display_name(person.shown)}.",
            link=self._url,
            link_text="Your connections",
        )

    async def _scopes(self, slip: Slip) -> list[str]:
        """Return the scopes to ask for: what was granted stays, what is missing is added."""
        client = self._client(slip.facts["connection"])
        key = GrantKey(_grant_owner(slip), client.name)
        try:
            kept = await self._vault.store.get(key)
        except ConnectionTokenError:
            kept = None
        held = kept.grant.scopes if kept is not None else ()
        asked = client.provider.asked(slip.facts["scopes"])
        return list(dict.fromkeys((*held, *asked)))

    def _check_owner(self, slip: Slip, person: Person, ticket: str) -> None:
        if slip.owner == _owner(person):
            return
        _log.warning("a connect link of %r was opened by %r", slip.owner.id, person.subject)
        again = f"{self._url}/link/{ticket}?again=1" if self._issuer_client else ""
        raise _PageError(
            f"This link is for another person. You are signed in as "
            f"{display_name(person.shown)}, and nothing was connected.",
            403,
            link=again,
            link_text="Sign in as someone else",
        )

    # --- what is connected

    async def _list(self, request: Request) -> Response:
        person = await self._person_or_sign_in(request, "")
        if isinstance(person, Response):
            return person
        connected = await self._vault.list(person.issuer, person.subject)
        browser = self._cookies.browser(request)
        response = page(
            "vault_connections.html",
            issuer=self._url,
            person=display_name(person.shown),
            csrf=self._cookies.form_proof(browser),
            connections=[self._described(each) for each in connected],
        )
        self._cookies.set(response, "browser", browser)
        return response

    async def _disconnect(self, request: Request) -> Response:
        form = await read_form(request)
        person = await self._person(request)
        if not isinstance(person, Person) or not self._cookies.is_own_form(
            request, form.get("csrf", "")
        ):
            raise _PageError("This form was not sent from your connections.", 403)
        await self._vault.disconnect(person.issuer, person.subject, form.get("connection", ""))
        return redirect(self._url)

    def _described(self, each: Connected) -> dict[str, Any]:
        client = self._vault.clients.get(each.connection)
        return {
            "connection": each.connection,
            "service": client.provider.title if client else each.connection,
            "account": display_name(each.account),
            "scopes": [display_name(scope) for scope in each.scopes],
            "works": each.works,
            "connected_on": _day(each.connected_at),
            "used_on": _day(each.used_at),
        }

    # --- signing in

    async def _person(self, request: Request) -> Person | Response | None:
        sign_in = self._vault.sign_in
        if not isinstance(sign_in, OpenIDSignIn):
            assert sign_in is not None  # noqa: S101 - checked by the constructor
            return await sign_in(request)
        slip = await self._vault.slips.peek("session", self._cookies.read(request, "session"))
        if slip is None:
            return None
        return Person(slip.owner.issuer, slip.owner.id, slip.facts["name"])

    async def _person_or_sign_in(self, request: Request, then: str) -> Person | Response:
        again = bool(self._issuer_client) and "again" in request.query_params
        person = None if again else await self._person(request)
        if person is not None:
            return person
        if self._issuer_client is None:
            raise _PageError("Sign in to the application first, then open the link again.", 401)
        return await self._begin_sign_in(request, self._issuer_client, then, again=again)

    async def _begin_sign_in(
        self, request: Request, client: OAuthClient, then: str, *, again: bool
    ) -> Response:
        browser = self._cookies.browser(request)
        verifier, nonce = new_secret(), new_secret()
        until = self._vault.clock() + _SIGN_IN_SECONDS
        facts = {"verifier": verifier, "nonce": nonce, "then": then, "until": until}
        state = new_state(browser, facts)
        url = client.provider.consent_url(
            await client.endpoints(),
            f"{self._url}/signed-in",
            client.provider.always,
            state=state,
            nonce=nonce,
            code_challenge=s256_challenge(verifier),
            **({"prompt": "login"} if again else {}),
        )
        response = redirect(url)
        self._cookies.set(response, "browser", browser)
        return response

    async def _signed_in(self, request: Request) -> Response:
        query = single_parameters(request) or {}
        client = self._issuer_client
        # Without this, a stranger's sign-in could be finished in this browser.
        begun = read_state(self._cookies.read(request, "browser"), query.get("state", ""))
        if (
            begun is None
            or client is None
            or begun["until"] <= self._vault.clock()
            or query.get("iss", client.provider.issuer) != client.provider.issuer
        ):
            raise _PageError("You did not sign in from this browser.", 403)
        if "code" not in query:
            raise _PageError("You are not signed in.", 403)
        person = await self._exchanged(client, query["code"], begun)
        session = await self._vault.slips.issue("session", _owner(person), {"name": person.name})
        then = begun["then"]
        response = redirect(f"{self._url}/{then}" if then else self._url)
        self._cookies.set(response, "session", session)
        return response

    async def _exchanged(self, client: OAuthClient, code: str, begun: Mapping[str, Any]) -> Person:
        sign_in = self._vault.sign_in
        assert isinstance(sign_in, OpenIDSignIn)  # noqa: S101 - there is a client
        _, answer = await client.exchange(
            code, begun["verifier"], f"{self._url}/signed-in", client.provider.always
        )
        issuer = client.provider.issuer or ""
        person = read_person(answer, sign_in, issuer, begun["nonce"], self._vault.clock())
        if person is None:
            raise _PageError("The answer of the sign-in is not valid.", 403)
        return person

    def _new_issuer_client(self) -> OAuthClient | None:
        sign_in = self._vault.sign_in
        if not isinstance(sign_in, OpenIDSignIn):
            return None
        issuer = sign_in.issuer or self._vault.issuer
        if issuer is None:
            raise ValueError('write OpenIDSignIn(..., issuer="https://auth.example.com")')
        provider = openid(issuer, sign_in.client_id, sign_in.client_secret, title="The issuer")
        provider = replace(provider, always=("openid", *sign_in.scopes))
        return OAuthClient("the sign-in", provider, self._vault.http, self._vault.clock)

    # --- answering

    def _answering(self, endpoint: Endpoint) -> Endpoint:
        async def answer(request: Request) -> Response:
            try:
                return await endpoint(request)
            except _PageError as error:
                status, values = error.status, error.values
            except ConnectionTokenError as error:
                _log.warning("connecting %s: %s", error.connection, error)
                status = 503
                values = _PageError("The service did not answer as expected: try again.").values
            return self._page(request, "vault_message.html", status=status, **values)

        return answer

    def _page(
        self, request: Request, template: str, *, status: int = 200, **values: Any
    ) -> Response:
        response = page(template, issuer=self._url, status=status, **values)
        self._cookies.set(response, "browser", self._cookies.browser(request))
        return response

    def _client(self, connection: str) -> OAuthClient:
        client = self._vault.clients.get(connection)
        if client is None:
            raise _PageError(_OLD_LINK, 410)
        return client

    def _callback(self, client: OAuthClient) -> str:
        return f"{self._url}/callback/{client.name}"


def _owner(person: Person) -> Owner:
    return Owner(person.issuer, person.subject)


def _grant_owner(slip: Slip) -> Owner:
    return Owner(slip.owner.issuer, slip.facts["owner"], slip.facts["kind"])


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%d %B %Y")
