"""How Google is asked about its access tokens, which are opaque: not by RFC 7662."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from toolguard.parsing.strict_json import strict_object
from toolguard.tokens.introspection_client import MAX_CACHE_FOR, AnonymousClient

__all__ = ["TokenInfo"]

_OK, _BAD_REQUEST = 200, 400
_DIGITS = re.compile(r"[0-9]{1,12}", re.ASCII)


@dataclass(frozen=True)
class TokenInfo:
    """How to ask Google's tokeninfo endpoint about access tokens.

    google-auth-library, ``TokenInfo``: the answer has ``aud``, ``azp``, ``scope``, ``exp``, and
    ``sub`` if the client asked for ``openid``; an unknown token is a 400. The endpoint tells
    nothing of JWTs, so that one is never sent there.

    Attributes:
        endpoint: the URL of the endpoint.
        cache_for: seconds for which an active answer is used again, 0 to 300 and never beyond
            ``exp``: a revoked token stays good that long.
        timeout: seconds for a whole request.
        jwts: whether signed JWTs of the issuer, its ID tokens, are verified here, instead of
            refused.

    Raises:
        ValueError: if a time is out of range.
    """

    endpoint: str = "https://oauth2.googleapis.com/tokeninfo"
    cache_for: float = 0.0
    timeout: float = 5.0
    jwts: bool = False

    client: ClassVar[AnonymousClient] = AnonymousClient()
    signed: ClassVar[bool] = False
    takes_jwts: ClassVar[bool] = False
    statuses: ClassVar[tuple[int, ...]] = (_OK, _BAD_REQUEST)

    def __post_init__(self) -> None:
        if not 0 <= self.cache_for <= MAX_CACHE_FOR or not 0 < self.timeout < math.inf:
            raise ValueError(
                f"cache_for is 0 to {MAX_CACHE_FOR:.0f} seconds, timeout is more than 0"
            )

    def form(self, token: str) -> dict[str, str]:
        """Return the parameters of a request about ``token``."""
        return {"access_token": token}

    def read(self, status: int, body: bytes) -> Mapping[str, Any] | None:
        """Return the members of an answer, as RFC 7662 has them; None if it cannot be read.

        Args:
            status: the HTTP status.
            body: the body of the response.

        >>> TokenInfo().read(200, b'{"aud": "app", "exp": "1800000000", "expires_in": "300"}')
        {'aud': 'app', 'exp': 1800000000, 'active': True}
        >>> TokenInfo().read(400, b'{"error": "invalid_token"}')
        {'active': False}
        """
        if status == _BAD_REQUEST:
            return {"active": False}
        members = strict_object(body)
        expires = "" if members is None else str(members.get("exp"))
        if members is None or not _DIGITS.fullmatch(expires) or "error" in members:
            return None
        told = {name: value for name, value in members.items() if name != "expires_in"}
        return {**told, "exp": int(expires), "active": True}
