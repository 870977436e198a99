"""The OAuth endpoints and consent pages of the Google-like provider.

They are a consent page, a token endpoint, and a page on which people revoke their consents. There
are no passwords.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cachetools import TTLCache
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts, IssuedTokens
from toolguard.dev.oauth.parameters import Parameters, read_form, read_query
from toolguard.dev.oauth.redirects import parse_redirect, with_parameters
from toolguard.dev.oauth.refusals import Refusal, answering_json, answering_pages
from toolguard.pages.layout import Form, page, stylesheet
from toolguard.parsing.pkce import s256_challenge

__all__ = ["ConsentScreen", "RegisteredClient"]

_AUTHORIZE = "/o/oauth2/v2/auth"
_CONNECTIONS = "/connections"
_COOKIE = "google_dev"
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_WORDS: Mapping[str, str] = {
    CALENDAR: "See, edit, share and permanently delete all your calendars",
    CALENDAR_READONLY: "See and download all your calendars",
}
_PAGE_LIFETIME = 600
_CODE_LIFETIME = 60


@dataclass(frozen=True)
class RegisteredClient:
    """An application that may ask for access to accounts.

    Attributes:
        client_id: who it is.
        client_secret: what proves it.
        redirect_uri: the one place where its users are sent back to.
        name: what the consent page calls it.
        scopes: the scopes that it may ask for.
    """

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    name: str
    scopes: tuple[str, ...] = (CALENDAR, CALENDAR_READONLY)


@dataclass(frozen=True)
class _Asked:
    """What a client asks the owner of an account for."""

    client: RegisteredClient
    scopes: tuple[str, ...]
    state: tuple[tuple[str, str], ...]
    challenge: str


@dataclass(frozen=True)
class _Shown:
    """A page that waits for its form, and the cookie of the browser that it was shown in."""

    browser: str = field(repr=False)
    asked: _Asked | None


class ConsentScreen:
    """The provider's OAuth endpoints over ``accounts``.

    Args:
        accounts: whose owners consent.
        clients: the applications that may ask.
        origin: where it listens, such as ``"http://127.0.0.1:8801"``.
    """

    def __init__(
        self, accounts: Accounts, clients: Sequence[RegisteredClient], *, origin: str
    ) -> None:
        self._accounts = accounts
        self._clients = {client.client_id: client for client in clients}
        self._origin = origin
        clock = accounts.clock
        self._shown: TTLCache[str, _Shown] = TTLCache(1_000, _PAGE_LIFETIME, timer=clock)
        self._codes: TTLCache[str, tuple[_Asked, str]] = TTLCache(1_000, _CODE_LIFETIME, clock)

    def routes(self) -> list[Route]:
        """Return the endpoints, at Google's paths."""
        pages = {
            _AUTHORIZE: {"GET": self._ask, "POST": self._decide},
            _CONNECTIONS: {"GET": self._show_connections, "POST": self._remove_connections},
        }
        return [
            *(
                Route(path, answering_pages(endpoint, self._origin), methods=[method])
                for path, endpoints in pages.items()
                for method, endpoint in endpoints.items()
            ),
            Route("/token", answering_json(self._token), methods=["POST"]),
            Route("/style.css", stylesheet, methods=["GET"]),
        ]

    async def _ask(self, request: Request) -> Response:
        query = read_query(request)
        asked = self._asked(query)
        client, target = asked.client, parse_redirect(asked.client.redirect_uri)
        return self._with_form(
            "google_consent.html",
            request,
            "decide",
            asked,
            client=client.name,
            permissions=[_WORDS.get(scope, f"Use {scope}") for scope in asked.scopes],
            login_hint=query.get("login_hint") or "",
            form_targets=[target.csp_source] if target is not None else [],
        )

    def _asked(self, query: Parameters) -> _Asked:
        client = self._clients.get(query.require("client_id"))
        if client is None or query.require("redirect_uri") != client.redirect_uri:
            raise Refusal(
                "redirect_uri_mismatch", "The client id or the redirect URI is not registered"
            )
        scopes = tuple(query.require("scope").split(" "))
        unknown = [scope for scope in scopes if scope not in client.scopes]
        if query.require("response_type") != "code" or unknown:
            raise Refusal("invalid_request", f"Only codes, and only {' '.join(client.scopes)}")
        challenge = query.require("code_challenge")
        # RFC 9700 §2.1.1: PKCE, and not the method that shows the verifier.
        if query.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise Refusal("invalid_request", "PKCE with S256 is required")
        state = query.get("state")
        return _Asked(client, scopes, (("state", state),) if state else (), challenge)

    async def _decide(self, request: Request) -> Response:
        form = await read_form(request)
        asked = self._checked(request, form).asked
        if asked is None:
            raise Refusal("invalid_request", "This form belongs to another page")
        if form.get("decision") != "allow":
            answer: tuple[str, str] = ("error", "access_denied")
        else:
            code = secrets.token_urlsafe(32)
            self._codes[code] = (asked, _account(form))
            answer = ("code", code)
        # 303: the browser must not post the form again to where it leads (RFC 9700 §4.12).
        url = with_parameters(asked.client.redirect_uri, [answer, *asked.state])
        return RedirectResponse(url, 303, {"referrer-policy": "no-referrer"})

    async def _token(self, request: Request) -> Response:
        form = await read_form(request)
        client = self._clients.get(form.require("client_id"))
        shown = form.require("client_secret")
        if client is None or not hmac.compare_digest(shown.encode(), client.client_secret.encode()):
            raise Refusal(
                "invalid_client", "The client id or the client secret is wrong", status=401
            )
        if form.require("grant_type") == "authorization_code":
            issued = self._redeemed(client, form)
        elif form.get("grant_type") == "refresh_token":
            issued = self._accounts.refresh(form.require("refresh_token"))
        else:
            raise Refusal(
                "unsupported_grant_type", "grant_type must be authorization_code or refresh_token"
            )
        if issued is None:
            raise Refusal("invalid_grant", "Token has been expired or revoked.")
        body = {
            "access_token": issued.access_token,
            "expires_in": issued.expires_in,
            "refresh_token": issued.refresh_token,
            "scope": " ".join(issued.scopes),
            "token_type": "Bearer",
        }
        return JSONResponse(body)

    def _redeemed(self, client: RegisteredClient, form: Parameters) -> IssuedTokens | None:
        asked, account = self._codes.pop(form.require("code"), (None, ""))
        if asked is None or asked.client != client:
            return None
        if form.get("redirect_uri") != client.redirect_uri:
            return None
        challenge = s256_challenge(form.require("code_verifier"))
        if not hmac.compare_digest(challenge, asked.challenge):
            return None
        return self._accounts.grant(account, asked.scopes)

    async def _show_connections(self, request: Request) -> Response:
        return self._with_form("google_connections.html", request, "remove", None)

    async def _remove_connections(self, request: Request) -> Response:
        form = await read_form(request)
        self._checked(request, form)
        account = _account(form)
        self._accounts.revoke_all(account)
        text = f"No application has access to {account} now."
        return page("closing.html", issuer=self._origin, text=text)

    def _with_form(
        self, template: str, request: Request, form: str, asked: _Asked | None, **values: Any
    ) -> Response:
        """Return a page whose form, called ``form`` in the template, is good once and here only."""
        browser = request.cookies.get(_COOKIE) or secrets.token_urlsafe(32)
        ticket = secrets.token_urlsafe(32)
        self._shown[ticket] = _Shown(browser, asked)
        values[form] = Form(request.url.path, {"ticket": ticket})
        response = page(template, issuer=self._origin, **values)
        response.set_cookie(_COOKIE, browser, httponly=True, samesite="lax", path="/")
        return response

    def _checked(self, request: Request, form: Parameters) -> _Shown:
        shown = self._shown.pop(form.get("ticket") or "", None)
        browser = request.cookies.get(_COOKIE, "")
        if shown is None or not hmac.compare_digest(browser.encode(), shown.browser.encode()):
            raise Refusal("access_denied", "This form was not sent from its page", status=403)
        return shown


def _account(form: Parameters) -> str:
    account = form.require("account").lower()
    if not _EMAIL.fullmatch(account):
        raise Refusal("invalid_request", "Write the e-mail address of an account")
    return account
