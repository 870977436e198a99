"""Errors of the development server, as JSON and as pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from toolguard.pages.layout import page

__all__ = ["Endpoint", "Refusal", "answering_json", "answering_pages"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
"""What a route calls."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault of the program
    """A request that is not granted.

    Args:
        error: the code of the specification that names it, such as ``"invalid_grant"``.
        description: one sentence for the developer or the user who reads it. It may quote what
            was sent only if that is not a secret; the page that shows it escapes it.
        status: the HTTP status, where it is answered directly.
        details: further members of a JSON answer.
    """

    def __init__(
        self,
        error: str,
        description: str,
        *,
        status: int = 400,
        details: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(description)
        self.error = error
        self.description = description
        self.status = status
        self.details = dict(details or {})

    def to_dict(self) -> dict[str, str]:
        """Return the body of a JSON answer (RFC 6749 §5.2)."""
        return {"error": self.error, "error_description": self.description, **self.details}


def answering_json(endpoint: Endpoint) -> Endpoint:
    """Return ``endpoint`` with refusals written as RFC 6749 §5.2 has them."""

    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
        except Refusal as refusal:
            response = JSONResponse(refusal.to_dict(), refusal.status)
            if refusal.status == 401:  # noqa: PLR2004 - RFC 9110 §15.5.2
                response.headers["www-authenticate"] = 'Basic realm="toolguard dev"'
        # RFC 6749 §5.1; what is said here concerns one client only.
        response.headers.setdefault("cache-control", "no-store")
        return response

    return answer


def answering_pages(endpoint: Endpoint, issuer: str) -> Endpoint:
    """Return ``endpoint`` with refusals shown as pages of the server at ``issuer``."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return page(
                "error.html",
                issuer=issuer,
                status=refusal.status,
                error=refusal.error,
                description=refusal.description,
            )

    return answer
