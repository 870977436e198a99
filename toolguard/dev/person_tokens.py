"""Ask a running development server for the token of a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx

from toolguard.dev.oauth.direct import PERSON_TOKEN_PATH, PersonTokenRequest
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parsing.strict_json import lenient_object
from toolguard.parts.bounded import HEADERS, UnboundedError, bound

__all__ = [
    "DEFAULT_ISSUER",
    "NoServerError",
    "PersonToken",
    "TokenRefusedError",
    "fetch_person_token",
]

DEFAULT_ISSUER = "http://127.0.0.1:8800"
"""Where ``toolguard dev`` listens if nothing else is said."""

_TIMEOUT = 10.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 §2.1


class NoServerError(Exception):
    """No development server answers there; the text says what to do."""


class TokenRefusedError(Exception):
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


async def fetch_person_token(issuer: str, asked: PersonTokenRequest) -> PersonToken:
    """Return the token of a person, signed in at a development server.

    Args:
        issuer: the issuer URL of the development server, or its origin.
        asked: the person, scopes, resource and client.

    Raises:
        NoServerError: if there is no development server.
        TokenRefusedError: if it refuses.
    """
    origin = _origin(issuer)
    members = {
        "person": asked.person,
        "scope": None if asked.scopes is None else " ".join(asked.scopes),
        "resource": asked.resource,
        "client_id": asked.client_id,
    }
    try:
        with anyio.fail_after(_TIMEOUT):
            async with httpx.AsyncClient(
                headers=HEADERS,
                event_hooks={"response": [bound]},
                trust_env=False,
                timeout=_TIMEOUT,
            ) as http:
                response = await http.post(origin + PERSON_TOKEN_PATH, json=members)
    except UnboundedError as error:
        raise NoServerError(str(error)) from None
    except (httpx.HTTPError, TimeoutError):
        raise NoServerError(
            f"no development server answers at {origin}: start toolguard dev in another "
            "terminal, or write --issuer with the address that it prints"
        ) from None
    answer = lenient_object(response.content) or {}
    found = _found(answer) if response.status_code == httpx.codes.OK else None
    if found is not None:
        return found
    if "error_description" not in answer:
        raise NoServerError(
            f"what answers at {origin} ({response.status_code}) is not toolguard dev: write "
            "--issuer with the address that toolguard dev prints"
        )
    raise TokenRefusedError(str(answer["error_description"]))


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


def _found(answer: Mapping[str, Any]) -> PersonToken | None:
    """Return the token in an answer; None if it is not one of a development server."""
    texts = [answer.get(name) for name in ("access_token", "person", "scope", "resource", "issuer")]
    seconds = answer.get("expires_in")
    if not all(isinstance(each, str) for each in texts) or not isinstance(seconds, int):
        return None
    token, person, scope, resource, issuer = map(str, texts)
    # It goes to standard output, and so into commands and headers.
    if not _TOKEN.fullmatch(token):
        return None
    return PersonToken(token, person, tuple(scope.split()), resource, seconds, issuer)
