"""Look at what a server says to the token of a client, and why.

The token is read here only to explain an answer; it is neither verified nor shown.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

import httpx

from toolguard.audit.doctor.diagnosis import Diagnosis
from toolguard.audit.doctor.endpoint import Seen, initialize
from toolguard.http.challenge import Challenge, parse
from toolguard.parsing.strict_json import lenient_object

__all__ = ["look_with_token"]

_ISSUED = 'have the issuer put "{resource}" into aud: clients ask for it by resource= (RFC 8707)'
_AGAIN = "sign in again; if new tokens are expired as well, set the clocks (NTP)"


async def look_with_token(
    client: httpx.AsyncClient, seen: Seen, token: str, now: float
) -> AsyncIterator[Diagnosis]:
    """Yield why the server refuses a token, as far as that can be told from outside."""
    response = await initialize(client, seen.url, {"authorization": f"Bearer {token}"})
    status = response.status_code
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        yield Diagnosis(
            "keys-unavailable",
            seen.url,
            "the token to be verified",
            "503",
            "let the server reach the jwks_uri of its issuer; its log names the fault",
        )
    elif status == httpx.codes.BAD_REQUEST:
        yield Diagnosis(
            "token-unreadable",
            seen.url,
            "one header Authorization: Bearer TOKEN",
            "400",
            "write the token alone, without Bearer in front, quotes and blanks",
        )
    elif status == httpx.codes.FORBIDDEN:
        yield Diagnosis(
            "token-forbidden",
            seen.url,
            "a token with enough scopes",
            f"403, missing {' '.join(_missing(response)) or 'a requirement other than scopes'}",
            "sign in again with these scopes, or have them granted",
        )
    elif status == httpx.codes.UNAUTHORIZED:
        said = _challenge(response)
        if said is not None and said.error is None:  # RFC 6750 §3.1: as to a request without one
            yield Diagnosis(
                "token-lost",
                seen.url,
                "the token to reach the server",
                "401, as if it had not been sent",
                "have the proxy pass the header Authorization on to the server, as it came",
            )
            return
        faults = [*_faults(_claims(token), seen, now)]
        reason = "" if said is None or not said.error_description else said.error_description
        unknown = Diagnosis(
            "token-refused",
            seen.url,
            "the token to be accepted",
            f"401: {reason}" if reason else "401",
            "compare the key, the algorithm and typ of the token: the log says which was refused",
        )
        for each in faults or [unknown]:
            yield each


def _challenge(response: httpx.Response) -> Challenge | None:
    """Return the challenge of a 401; None if the answer has no readable one."""
    try:
        return parse(response.headers.get("www-authenticate", ""))
    except ValueError:
        return None


def _missing(response: httpx.Response) -> list[str]:
    error = (lenient_object(response.content) or {}).get("error")
    data = error.get("data") if isinstance(error, dict) else None
    missing = data.get("missing_scopes") if isinstance(data, dict) else None
    return [str(each) for each in missing] if isinstance(missing, list) else []


def _faults(claims: Mapping[str, Any] | None, seen: Seen, now: float) -> Iterator[Diagnosis]:
    resource = str(seen.metadata.get("resource", seen.url))
    if claims is None:
        yield Diagnosis(
            "token-opaque",
            "the token",
            "a JWT",
            "text that only its issuer can read",
            "have the issuer give out JWTs for this server, or verify by introspection",
        )
        return
    if seen.issuers and claims.get("iss") not in seen.issuers:
        yield Diagnosis(
            "token-issuer",
            "the token",
            f"iss {' or '.join(seen.issuers)}",
            f"iss {claims.get('iss')}",
            "write issuer= exactly as the token has it, or sign in at the issuer that is named",
        )
    aud = claims.get("aud")
    audiences = aud if isinstance(aud, list) else [aud]
    if resource not in audiences:
        found = "no aud" if aud is None else f"aud {' '.join(map(str, audiences))}"
        remedy = _ISSUED.replace("{resource}", resource)
        yield Diagnosis("token-audience", "the token", f"aud {resource}", found, remedy)
    exp = claims.get("exp")
    if not isinstance(exp, (int, float)) or exp <= now:
        yield Diagnosis("token-expired", "the token", "exp in the future", _when(exp, now), _AGAIN)


def _when(exp: object, now: float) -> str:
    """Return the time of ``exp`` as a person reads it."""
    if not isinstance(exp, (int, float)):
        return "no exp" if exp is None else f"exp {exp!r}"
    try:
        moment = datetime.fromtimestamp(exp, timezone.utc)
    except (OverflowError, ValueError, OSError):  # no time of a calendar
        return f"exp {exp}"
    return f"exp {exp}: {moment:%Y-%m-%d %H:%M:%S} UTC, {now - exp:.0f} s ago"


def _claims(token: str) -> Mapping[str, Any] | None:
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, claims, signature
        return None
    try:
        payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
    except ValueError:
        return None
    return lenient_object(payload)
