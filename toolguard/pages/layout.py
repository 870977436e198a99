"""What every page has: the layout, the stylesheet, and the headers that forbid everything else.

A page is plain HTML with one stylesheet: no scripts, no inline style, no external content, so that
the content security policy can forbid all of that. Jinja2 escapes every value.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from toolguard.parts.extras import explained

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["Form", "load_templates", "page", "stylesheet"]


@dataclass(frozen=True)
class Form:
    """Where a form goes, and what it carries unseen.

    Attributes:
        action: the URL it is posted to.
        hidden: names and values, the CSRF token among them.
    """

    action: str
    hidden: Mapping[str, str]

    def with_hidden(self, **more: str) -> Form:
        """Return this form, carrying ``more`` as well."""
        return Form(self.action, {**self.hidden, **more})


@cache
def load_templates() -> Environment:
    """Return the templates of all pages.

    Call it where a server starts, so that what is missing is said there and not to a browser.

    Raises:
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    with explained():  # an extra: a server that shows no pages does without it
        from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=PackageLoader("toolguard.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(
    template: str,
    /,
    *,
    issuer: str,
    status: int = 200,
    form_targets: Iterable[str] = (),
    **values: Any,
) -> Response:
    """Return a page with the headers that every page has.

    Args:
        template: the name of its file in ``templates``, such as ``"consent.html"``.
        issuer: the URL of the server that shows it, where the stylesheet is.
        status: the HTTP status.
        form_targets: the sources (Content Security Policy 3 §2.3.1) that a form of the page may
            lead to beside this server, through a redirect.
        values: what the template shows; every text is escaped.

    Raises:
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    markup = load_templates().get_template(template).render(values, issuer=issuer)
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
        files("toolguard.pages").joinpath("style.css").read_text("utf-8"),
        media_type="text/css",
        headers={"x-content-type-options": "nosniff", "cache-control": "no-cache"},
    )
