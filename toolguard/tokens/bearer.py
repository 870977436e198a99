"""Read the bearer token of an HTTP request (RFC 6750 §2.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from toolguard.errors import MalformedCredentialsError

__all__ = ["bearer_token"]

# RFC 6750 §2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr](?: +|(?=\t)|$)(.*)", re.DOTALL)
_B64TOKEN = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the bearer token of the Authorization header; None if there is no bearer token.

    Only this header is read: never the query (OAuth 2.1 §5.1: ignored) and never the body.
    Credentials of another scheme are ignored.

    Args:
        headers: the raw headers of an ASGI scope; names in lower case.

    Raises:
        MalformedCredentialsError: for more than one Authorization header (RFC 6750 §3.1: 'uses
            more than one method for including an access token'), and for a Bearer header that
            does not hold exactly one b64token.
    """
    values = [value.strip(b" \t") for name, value in headers if name == b"authorization"]
    if not values:
        return None
    if len(values) > 1:
        raise MalformedCredentialsError("Send exactly one Authorization header")
    bearer = _BEARER.fullmatch(values[0])
    if bearer is None:
        return None
    token = bearer[1]
    if not _B64TOKEN.fullmatch(token):
        raise MalformedCredentialsError(
            "The Authorization header must be: Bearer, a space, a token"
        )
    return token.decode("ascii")
