"""Read the access token of an HTTP request (RFC 6750 §2.1, RFC 9449 §7.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_letters, digits

from toolguard.errors import MalformedCredentialsError

__all__ = ["presented_token"]

_CREDENTIALS = re.compile(rb"(Bearer|DPoP)(?: +|(?=\t)|$)(.*)", re.DOTALL | re.IGNORECASE)
# RFC 6750 §2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_B64TOKEN = f"{ascii_letters}{digits}-._~+/".encode("ascii")


def presented_token(
    authorization: Sequence[bytes], *, reads_dpop: bool = False
) -> tuple[str, bool] | None:
    """Return the access token of a request, and whether it was presented as bound to a key.

    Only this header is read: never the query (OAuth 2.1 §5.1: ignored) and never the body.
    Credentials of another scheme are ignored.

    Args:
        authorization: the values of the Authorization header.
        reads_dpop: whether the scheme ``DPoP`` is read too (RFC 9449 §7.1), and not ignored.

    Returns:
        The token, and whether its scheme is ``DPoP``; None if there is no token.

    Raises:
        MalformedCredentialsError: for more than one Authorization header (RFC 6750 §3.1: 'uses
            more than one method for including an access token'), and for a header of such a
            scheme that does not hold exactly one b64token.
    """
    if not authorization:
        return None
    if len(authorization) > 1:
        raise MalformedCredentialsError("Send exactly one Authorization header")
    credentials = _CREDENTIALS.fullmatch(authorization[0].strip(b" \t"))
    if credentials is None:
        return None
    scheme, token = credentials.groups()
    is_dpop = scheme.lower() == b"dpop"
    if is_dpop and not reads_dpop:
        return None
    unpadded = token.rstrip(b"=")
    if not unpadded or unpadded.translate(None, _B64TOKEN):
        raise MalformedCredentialsError(
            f"The Authorization header must be: {'DPoP' if is_dpop else 'Bearer'}, a space, a token"
        )
    return token.decode("ascii"), is_dpop
