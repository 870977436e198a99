"""Verify signed answers of an introspection endpoint (RFC 9701)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from typing_extensions import Self

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.principal import Principal
from toolguard.tokens.claims import Times, read_times
from toolguard.tokens.faults import Faults
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.jws import is_jwe
from toolguard.tokens.jwt import DEFAULT_ALGORITHMS, JWTVerifier

__all__ = ["MEDIA_TYPE", "SignedAnswers", "check_not_encrypted"]

MEDIA_TYPE = "application/token-introspection+jwt"
"""The media type of a signed answer, and the ``typ`` of its header."""


class SignedAnswers(JWTVerifier):
    """Verifies the answers that one issuer signed for this server.

    An answer names its issuer, this server as its only audience, and the time it was made at. It
    does not repeat the token, so an old answer is told by its age only.
    """

    _max_age: float

    @classmethod
    def to(
        cls,
        audience: Sequence[str],
        issuer: Issuer,
        *,
        max_age: float,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return the verifier of answers of ``issuer``.

        Args:
            audience: the names of this server at the issuer.
            issuer: the description of the issuer.
            max_age: seconds for which an answer is good, with the leeway of the issuer.
            clock: returns the time, in seconds since the epoch.
        """
        made = cls(
            issuer=issuer.metadata_issuer or issuer.url,
            audience=audience,
            keys=issuer.key_source(),
            algorithms=issuer.algorithms or DEFAULT_ALGORITHMS,
            leeway=issuer.leeway,
            token_types=[MEDIA_TYPE],
            require_single_audience=True,
            remember=0,
            clock=clock,
        )
        made._max_age = max_age
        made._faults = Faults(f"answers of {made.issuer}", clock)
        return made

    def examined(self, claims: Mapping[str, Any], typ: str) -> tuple[Times, Principal]:
        """Return the period in which an answer is good, and its members.

        Args:
            claims: the claims of the answer.
            typ: the ``typ`` of its header.

        Raises:
            InvalidTokenError: if the answer is not for this server, or says not when it was made.
        """
        del typ
        self._check_audience(claims)
        made_at = read_times({"exp": 0, "iat": claims.get("iat", "")}).starts
        times = read_times({"exp": made_at + self._max_age, **claims})
        members = claims.get("token_introspection")
        if not isinstance(members, dict):
            raise InvalidTokenError("claims", "The answer has no token_introspection")
        expires = min(times.expires, made_at + self._max_age)
        return Times(times.starts, expires), Principal(None, str(self.issuer), claims=members)

    async def open(self, body: bytes, media_type: str) -> Mapping[str, Any]:
        """Return the members of an answer (RFC 7662 §2.2).

        Args:
            body: the body of the HTTP answer.
            media_type: its media type.

        Raises:
            KeysUnavailableError: if it is not a signed answer that is accepted, which is no fault
                of the caller.
        """
        if media_type != MEDIA_TYPE:
            raise KeysUnavailableError(
                "The introspection endpoint does not sign its answers: ask its operator for "
                "signed ones (RFC 9701), or leave signed=True out",
                reason="unsigned",
            )
        try:
            answer = await self.verify(body.decode("latin-1").strip())
        except InvalidTokenError as error:
            raise KeysUnavailableError(
                f"The signed answer of the introspection endpoint is not accepted ({error.reason})",
                reason="unsigned",
            ) from None
        return answer.claims


def check_not_encrypted(body: bytes) -> None:
    """Check that an answer is not a JWE (RFC 9701 §5), for which there is no key here.

    Raises:
        KeysUnavailableError: saying what to change at the authorization server.
    """
    if is_jwe(body.decode("latin-1").strip()):
        raise KeysUnavailableError(
            "The answer of the introspection endpoint is encrypted, which is not supported: have "
            "the authorization server only sign it; register this server without "
            "introspection_encrypted_response_alg",
            reason="encrypted",
        )
