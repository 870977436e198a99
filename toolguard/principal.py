"""The principal: the facts about the verified caller in one access token.

The claims of all providers are read here and nowhere else. The functions are total: a claim of an
unexpected type counts as absent, so that an unusual token grants less, never more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias

__all__ = ["Actor", "OwnerKey", "Principal"]

OwnerKey: TypeAlias = "tuple[str | None, ...]"
"""Issuer, user, client, thumbprint of the client's key, tenant; issuer and subject of an actor."""

_USER_CLAIMS = ("sub", "userId", "user_id")
_CLIENT_CLAIMS = ("client_id", "azp", "appid", "cid")
# Far beyond any date, well within the range of a float; NaN compares as false.
_NO_TIME = 1e15
# `dct` is Descope's current tenant, `tid` Entra's, `org_id` Auth0's and WorkOS's.
_TENANT_CLAIMS = ("tenant", "tenantId", "dct", "tid", "org_id")
_TENANCY = frozenset({*_TENANT_CLAIMS, "tenants"})
_Tenancy: TypeAlias = "tuple[str | None, tuple[str, ...], Mapping[str, Any]]"
_NO_TENANCY: _Tenancy = (None, (), {})
_GRANTS = frozenset({"permissions", "roles", "realm_access", "cognito:groups", "role"})
_Grants: TypeAlias = "tuple[tuple[str, ...], tuple[str, ...]]"
_NO_GRANTS: _Grants = ((), ())

_MAX_ACTORS = 10


@dataclass(frozen=True)
class Actor:
    """Who acts for the subject of a token, according to its ``act`` claim (RFC 8693 §4.1).

    Attributes:
        subject: the actor, unique within ``issuer``.
        issuer: the issuer that knows the actor.
    """

    subject: str
    issuer: str


@dataclass(frozen=True)
class Principal:
    """The verified caller.

    Created by verifiers only; to write your own verifier, use :meth:`from_claims`. A principal
    holds no token, and its representation shows no claims.

    Attributes:
        user_id: the user (``sub``), unique within ``issuer``; None for a caller without a subject.
        issuer: the issuer of the token; compare users as (issuer, user_id).
        client_id: the OAuth client the token was issued to.
        tenant_id: the tenant the token was issued for, if it names one.
        tenant_ids: every tenant the user belongs to according to the token.
        scopes: the granted scopes, in the token's order, without repetition.
        permissions: fine-grained permissions, of the user and of the current tenant.
        roles: roles, of the user and of the current tenant.
        expires_at: when the token expires, in seconds since the epoch.
        jkt: the thumbprint of the key that the token is bound to (RFC 9449 §6); None for a bearer
            token.
        claims: the verified claims, read-only.
    """

    user_id: str | None
    issuer: str
    client_id: str | None = None
    tenant_id: str | None = None
    tenant_ids: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    expires_at: float = 0.0
    jkt: str | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_claims(
        cls, claims: Mapping[str, Any], *, permissions_are_scopes: bool = False
    ) -> Principal:
        """Return the principal that these verified claims describe.

        Args:
            claims: the claims of a token whose signature, issuer, audience and expiry have been
                checked; this function checks nothing.
            permissions_are_scopes: count the ``permissions`` claim as scopes too (Auth0 with
                RBAC, where the authorization server puts the granted scopes there).
        """
        tenancy = _NO_TENANCY if _TENANCY.isdisjoint(claims) else _tenancy(claims)
        tenant_id, tenant_ids, current = tenancy
        has_grants = current or not _GRANTS.isdisjoint(claims)
        permissions, roles = _grants(claims, current) if has_grants else _NO_GRANTS
        scopes = _scopes(claims)
        jkt = _object(claims.get("cnf")).get("jkt")
        return cls(
            user_id=_user_id(claims),
            issuer=_text(claims.get("iss")) or "",
            client_id=_first_string(claims, _CLIENT_CLAIMS),
            tenant_id=tenant_id,
            tenant_ids=tenant_ids,
            scopes=_unique((*scopes, *permissions)) if permissions_are_scopes else scopes,
            permissions=permissions,
            roles=roles,
            expires_at=_number(claims.get("exp")),
            # A value of another type binds to a key as well, which no client has.
            jkt=None if jkt is None else str(jkt),
            claims=MappingProxyType(dict(claims)),
        )

    def is_expired(self, now: float) -> bool:
        """Return whether the token has expired at ``now``; True for one without an expiry."""
        return self.expires_at <= now

    @property
    def auth_time(self) -> float | None:
        """When the user signed in (OpenID Connect Core §2, RFC 9470 §6.1); None if unknown."""
        return _number(self.claims.get("auth_time")) or None

    @property
    def acr(self) -> str | None:
        """The authentication context class of the sign-in (RFC 9470 §6.1); None if unknown."""
        return _first_string(self.claims, ("acr",))

    @property
    def is_machine(self) -> bool:
        """Whether the caller is an application on its own: no user takes part.

        As issuers say it: no ``sub``; ``sub`` is the client (RFC 9068 §2.2); ``gty`` (Auth0),
        ``grant_type`` (UAA), ``idtyp`` (Entra); Entra's ``oid`` as ``sub`` without ``scp``;
        Keycloak's service account of the client. False where the token does not tell.
        """
        claims, client_id = self.claims, self.client_id
        if self.user_id is None:
            return True
        if client_id is not None and self.user_id in (client_id, f"{client_id}@clients"):
            return True
        grants = (claims.get("gty"), claims.get("grant_type"))
        if any(grant in ("client-credentials", "client_credentials") for grant in grants):
            return True
        is_entra_app = "tid" in claims and claims.get("oid") == self.user_id and "scp" not in claims
        is_service = (
            "clientHost" in claims
            and client_id is not None
            and claims.get("preferred_username") == f"service-account-{client_id.lower()}"
        )
        return claims.get("idtyp") == "app" or is_entra_app or is_service

    @property
    def actor(self) -> Actor | None:
        """Who acts for the subject now (RFC 8693 §4.1); None if the subject acts itself."""
        return next(iter(self.actors), None)

    @property
    def actors(self) -> tuple[Actor, ...]:
        """The chain of delegation, the current actor first; the others are for records only."""
        found: list[Actor] = []
        act = self.claims.get("act")
        while isinstance(act, Mapping) and len(found) < _MAX_ACTORS:
            subject = _first_string(act, ("sub",))
            if subject is None:
                break
            found.append(Actor(subject, _first_string(act, ("iss",)) or self.issuer))
            act = act.get("act")
        return tuple(found)

    @property
    def owner_key(self) -> OwnerKey:
        """What owns sessions, tasks, events, approvals and cached connections.

        Issuer, user, client, the client's key, the tenant that the token is for, and who acts for
        the user now: an agent reaches nothing that the user owns without it, nor the other way
        round. The frameworks bind what they seal themselves, such as a ``requestState``, to issuer,
        user, client and key.
        """
        key = (self.issuer, self.user_id, self.client_id, self.jkt, self.tenant_id)
        if "act" not in self.claims:
            return key
        actor = self.actor
        return key if actor is None else (*key, actor.issuer, actor.subject)

    def __repr__(self) -> str:
        return (
            f"<Principal: {self.user_id} of {self.issuer}"
            f"{f' in {self.tenant_id}' if self.tenant_id else ''}"
            f"{f' via {self.client_id}' if self.client_id else ''}"
            f" [{' '.join(self.scopes)}]>"
        )


