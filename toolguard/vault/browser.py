"""What a browser sends and keeps: cookies, states, queries that mean one thing, small forms."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolguard.connections.sealing import NamedCipher
from toolguard.parsing.strict_json import strict_object
from toolguard.vault.oauth_client import new_secret

__all__ = ["Cookies", "new_state", "read_form", "read_state", "redirect", "single_parameters"]

_MAX_FORM = 8 * 1024
_LIFETIME = 1_800
_STATE_FACTS = {"verifier": str, "nonce": str, "then": str, "until": float}


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

    def form_proof(self, browser: str, *about: str) -> str:
        """Return what a form of this browser carries, and no other site can know.

        Args:
            browser: the browser's value.
            about: what the form is about.
        """
        return sha256(" ".join(["form", browser, *map(repr, about)]).encode()).hexdigest()

    def is_own_form(self, request: Request, proof: str, *about: str) -> bool:
        """Return whether a posted form came from a page that this browser was shown.

        Args:
            request: the request.
            proof: what the form carries.
            about: what the form has to be about.
        """
        browser = self.read(request, "browser")
        expected = self.form_proof(browser, *about).encode()
        return bool(browser) and hmac.compare_digest(proof.encode(), expected)

    def _name(self, name: str) -> str:
        return f"{self._prefix}toolguard-{name}"


def new_state(browser: str, facts: Mapping[str, Any]) -> str:
    """Return a ``state`` (RFC 6749 §4.1.1) that holds ``facts``, and that only this browser brings.

    It is sealed with the browser's value, and kept nowhere: a stranger who begins sign-ins fills no
    database.
    """
    sealed = _cipher(browser).seal("state", json.dumps(dict(facts)).encode(), b"")
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def read_state(browser: str, state: str) -> Mapping[str, Any] | None:
    """Return the facts of a state; None unless :func:`new_state` made it for this browser."""
    try:
        sealed = urlsafe_b64decode(state + "=" * (-len(state) % 4))
    except ValueError:
        return None
    text = _cipher(browser).open("state", sealed, b"") if browser else None
    facts = strict_object(text or b"") or {}
    # Read like what any stranger sends: the browser that holds its value can seal a state too.
    is_whole = all(isinstance(facts.get(name), kind) for name, kind in _STATE_FACTS.items())
    return facts if is_whole else None


def _cipher(browser: str) -> NamedCipher:
    return NamedCipher(sha256(f"state {browser}".encode()).digest(), "toolguard sign-in 1")


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
