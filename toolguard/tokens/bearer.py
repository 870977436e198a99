"""Read the access token of an HTTP request (RFC 6750 §2.1, RFC 9449 §7.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from toolguard.errors import MalformedCredentialsError

__all__ = ["bearer_token"]

_Scheme = Literal["Bearer", "DPoP"]
_CREDENTIALS: Mapping[_Scheme, re.Pattern[bytes]] = {
    "Bearer": re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr](?: +|(?=\t)|$)(.*)", re.DOTALL),
    "DPoP": re.compile(rb"[Dd][Pp][Oo][Pp](?: +|(?=\t)|$)(.*)", re.DOTALL),
}
# RFC 6750 §2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")


def bearer_token(headers: Iterable[tuple[bytes, bytes]], scheme: _Scheme = "Bearer") -> str | None:
    """Return the bearer token of the Authorization header; None if there is no bearer token.

    Only this header is read: never the query (OAuth 2.1 §5.1: ignored) and never the body.
    Credentials of another scheme are ignored.

    Args:
        headers: the raw headers of an ASGI scope; names in lower case.
        scheme: ``DPoP`` to read a token that is bound to a key instead (RFC 9449 §7.1).

    Raises:
        MalformedCredentialsError: for more than one Authorization header (RFC 6750 §3.1: 'uses
            more than one method for including an access token'), and for a header of
            this scheme that does not hold exactly one b64token.
    """
    values = [value.strip(b" \t") for name, value in headers if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise MalformedCredentialsError("Send exactly one Authorization header")
    credentials = _CREDENTIALS[scheme].fullmatch(values[0])
    if credentials is None:
        return None
    token = credentials[1]
    if not _B64TOKEN.fullmatch(token):
        raise MalformedCredentialsError(
            f"The Authorization header must be: {scheme}, a space, a token"
        )
    return token.decode("ascii")
