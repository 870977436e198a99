"""The claims of the development server's access tokens, and their verification."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.policies import UserFacts
from toolguard.dev.oauth.signing import ALGORITHM
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys

__all__ = ["Authorization", "IssuedTokenVerifier", "access_token_claims"]


@dataclass(frozen=True)
class Authorization:
    """The content of an access token.

    Attributes:
        user_id: the user.
        client_id: the client that it is issued to.
        resource: the server that it is for (RFC 8707).
        scopes: the granted scopes.
        facts: the user's tenants (the first is the current one) and permissions.
        jkt: the thumbprint of the key that it is bound to (RFC 9449 §6); None for a bearer token.
    """

    user_id: str
    client_id: str
    resource: str
    scopes: tuple[str, ...]
    facts: UserFacts
    jkt: str | None = None

    @property
    def token_type(self) -> str:
        """The type of the token (RFC 6749 §7.1, RFC 9449 §5)."""
        return "Bearer" if self.jkt is None else "DPoP"


class IssuedTokenVerifier:
    """Verifies access tokens of this server, and knows which of them were revoked.

    The signature, the issuer, the audience and the times are checked as any guarded server
    checks them; what only the issuer can know comes on top.

    Args:
        context: the server.
        audience: the accepted audiences.
    """

    def __init__(self, context: ServerContext, audience: Sequence[str]) -> None:
        self._context = context
        self._audience = tuple(audience)

    async def verify(self, token: str) -> Principal:
        """Return the caller that ``token`` speaks for.

        Raises:
            InvalidTokenError: if it is not valid, is bound to a key, or was revoked.
        """
        return self._live(await self._verifier.verify(token))

    async def verify_bound(self, token: str) -> Principal:
        """Return the caller that ``token`` speaks for, which is bound to a key (RFC 9449 §6).

        Raises:
            InvalidTokenError: if it is not valid, is not bound to a key, or was revoked.
        """
        return self._live(await self._verifier.verify_bound(token))

    async def verify_either(self, token: str) -> Principal:
        """Return the caller that ``token`` speaks for, where it is no credential of a request.

        Raises:
            InvalidTokenError: if it is not valid, or was revoked.
        """
        try:
            return await self.verify(token)
        except InvalidTokenError as error:
            if error.reason != "bound":
                raise
        return await self.verify_bound(token)

    @property
    def _verifier(self) -> JWTVerifier:
        return JWTVerifier(
            issuer=self._context.issuer,
            audience=self._audience,
            keys=StaticKeys(self._context.keys.jwks()),
            algorithms=[ALGORITHM],
            token_types=["at+jwt"],
            leeway=0,
            clock=self._context.clock,
        )

    def _live(self, principal: Principal) -> Principal:
        if not self._is_live(principal.claims.get("jti")):
            raise InvalidTokenError("expired", "The token has been revoked")
        return principal

    def _is_live(self, jti: object) -> bool:
        with self._context.store.lock:
            row = self._context.store.db.execute(
                "SELECT 1 FROM access_token JOIN grant_ USING (grant_id) WHERE jti = ?"
                " AND access_token.revoked_at IS NULL AND grant_.revoked_at IS NULL",
                (jti,),
            ).fetchone()
        return row is not None


def access_token_claims(
    context: ServerContext, authorization: Authorization, *, expires_at: float
) -> dict[str, Any]:
    """Return the claims of an access token (RFC 9068 §2.2), with tenants as Descope has them.

    Args:
        context: the server that issues it.
        authorization: what it says.
        expires_at: seconds since the epoch after which it is not to be good; sooner if the
            lifetime of access tokens ends before.
    """
    issued_at = int(context.clock())
    facts, permissions = authorization.facts, list(authorization.facts.permissions)
    claims: dict[str, Any] = {
        "iss": context.issuer,
        "aud": authorization.resource,
        "sub": authorization.user_id,
        "client_id": authorization.client_id,
        "iat": issued_at,
        "exp": min(issued_at + context.world.lifetimes.access_token, int(expires_at)),
        "jti": secrets.token_hex(16),
        "scope": " ".join(authorization.scopes),
        "permissions": permissions,
        "tenants": {tenant: {"permissions": permissions} for tenant in facts.tenant_ids},
    }
    if authorization.jkt is not None:
        claims["cnf"] = {"jkt": authorization.jkt}
    if facts.tenant_ids:
        claims["dct"] = facts.tenant_ids[0]
    return claims
