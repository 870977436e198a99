"""The consent page.

The policy is evaluated twice, when the page is shown and when it is answered; the values of the
form can only reduce the grant.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.dev.oauth.authorize import answer_client
from toolguard.dev.oauth.clients import Client, find_client
from toolguard.dev.oauth.config import User
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import open_grant
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.openid import IDENTITY_SCOPES, identity_scopes
from toolguard.dev.oauth.parameters import read_form, read_query
from toolguard.dev.oauth.policies import ScopeDecision, decide
from toolguard.dev.oauth.redirects import parse_redirect, with_parameters
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.sessions import BrowserSession, check_csrf, session_of
from toolguard.dev.oauth.sign_in import bound_form
from toolguard.dev.oauth.sign_in_state import AuthorizationRequest, end_sign_in, find_sign_in
from toolguard.pages.layout import page

__all__ = ["ConnectLink", "ConnectURL", "ConsentPages"]


class ConnectLink(NamedTuple):
    """Where a user connects an account: what the service is called, and the URL."""

    title: str
    url: str


ConnectURL = Callable[[User, str], Awaitable["ConnectLink | None"]]
"""Where ``user`` connects an account and comes back to the URL; None if there is nothing to do."""


@dataclass(frozen=True)
class _Case:
    """A consent to be given: the browser session, the request, the user and the client."""

    session: BrowserSession
    name: str
    request: AuthorizationRequest
    user: User
    client: Client


class ConsentPages:
    """The consent page, shown and answered.

    Args:
        context: the server.
        connect_url: makes the link to connect an account; None for no such link.
    """

    def __init__(self, context: ServerContext, connect_url: ConnectURL | None) -> None:
        self._context = context
        self._connect_url = connect_url

    async def show(self, request: Request) -> Response:
        """Show what the client asks for, or the way to sign in first."""
        name = read_query(request).require("tx")
        case = self._case(request, name)
        return self._to_sign_in(name) if case is None else await self._page(case)

    async def answer(self, request: Request) -> Response:
        """Give the client what the user left ticked, or tell it that they said no."""
        form = await read_form(request)
        name = form.require("tx")
        case = self._case(request, name)
        if case is None:
            return self._to_sign_in(name)
        check_csrf(request, case.session, f"consent {name}", form.get("csrf"))
        if form.require("decision") == "allow":
            return await self._allow(case, form.every("scope"))
        end_sign_in(self._context, case.session, name)
        given = f"{case.user.email} gives {case.client.name} nothing"
        self._context.notes.add(given, "denied on the consent page")
        members = {"error": "access_denied", "error_description": "The user did not allow it"}
        return answer_client(self._context, case.request, case.client.name, **members)

    async def _allow(self, case: _Case, ticked: tuple[str, ...]) -> Response:
        decision = self._decide(case)
        if not ticked and (decision.granted or decision.refused):
            return await self._page(case, error="Leave at least one ticked, or deny")
        if not set(ticked) <= set(decision.granted):
            raise Refusal("invalid_scope", "The form asks for more than the page offered")
        end_sign_in(self._context, case.session, case.name)
        scopes = tuple(scope for scope in decision.granted if scope in ticked)
        self._note(case, decision, scopes)
        code = open_grant(self._context, case.request, case.user, scopes)
        return answer_client(self._context, case.request, case.client.name, code=code)

    def _note(self, case: _Case, decision: ScopeDecision, scopes: tuple[str, ...]) -> None:
        refused = f", which does not grant {' '.join(decision.refused)}" if decision.refused else ""
        self._context.notes.add(
            f"{case.user.email} gives {case.client.name} {' '.join(scopes)}",
            f"by the policy {decision.rule!r}{refused}",
        )

    def _case(self, request: Request, name: str) -> _Case | None:
        """Return the current case; None if no user is signed in in this browser."""
        session = session_of(self._context, request)
        sign_in = find_sign_in(self._context, session, name)
        if session is None or session.user_id is None:
            return None
        if sign_in.request is None:
            raise Refusal("invalid_request", "No application has asked for anything")
        user = self._context.world.user(session.user_id)
        client = find_client(self._context, sign_in.request.client_id)
        if user is None or client is None:
            raise Refusal(
                "access_denied", "The user or the application is not known here", status=403
            )
        return _Case(session, name, sign_in.request, user, client)

    def _decide(self, case: _Case) -> ScopeDecision:
        world, asked = self._context.world, case.request.scopes
        identity = identity_scopes(world, asked)
        others = [scope for scope in asked if scope not in identity]
        decision = decide(world.rules, collect_facts(world, case.user), others)
        return replace(decision, granted=(*identity, *decision.granted))

    async def _page(self, case: _Case, error: str | None = None) -> Response:
        decision = self._decide(case)
        redirect = parse_redirect(case.request.redirect_uri)
        if redirect is None:
            raise Refusal("invalid_request", "The address to return to cannot be read")
        origin = "It registered itself: nobody has checked its name"
        if case.client.client_id.startswith(("https://", "http://")):
            origin = f"It is published by {urlsplit(case.client.client_id).netloc}"
        connect = self._connect_url
        here = with_parameters(self._context.url("consent"), [("tx", case.name)])
        return page(
            "consent.html",
            issuer=self._context.issuer,
            status=400 if error else 200,
            form_targets=[redirect.csp_source],
            decide=bound_form(self._context, case.session, "consent", tx=case.name),
            sign_out=bound_form(self._context, case.session, "sign-out", tx=case.name),
            client=case.client.name,
            origin=origin,
            destination=redirect.origin,
            user=case.user,
            granted=self._words(decision.granted),
            refused=self._words(decision.refused),
            resource=case.request.resource,
            connect=None if connect is None else await connect(case.user, here),
            error=error,
        )

    def _words(self, scopes: Iterable[str]) -> dict[str, str]:
        words = {**IDENTITY_SCOPES, **self._context.world.scopes}
        return {scope: words.get(scope, "Something this server does not know") for scope in scopes}

    def _to_sign_in(self, name: str) -> Response:
        url = with_parameters(self._context.url("sign-in"), [("tx", name)])
        return RedirectResponse(url, 303, {"cache-control": "no-store"})
