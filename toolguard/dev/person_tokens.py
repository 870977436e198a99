"""Ask a running development server for the token of a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx

from toolguard.dev.oauth.direct import PERSON_TOKEN_PATH, PersonTokenRequest
from toolguard.parsing.secure_urls import secure_origin

__all__ = ["DEFAULT_ISSUER", "NoServerError", "PersonToken", "RefusedError", "fetch_person_token"]

DEFAULT_ISSUER = "http://127.0.0.1:8800"
"""Where ``toolguard dev`` listens if nothing else is said."""

_TIMEOUT = 10.0


class NoServerError(Exception):
    """No development server answers there; the text says what to do."""


class RefusedError(Exception):
    """The development server does not give this token; the text says why."""


@dataclass(frozen=True)
class PersonToken:
    """The access token of a person.

    Attributes:
        token: the token.
        person: their e-mail address.
        scopes: its scopes.
        resource: the server that it is for.
        expires_in: seconds for which it is valid.
        issuer: the issuer.
    """

    token: str = field(repr=False)
    person: str
    scopes: tuple[str, ...]
    resource: str
    expires_in: int
    issuer: str


def fetch_person_token(
    issuer: str, asked: PersonTokenRequest, transport: httpx.BaseTransport | None = None
) -> PersonToken:
    """Return the token of a person, signed in at a development server.

    Args:
        issuer: the issuer URL of the development server, or its origin.
        asked: the person, scopes, resource and client.
        transport: carries the request instead of a socket.

    Raises:
        NoServerError: if there is no development server.
        RefusedError: if it refuses.
    """
    origin = _origin(issuer)
    members = {
        "person": asked.person,
        "scope": None if asked.scopes is None else " ".join(asked.scopes),
        "resource": asked.resource,
        "client_id": asked.client_id,
    }
    try:
        with httpx.Client(transport=transport, trust_env=False, timeout=_TIMEOUT) as http:
            response = http.post(origin + PERSON_TOKEN_PATH, json=members)
    except httpx.HTTPError:
        raise NoServerError(
            f"no development server answers at {origin}: start toolguard dev in another "
            "terminal, or write --issuer with the address that it prints"
        ) from None
    answer = _object(response)
    if answer is not None and response.status_code == httpx.codes.OK:
        return PersonToken(
            answer["access_token"],
            answer["person"],
            tuple(answer["scope"].split()),
            answer["resource"],
            answer["expires_in"],
            answer["issuer"],
        )
    if answer is None or "error_description" not in answer:
        raise NoServerError(
            f"what answers at {origin} ({response.status_code}) is not toolguard dev: write "
            "--issuer with the address that toolguard dev prints"
        )
    raise RefusedError(str(answer["error_description"]))


def _origin(issuer: str) -> str:
    """Return the origin of a development server.

    Raises:
        NoServerError: if no development server can be there.
    """
    origin = secure_origin(issuer)
    if origin is None or not origin.startswith("http:"):
        raise NoServerError(
            f"{issuer!r} is not the address of a development server, which runs on this machine: "
            f"write --issuer {DEFAULT_ISSUER}; for another issuer, take the token from it"
        )
    return origin


def _object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        value = response.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
