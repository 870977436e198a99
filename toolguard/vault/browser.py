"""What a browser sends and keeps: cookies, queries that mean one thing, small forms."""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.vault.oauth_client import new_secret

__all__ = ["Cookies", "read_form", "redirect", "single_parameters"]

_MAX_FORM = 8 * 1024
_LIFETIME = 1_800


class Cookies:
    """The two cookies of the connect pages: one names the browser, one the session.

    Args:
        origin: the origin of the pages; on https the cookies are bound to it (``__Host-``).
    """

    def __init__(self, origin: str) -> None:
        self._is_secure = origin.startswith("https:")
        self._prefix = "__Host-" if self._is_secure else ""

    def read(self, request: Request, name: Literal["browser", "session"]) -> str:
        """Return the value of a cookie; empty if there is none."""
        return request.cookies.get(self._name(name), "")

    def set(self, response: Response, name: Literal["browser", "session"], value: str) -> None:
        """Set a cookie that scripts cannot read, and other sites' forms do not send."""
        response.set_cookie(
            self._name(name),
            value,
            max_age=_LIFETIME,
            path="/",
            secure=self._is_secure,
            httponly=True,
            samesite="lax",
        )

    def browser(self, request: Request) -> str:
        """Return the browser's value, a new one for a new browser."""
        return self.read(request, "browser") or new_secret()

    def form_proof(self, browser: str) -> str:
        """Return what a form of this browser carries, and no other site can know."""
        return sha256(f"form {browser}".encode()).hexdigest()

    def is_own_form(self, request: Request, proof: str) -> bool:
        """Return whether a posted form came from a page that this browser was shown."""
        browser = self.read(request, "browser")
        return bool(browser) and hmac.compare_digest(proof, self.form_proof(browser))

    def _name(self, name: str) -> str:
        return f"{self._prefix}toolguard-{name}"


def redirect(url: str) -> Response:
    """Return a redirect whose target does not learn the address that is left: it has a ticket."""
    headers = {"referrer-policy": "no-referrer", "cache-control": "no-store"}
    return RedirectResponse(url, 303, headers)


def single_parameters(request: Request) -> dict[str, str] | None:
    """Return the query parameters; None if one is repeated (RFC 6749 §3.1)."""
    items = request.query_params.multi_items()
    found = dict(items)
    return found if len(found) == len(items) else None


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a small form; empty for one that is larger, or not a form."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM:
            return {}
    try:
        return dict(parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=20))
    except ValueError:
        return {}
