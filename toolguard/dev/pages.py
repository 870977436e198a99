"""The HTML pages of the development server.

Plain HTML with one stylesheet: no scripts, no inline style, no external content, so that the
content security policy can forbid all of that. Every function is pure; text is escaped by
:mod:`toolguard.dev.markup`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from toolguard.dev.markup import Content, Html, document, element
from toolguard.dev.refusals import Endpoint, Refusal
from toolguard.dev.world import Tenant, User

__all__ = [
    "Consent",
    "Form",
    "answering_pages",
    "closing_page",
    "consent_page",
    "display_name",
    "error_page",
    "handover_page",
    "page",
    "provider_page",
    "sign_in_page",
    "stylesheet",
]

_STYLE = files("toolguard.dev").joinpath("style.css").read_text("utf-8")
_MAX_NAME = 60
_PROVIDERS = {"okta": "Okta", "entra": "Entra ID"}


@dataclass(frozen=True)
class Form:
    """Where a form goes, and what it carries unseen.

    Attributes:
        action: the URL it is posted to.
        hidden: names and values, the CSRF token among them.
    """

    action: str
    hidden: Mapping[str, str]

    def render(self, *content: Content) -> Html:
        """Return the form around ``content``."""
        fields = [
            element("input", type="hidden", name=name, value=value)
            for name, value in self.hidden.items()
        ]
        return element("form", *fields, *content, method="post", action=self.action)


def page(
    title: str,
    *content: Content,
    issuer: str,
    status: int = 200,
    form_targets: Iterable[str] = (),
    look: str | None = None,
) -> Response:
    """Return a page with the headers that every page has.

    Args:
        title: the one ``h1``, and the title of the window.
        content: what is below it.
        issuer: this server's issuer URL, where the stylesheet is.
        status: the HTTP status.
        form_targets: the sources (Content Security Policy 3 §2.3.1) that a form of the page may
            lead to beside this server, through a redirect.
        look: the name of a provider whose colours it wears.
    """
    notice = "Development server: it asks for no passwords and protects nothing."
    body = [
        element("p", notice, class_="notice"),
        element("main", element("h1", title), *content, class_=look),
    ]
    markup = document(title=title, stylesheet=f"{issuer}/style.css", body=body)
    return HTMLResponse(markup, status, headers=_headers(form_targets))


def _headers(form_targets: Iterable[str]) -> dict[str, str]:
    form_action = " ".join(["form-action 'self'", *form_targets])
    return {
        "content-security-policy": (
            f"default-src 'none'; style-src 'self'; {form_action}; "
            "frame-ancestors 'none'; base-uri 'none'"
        ),
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }


async def stylesheet(request: Request) -> Response:  # noqa: ARG001 - an endpoint
    """Answer with the stylesheet of all pages."""
    return Response(
        _STYLE,
        media_type="text/css",
        headers={"x-content-type-options": "nosniff", "cache-control": "no-cache"},
    )


def sign_in_page(
    form: Form,
    *,
    issuer: str,
    client: str,
    accounts: Sequence[User],
    email: str = "",
    error: str | None = None,
) -> Response:
    """Return the page that asks for an e-mail address, whose domain selects the tenant."""
    problem = [element("p", error, class_="error", role="alert", id="problem")] if error else []
    people = [element("option", user.name, value=user.email) for user in accounts]
    field = element(
        "input",
        type="email",
        name="email",
        id="email",
        value=email,
        list="accounts",
        autocomplete="username",
        required=True,
        aria_describedby="problem" if error else None,
        aria_invalid="true" if error else None,
    )
    known = [element("li", user.email) for user in accounts]
    return page(
        "Sign in",
        element("p", element("strong", client), " asks you to sign in."),
        *problem,
        form.render(
            element("label", "Your e-mail address", for_="email"),
            field,
            element("datalist", people, id="accounts"),
            element("div", element("button", "Continue", type="submit"), class_="buttons"),
        ),
        element("h2", "People of this world"),
        element("ul", known),
        issuer=issuer,
        status=400 if error else 200,
    )


def provider_page(
    form: Form, *, issuer: str, tenant: Tenant, email: str, user: User | None
) -> Response:
    """Return the sign-in page of a tenant's identity provider, in its style."""
    style = _PROVIDERS[tenant.provider]
    back = Form(form.action, {**form.hidden, "action": "back"}).render(
        element("button", "Use another address", type="submit", class_="second")
    )
    if user is None:
        return page(
            f"{tenant.name} does not know this account",
            element("p", f"There is no {email} in the directory of {tenant.name}."),
            back,
            issuer=issuer,
            status=400,
            look=tenant.provider,
        )
    sign_in = Form(form.action, {**form.hidden, "action": "sign-in"})
    return page(
        f"Sign in to {tenant.name}",
        element("p", f"The identity provider of {tenant.name}, in the style of {style}."),
        element("p", "Development sign-in: one button instead of a password."),
        sign_in.render(
            element(
                "p",
                element("button", f"Sign in as {user.name}", type="submit"),
            ),
        ),
        element("p", email, class_="quiet"),
        back,
        issuer=issuer,
        look=tenant.provider,
    )


