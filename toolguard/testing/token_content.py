"""What a token grants, independent of a provider."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TokenContent"]


@dataclass(frozen=True)
class TokenContent:
    """The content of a token, independent of a provider.

    Attributes:
        issuer: the ``iss``.
        audience: the server it is for.
        user: the subject; None for a token without one.
        scopes: the granted scopes.
        issued_at: seconds since the epoch.
        expires_at: seconds since the epoch.
        client_id: the OAuth client; None omits it.
        tenant: the tenant or organization.
        roles: the roles of the user.
        permissions: the permissions of the user.
    """

    issuer: str
    audience: str
    user: str | None
    scopes: Sequence[str]
    issued_at: int
    expires_at: int
    client_id: str | None = "test-client"
    tenant: str | None = None
    roles: Sequence[str] | None = None
    permissions: Sequence[str] | None = None

    @property
    def scope(self) -> str | None:
        """The scopes as one string (RFC 6749 §3.3); None if there are none."""
        return " ".join(self.scopes) or None

    @property
    def common(self) -> dict[str, Any]:
        """The claims that every provider has (RFC 7519 §4.1)."""
        return {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": self.user,
            "iat": self.issued_at,
            "exp": self.expires_at,
        }
