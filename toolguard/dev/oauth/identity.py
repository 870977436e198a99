"""Identity claims of a tenant's identity provider, and the permissions from its groups.

Two styles are imitated where their claims differ: Okta names groups, Entra ID has their object ids
and no ``email``. The claims are not signed; provider and server are one process, and pass only a
one-time code through the browser.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolguard.dev.oauth.config import Tenant, User, World
from toolguard.dev.oauth.policies import UserFacts
from toolguard.dev.oauth.refusals import Refusal

__all__ = ["Identity", "collect_facts", "provider_claims", "read_identity"]


@dataclass(frozen=True)
class Identity:
    """What an identity provider said, understood: an address, and permissions from groups."""

    email: str
    permissions: tuple[str, ...]


def provider_claims(tenant: Tenant, user: User) -> dict[str, Any]:
    """Return the identity claims that the tenant's provider gives for ``user``."""
    subject = _stable_id(tenant, f"user {user.id}")
    if tenant.provider == "okta":
        return {
            "iss": f"https://{tenant.id}.okta.example",
            "sub": f"00u{subject.hex[:17]}",
            "email": user.email,
            "name": user.name,
            "groups": ["Everyone", *user.groups],
        }
    directory = _stable_id(tenant, "directory")
    return {
        "iss": f"https://login.entra.example/{directory}/v2.0",
        "tid": str(directory),
        "oid": str(subject),
        "preferred_username": user.email,
        "name": user.name,
        "groups": [_group_id(tenant, group) for group in user.groups],
    }


def read_identity(tenant: Tenant, claims: Mapping[str, Any]) -> Identity:
    """Return what the claims of the tenant's provider mean here.

    Raises:
        Refusal: if the domain of the user is not the tenant's: a provider is trusted for its own
            users only.
    """
    email = claims.get("email") if tenant.provider == "okta" else claims.get("preferred_username")
    if not isinstance(email, str) or email.rpartition("@")[2] not in tenant.domains:
        raise Refusal(
            "access_denied", "The identity provider named a user of another tenant", status=403
        )
    groups = claims.get("groups")
    named = groups if isinstance(groups, list) else []
    mapped = {
        group if tenant.provider == "okta" else _group_id(tenant, group): permissions
        for group, permissions in tenant.permissions.items()
    }
    found = (permission for group in named for permission in mapped.get(group, ()))
    return Identity(email, tuple(dict.fromkeys(found)))


def collect_facts(world: World, user: User) -> UserFacts:
    """Return what policies may ask about ``user``, by what the provider says now."""
    tenant = world.tenant(user.tenant_id)
    identity = read_identity(tenant, provider_claims(tenant, user))
    return UserFacts((tenant.id,), identity.permissions)


def _group_id(tenant: Tenant, group: str) -> str:
    return str(_stable_id(tenant, f"group {group}"))


def _stable_id(tenant: Tenant, what: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, f"https://{tenant.id}.example/{what}")
