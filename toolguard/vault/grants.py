"""What a user gave the vault: a grant, its owner, and how both are written in a row.

All of this is pure. A grant is JSON inside of a seal; who owns it, and for which connection, is
the associated data of that seal.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from toolguard.connections.protocol import Connection

__all__ = ["Grant", "GrantKey", "Owner"]


@dataclass(frozen=True)
class Owner:
    """Whom a grant belongs to.

    Attributes:
        issuer: the issuer of the caller's access token; users of two issuers never share a grant.
        id: the user (``sub``), or the tenant.
        kind: whether ``id`` is a user, or a tenant as a whole.
    """

    issuer: str
    id: str
    kind: Literal["user", "tenant"] = "user"


@dataclass(frozen=True)
class GrantKey:
    """The identity of a grant: at most one for each owner and connection.

    Attributes:
        owner: the person or tenant it belongs to.
        connection: the name of the connection, such as ``"github"``.
    """

    owner: Owner
    connection: str

    @property
    def bound_to(self) -> bytes:
        """The associated data of the seal: a row under another identity cannot be opened."""
        parts = [self.owner.kind, self.owner.issuer, self.owner.id, self.connection]
        return json.dumps(["grant", *parts], separators=(",", ":")).encode()


@dataclass(frozen=True)
class Grant:
    """The tokens of one account at a third-party service. Neither is in the representation.

    Attributes:
        access_token: what the API of the service takes; empty if the service refused to renew it.
        refresh_token: what its token endpoint takes; empty if there is none.
        token_type: the authentication scheme, nearly always ``"Bearer"``.
        scopes: what the user granted.
        expires_at: when ``access_token`` expires, in seconds since the epoch; None if unknown.
        account: the name of the account at the service; empty if it does not say.
        obtained_at: when ``access_token`` was issued, in seconds since the epoch.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    token_type: str = "Bearer"  # noqa: S105 - the name of a scheme
    scopes: tuple[str, ...] = ()
    expires_at: float | None = None
    account: str = ""
    obtained_at: float = 0.0

    @property
    def is_usable(self) -> bool:
        """Whether there is a token at all; False once the service has refused to renew it."""
        return bool(self.access_token)

    @property
    def connection(self) -> Connection:
        """The connection that a tool gets."""
        return Connection(self.access_token, self.token_type, self.scopes, self.expires_at)

    def outlives(self, moment: float) -> bool:
        """Return whether the access token is valid after ``moment``; True if that is unknown."""
        return self.is_usable and (self.expires_at is None or self.expires_at > moment)

    def without_tokens(self) -> Grant:
        """Return the grant without tokens, as it is kept when the service refuses them."""
        return replace(self, access_token="", refresh_token="", expires_at=None)

    def to_json(self) -> bytes:
        """Return the text that is sealed."""
        return json.dumps([getattr(self, name) for name in _MEMBERS]).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Grant:
        """Return the grant that :meth:`to_json` wrote.

        Args:
            text: the text out of a seal.
        """
        members: dict[str, Any] = dict(zip(_MEMBERS, json.loads(text), strict=True))
        return cls(**{**members, "scopes": tuple(members["scopes"])})


# Their order is the format of a sealed grant, version 1.
_MEMBERS = (
    *("access_token", "refresh_token", "token_type", "scopes", "expires_at"),
    *("account", "obtained_at"),
)