def _tenancy(claims: Mapping[str, Any]) -> _Tenancy:
    """Return the tenant, every tenant of the user, and what the token says of the tenant."""
    tenant_id = _first_string(claims, _TENANT_CLAIMS)
    tenants = _object(claims.get("tenants"))
    if tenant_id is None and len(tenants) == 1:
        tenant_id = next(iter(tenants))
    current = _object(None if tenant_id is None else tenants.get(tenant_id))
    known = ([tenant_id] if tenant_id else []) + [*_strings([*tenants])]
    return tenant_id, _unique(known), current


def _grants(*facts: Mapping[str, Any]) -> _Grants:
    """Return the permissions and the roles in what a token says of its user."""
    permissions = [each for fact in facts for each in _strings(fact.get("permissions"))]
    return _unique(permissions), _unique([role for fact in facts for role in _roles(fact)])


def _scopes(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Read `scope` (RFC 9068 §2.2.3), else `scp` (Okta: list, Entra: string), else `scopes`."""
    for name in ("scope", "scp", "scopes"):
        if name in claims:
            value = claims[name]
            # RFC 6749 §3.3 separates by %x20 only; a tab or a no-break space is not a separator,
            # and a scope with one in it cannot be named by any rule.
            return _unique(value.split(" ") if isinstance(value, str) else _strings(value))
    return ()


def _user_id(claims: Mapping[str, Any]) -> str | None:
    """Read `sub` (RFC 7519 §4.1.2), or the first of the claims that replace it.

    A claim that is empty or of the wrong type must not be replaced by another one.
    """
    for name in _USER_CLAIMS:
        if name in claims:
            return _text(claims[name])
    nested = _object(claims.get("user"))
    return next((_text(nested[name]) for name in ("id", *_USER_CLAIMS) if name in nested), None)


def _roles(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Read `roles` (Descope, Entra), `realm_access` (Keycloak), `cognito:groups`, `role`."""
    return (
        *_strings(claims.get("roles")),
        *_strings(_object(claims.get("realm_access")).get("roles")),
        *_strings(claims.get("cognito:groups")),
        *((role,) if isinstance(role := claims.get("role"), str) and role else ()),
    )


def _first_string(claims: Mapping[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        if (value := _text(claims.get(name))) is not None:
            return value
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _object(value: object) -> Mapping[str, Any]:
    return value if value is not None and isinstance(value, Mapping) else {}


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        return ()
    return tuple([item for item in value if isinstance(item, str)])


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, values)))


def _number(value: object) -> float:
    """Read a NumericDate; a value that is not a number counts as long past."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(value) if abs(value) < _NO_TIME else 0.0
