"""The pages on which a user signs in at their tenant's identity provider."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.dev.oauth.clients import find_client
from toolguard.dev.oauth.config import Tenant, User
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.identity import provider_claims, read_identity
from toolguard.dev.oauth.parameters import Parameters, read_form, read_query
from toolguard.dev.oauth.redirects import with_parameters
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.sessions import (
    BrowserSession,
    check_csrf,
    csrf_token,
    open_session,
    session_of,
)
from toolguard.dev.oauth.sign_in_state import (
    SignInState,
    begin_sign_in,
    end_sign_in,
    find_sign_in,
    issue_provider_code,
    note_email,
    redeem_provider_code,
)
from toolguard.pages.layout import Form, page

__all__ = ["SignInPages", "bound_form"]

_MAX_EMAIL = 320


class SignInPages:
    """The pages from "who are you?" to a signed-in session.

    Args:
        context: the server.
    """

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def ask(self, request: Request) -> Response:
        """Show the page that asks for an address; or begin, with ``return_to``, to show it."""
        query = read_query(request)
        return_to = query.get("return_to")
        if return_to is not None:
            return self._begin(request, return_to)
        session, sign_in = self._current(request, query)
        return self._ask(session, sign_in)

    async def select(self, request: Request) -> Response:
        """Let the domain of the address select the tenant."""
        form = await read_form(request)
        session, sign_in = self._current(request, form, "sign-in")
        email = (form.get("email") or "").strip()[:_MAX_EMAIL]
        if self._context.world.tenant_for(email) is None:
            error = (
                "No tenant of this world has the domain of this address: write one of those below"
            )
            return self._ask(session, sign_in, email=email, error=error)
        note_email(self._context, sign_in, email)
        return self._to("provider", tx=sign_in.name)

    async def provider(self, request: Request) -> Response:
        """Show the sign-in page of the tenant's identity provider."""
        session, sign_in = self._current(request, read_query(request))
        if sign_in.email is None:
            return self._to("sign-in", tx=sign_in.name)
        tenant, user = self._directory(sign_in.email)
        form = bound_form(self._context, session, "provider", tx=sign_in.name)
        return page(
            "provider.html",
            issuer=self._context.issuer,
            status=400 if user is None else 200,
            tenant=tenant,
            email=sign_in.email,
            user=user,
            sign_in=form.with_hidden(action="sign-in"),
            back=form.with_hidden(action="back"),
        )

    async def vouch(self, request: Request) -> Response:
        """Be the identity provider: send the browser back with a code, or to another address."""
        form = await read_form(request)
        _, sign_in = self._current(request, form, "provider")
        action = form.require("action")
        if action == "back" or sign_in.email is None:
            note_email(self._context, sign_in, None)
            return self._to("sign-in", tx=sign_in.name)
        _, user = self._directory(sign_in.email)
        if action != "sign-in" or user is None:
            raise Refusal("access_denied", "The identity provider does not know you", status=403)
        code = issue_provider_code(self._context, sign_in)
        return self._to("callback", state=sign_in.name, code=code)

    async def callback(self, request: Request) -> Response:
        """Take what the provider says about the user, and sign the browser in."""
        query = read_query(request)
        session = session_of(self._context, request)
        sign_in = find_sign_in(self._context, session, query.require("state"))
        redeem_provider_code(self._context, sign_in, query.require("code"))
        tenant, account = self._directory(sign_in.email or "")
        claims = {} if account is None else provider_claims(tenant, account)
        user = self._context.world.user_by_email(read_identity(tenant, claims).email)
        if user is None:
            raise Refusal("access_denied", "There is no such user here", status=403)
        response = self._to("consent", tx=sign_in.name)
        session = open_session(self._context, response, user_id=user.id, instead_of=session)
        if sign_in.return_to is not None:
            end_sign_in(self._context, session, sign_in.name)
            response.headers["location"] = sign_in.return_to
        return response

    async def sign_out(self, request: Request) -> Response:
        """Sign the user out, and continue the current sign-in as another user."""
        form = await read_form(request)
        session, sign_in = self._current(request, form, "sign-out")
        response = self._to("sign-in", tx=sign_in.name)
        open_session(self._context, response, user_id=None, instead_of=session)
        note_email(self._context, sign_in, None)
        return response

    async def done(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint
        """Show the page at the end of a way that leads nowhere else."""
        return page("closing.html", issuer=self._context.issuer, text="Everything is done here.")

    def _begin(self, request: Request, return_to: str) -> Response:
        if not self._context.owns(return_to):
            raise Refusal("invalid_request", "return_to is not an address of this server")
        session = session_of(self._context, request)
        if session is not None and session.user_id is not None:
            return RedirectResponse(return_to, 303, {"cache-control": "no-store"})
        response = self._to("sign-in")
        if session is None:
            session = open_session(self._context, response, user_id=None, instead_of=None)
        name = begin_sign_in(self._context, session, return_to=return_to)
        response.headers["location"] = with_parameters(self._context.url("sign-in"), [("tx", name)])
        return response

    def _current(
        self, request: Request, parameters: Parameters, form: str | None = None
    ) -> tuple[BrowserSession, SignInState]:
        """Return the browser's session and sign-in; for a form, once it has proved itself."""
        session = session_of(self._context, request)
        name = parameters.require("tx")
        if session is None:
            raise Refusal("invalid_request", "This browser has not begun to sign in")
        sign_in = find_sign_in(self._context, session, name)
        if form is not None:
            check_csrf(request, session, f"{form} {name}", parameters.get("csrf"))
        return session, sign_in

    def _ask(
        self,
        session: BrowserSession,
        sign_in: SignInState,
        *,
        email: str = "",
        error: str | None = None,
    ) -> Response:
        asked = sign_in.request
        client = None if asked is None else find_client(self._context, asked.client_id)
        return page(
            "sign_in.html",
            issuer=self._context.issuer,
            status=400 if error else 200,
            sign_in=bound_form(self._context, session, "sign-in", tx=sign_in.name),
            client="This development server" if client is None else client.name,
            accounts=self._context.world.users,
            email=email,
            error=error,
        )

    def _directory(self, email: str) -> tuple[Tenant, User | None]:
        world = self._context.world
        tenant = world.tenant_for(email)
        if tenant is None:
            raise Refusal("invalid_request", "No tenant has the domain of this address")
        return tenant, world.user_by_email(email)

    def _to(self, step: str, **parameters: str) -> Response:
        url = self._context.url(step)
        location = with_parameters(url, parameters.items()) if parameters else url
        return RedirectResponse(location, 303, {"cache-control": "no-store"})


def bound_form(context: ServerContext, session: BrowserSession, step: str, *, tx: str) -> Form:
    """Return the form of ``step`` for the sign-in ``tx``, bound to this browser."""
    token = csrf_token(session, f"{step} {tx}")
    return Form(context.url(step), {"tx": tx, "csrf": token})
