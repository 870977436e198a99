"""The pages on which people connect accounts, and see what they have connected.

A link is a ticket for one person. The browser that opens it has to be signed in as that person, at
the beginning and when the service sends it back, so that nobody can be tricked into connecting an
account for another person, or the other way round.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolguard.errors import ConnectionTokenError
from toolguard.pages.layout import page
from toolguard.pages.names import display_name
from toolguard.parsing.pkce import s256_challenge
from toolguard.vault.browser import (
    read_form,
    redirect,
    single_parameters,
)
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.oauth_client import OAuthClient, new_secret
from toolguard.vault.sign_in import Person
from toolguard.vault.slips import Slip
from toolguard.vault.visitors import PageError, Visitors, owner_of

if TYPE_CHECKING:
    from toolguard.vault.vault import Connected, Vault

__all__ = ["connect_routes"]

_log = logging.getLogger("toolguard.vault")

_OLD_LINK = "This link is no longer good: ask for a new one in the application that gave it to you."


def connect_routes(vault: Vault) -> list[Route]:
    """Return the connect pages of a vault, for the root of an application.

    A server of the SDK or of fastmcp that a guard with this vault protects serves them by itself.

    Args:
        vault: the vault.

    Raises:
        ValueError: if the vault does not know its origin, or how people sign in.
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    return _ConnectPages(vault, Visitors(vault, vault.slips)).routes()


class _ConnectPages:
    """The pages of one vault."""

    def __init__(self, vault: Vault, visitors: Visitors) -> None:
        self._vault = vault
        self._visitors = visitors
        self._url = visitors.url

    def routes(self) -> list[Route]:
        get = {
            "/connections": self._list,
            "/connections/link/{ticket}": self._open_link,
            "/connections/go/{ticket}": self._go,
            "/connections/callback/{connection}": self._finish,
        }
        return [
            *(
                Route(path, self._visitors.answering(each), methods=["GET"])
                for path, each in get.items()
            ),
            Route(
                "/connections/disconnect",
                self._visitors.answering(self._disconnect),
                methods=["POST"],
            ),
            *self._visitors.routes(),
        ]

    # --- connecting

    async def _open_link(self, request: Request) -> Response:
        ticket = request.path_params["ticket"]
        slip = await self._vault.slips.peek("ticket", ticket)
        if slip is None:
            raise PageError(_OLD_LINK, 410)
        person = await self._visitors.person_or_sign_in(request, f"link/{ticket}")
        if isinstance(person, Response):
            return person
        self._check_owner(slip, person, ticket)
        client = self._client(slip.facts["connection"])
        scopes = await self._scopes(slip)
        return self._visitors.page(
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
        person = await self._visitors.person(request)
        if slip is None or not isinstance(person, Person):
            raise PageError(_OLD_LINK, 410)
        self._check_owner(slip, person, ticket)
        if await self._vault.slips.take("ticket", ticket) is None:
            raise PageError(_OLD_LINK, 410)
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
        person = await self._visitors.person(request)
        if slip is None or not isinstance(person, Person) or slip.owner != owner_of(person):
            raise PageError("You did not ask for this connection in this browser.", 403)
        client = self._client(slip.facts["connection"])
        title = client.provider.title
        issuer = client.provider.issuer
        # RFC 9207 §2.4, RFC 9700 §4.4: the answer has to come from the service that was asked.
        if request.path_params["connection"] != client.name or (
            issuer is not None and query.get("iss", issuer) != issuer
        ):
            raise PageError("This answer is not from the service that was asked.", 403)
        is_given, return_to = "code" in query and "error" not in query, slip.facts.get("return_to")
        grant = await self._exchange_and_keep(client, query["code"], slip) if is_given else None
        if return_to:
            return redirect(return_to)
        if grant is None:
            raise PageError(f"{title} was not connected.", 200, "Not connected")
        return self._connected(request, title, person, grant)

    async def _exchange_and_keep(self, client: OAuthClient, code: str, slip: Slip) -> Grant:
        """Keep what the service gives, unless the person is forgotten meanwhile."""
        running = await self._vault.slips.issue("exchange", slip.owner, {})
        grant, _ = await client.exchange(
            code, slip.facts["verifier"], self._callback(client), slip.facts["scopes"]
        )
        key = GrantKey(_grant_owner(slip), client.name)
        await self._vault.keep(key, grant, slip.owner)
        # Asked after the grant is kept: a person forgotten from now on is forgotten with it.
        if await self._vault.slips.take("exchange", running) is None:
            await self._vault.drop(key)
            raise PageError(f"{client.provider.title} was not connected.", 410, "Not connected")
        return grant

    def _connected(self, request: Request, title: str, person: Person, grant: Grant) -> Response:
        account = f" ({display_name(grant.account)})" if grant.account else ""
        return self._visitors.page(
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
        if slip.owner == owner_of(person):
            return
        _log.warning("a connect link of %r was opened by %r", slip.owner.id, person.subject)
        again = self._visitors.again_link(f"link/{ticket}")
        raise PageError(
            f"This link is for another person. You are signed in as "
            f"{display_name(person.shown)}, and nothing was connected.",
            403,
            link=again,
            link_text="Sign in as someone else",
        )

    # --- what is connected

    async def _list(self, request: Request) -> Response:
        person = await self._visitors.person_or_sign_in(request, "")
        if isinstance(person, Response):
            return person
        connected = await self._vault.list(person.issuer, person.subject)
        browser = self._visitors.cookies.browser(request)
        response = page(
            "vault_connections.html",
            issuer=self._url,
            person=display_name(person.shown),
            csrf=self._visitors.cookies.form_proof(browser),
            connections=[self._described(each) for each in connected],
        )
        self._visitors.cookies.set(response, "browser", browser)
        return response

    async def _disconnect(self, request: Request) -> Response:
        form = await read_form(request)
        person = await self._visitors.person(request)
        if not isinstance(person, Person) or not self._visitors.cookies.is_own_form(
            request, form.get("csrf", "")
        ):
            raise PageError("This form was not sent from your connections.", 403)
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

    # --- answering

    def _client(self, connection: str) -> OAuthClient:
        client = self._vault.clients.get(connection)
        if client is None:
            raise PageError(_OLD_LINK, 410)
        return client

    def _callback(self, client: OAuthClient) -> str:
        return f"{self._url}/callback/{client.name}"


def _grant_owner(slip: Slip) -> Owner:
    return Owner(slip.owner.issuer, slip.facts["owner"], slip.facts["kind"])


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%d %B %Y")