@dataclass(frozen=True)
class Consent:
    """What a user is asked to agree to.

    Attributes:
        client: the client's name, as it says it is.
        origin: what is known of where it comes from, as a sentence.
        destination: the redirect URI's origin.
        user: who is asked.
        granted: scopes that can be given, with their words.
        refused: scopes the client asked for that this user cannot give, with their words.
        resource: the server the token will be for.
        connect_url: where the user can connect Google Calendar first; None for no such link.
        form_target: the source of the redirect URI, for the content security policy.
        error: what was wrong with the last answer.
    """

    client: str
    origin: str
    destination: str
    user: User
    granted: Mapping[str, str]
    refused: Mapping[str, str]
    resource: str
    connect_url: str | None
    form_target: str
    error: str | None = None


def consent_page(consent: Consent, form: Form, other_account: Form, *, issuer: str) -> Response:
    """Return the page on which a user decides what a client gets."""
    choices = [_choice(number, *item) for number, item in enumerate(consent.granted.items(), 1)]
    problem = consent.error
    allow = element("button", "Allow", type="submit", name="decision", value="allow")
    deny = element(
        "button",
        "Deny" if choices else "Go back",
        type="submit",
        name="decision",
        value="deny",
        class_="second",
    )
    legend = element("legend", "It may:")
    return page(
        f"Allow {consent.client}?" if choices else f"You cannot allow this to {consent.client}",
        [element("p", problem, class_="error", role="alert")] if problem else None,
        _parties(consent),
        _connect(consent.connect_url),
        form.render(
            element("fieldset", legend, *choices) if choices else None,
            _refused(consent.refused),
            element("div", allow if choices else None, deny, class_="buttons"),
        ),
        element("h2", "Not you?"),
        other_account.render(
            element("button", "Use another account", type="submit", class_="second")
        ),
        issuer=issuer,
        form_targets=[consent.form_target],
        status=400 if problem else 200,
    )


def _parties(consent: Consent) -> Html:
    return element(
        "ul",
        element("li", "You are ", element("strong", consent.user.email)),
        element("li", "The application calls itself ", element("strong", consent.client)),
        element("li", consent.origin),
        element("li", "You return to ", element("code", consent.destination)),
        element("li", "It will act at ", element("code", consent.resource)),
    )


def _choice(number: int, scope: str, words: str) -> Html:
    name = f"scope-{number}"
    box = element("input", type="checkbox", name="scope", value=scope, id=name, checked=True)
    label = element("label", words, " ", element("code", scope, class_="quiet"), for_=name)
    return element("div", box, label, class_="choice")


def _refused(scopes: Mapping[str, str]) -> Html | None:
    if not scopes:
        return None
    items = [
        element("li", words, " ", element("code", scope, class_="quiet"))
        for scope, words in scopes.items()
    ]
    return element(
        "div",
        element("p", "It also asks for what the policy does not give you:"),
        element("ul", items),
    )


def _connect(url: str | None) -> Html | None:
    if url is None:
        return None
    link = element("a", "Connect Google Calendar", href=url, class_="button second")
    return element("p", link)


def handover_page(client: str, url: str, *, issuer: str) -> Response:
    """Return the page that hands ``url`` to an application with a scheme of its own.

    A browser stays on the page when another application opens; so it says that it is done.
    """
    response = page(
        "You can close this window",
        element("p", f"{client} goes on by itself. If it does not:"),
        element("p", element("a", f"Open {client}", href=url, class_="button")),
        issuer=issuer,
    )
    response.headers["refresh"] = f"0; url={url}"
    return response


def closing_page(text: str, *, issuer: str) -> Response:
    """Return the page at the end of a way that leads nowhere else."""
    return page("You can close this window", element("p", text), issuer=issuer)


def error_page(refusal: Refusal, *, issuer: str) -> Response:
    """Return the page for a request that cannot go on, and must not be redirected anywhere."""
    return page(
        "This cannot go on",
        element("p", refusal.description),
        element("p", "Start again in the application that sent you here."),
        element("p", element("code", refusal.error), class_="quiet"),
        issuer=issuer,
        status=refusal.status,
    )


def answering_pages(endpoint: Endpoint, issuer: str) -> Endpoint:
    """Return ``endpoint`` with refusals shown as pages."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return error_page(refusal, issuer=issuer)

    return answer


def display_name(name: str) -> str:
    """Return a name that a stranger chose, fit to be shown.

    Without control, format and direction characters, which could rearrange the sentence around
    it, in one line, and short.
    """
    spaced = "".join(" " if char.isspace() else char for char in name)
    shown = "".join(char for char in spaced if unicodedata.category(char)[0] != "C")
    words = " ".join(shown.split())
    return words if len(words) <= _MAX_NAME else words[: _MAX_NAME - 1].rstrip() + "…"
