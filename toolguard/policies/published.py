"""The requirements of an operation as published to clients that list it.

Published is what a client can request: scopes, connections, a fresh sign-in. The names of
required tenants, roles and clients are not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import RecentAuthentication

__all__ = ["LISTS", "REQUIRES", "published", "requirements", "security_schemes"]

REQUIRES = "toolguard/requires"
"""The member of ``_meta`` that holds an operation's requirements."""

LISTS: Mapping[str, tuple[str, Kind, str]] = {
    "tools/list": ("tools", "tool", "name"),
    "resources/list": ("resources", "resource", "uri"),
    "resources/templates/list": ("resourceTemplates", "resource", "uriTemplate"),
    "prompts/list": ("prompts", "prompt", "name"),
}
"""List method -> the member of its result with the operations, their kind, and the name member."""

_SCHEMES = "securitySchemes"


def published(
    item: Mapping[str, Any], kind: Kind, policy: Policy, names: ScopeNames = SAME
) -> dict[str, Any]:
    """Return a listed operation with its requirements.

    Args:
        item: the operation as the framework lists it, in JSON.
        kind: the kind of the operation.
        policy: its whole policy.
        names: how a client asks for scopes.

    Returns:
        A copy, with ``_meta["toolguard/requires"]`` and, for tools, ``securitySchemes`` in
        ``_meta`` and beside it, where the clients of OpenAI's Apps SDK look for them.
    """
    meta = {**(item.get("_meta") or {}), REQUIRES: requirements(policy, names)}
    if kind != "tool":
        return {**item, "_meta": meta}
    schemes = security_schemes(policy, names)
    return {**item, _SCHEMES: schemes, "_meta": {**meta, _SCHEMES: schemes}}


def requirements(policy: Policy, names: ScopeNames = SAME) -> dict[str, Any]:
    """Return the requirements that a client can act on, as JSON.

    ``public`` if callers without a token are permitted; else ``scopes`` (a list of alternatives,
    each a list of scopes), ``connections``, ``approval``, ``recent_auth`` (RFC 9470), and
    ``conditions`` if there are further requirements; each only if it applies.

    >>> from toolguard import any_of, requires_scopes
    >>> requirements(requires_scopes(any_of("calendar.write", "admin")).policy)
    {'scopes': [['calendar.write'], ['admin']]}
    """
    if policy.public:
        return {"public": True}
    asked = policy.requirements
    recent = [each for each in asked if isinstance(each, RecentAuthentication)]
    found = {
        "scopes": [list(group) for group in _grants(policy, names)],
        "connections": [need.name for need in policy.connections],
        "approval": policy.approval is not None,
        "recent_auth": [_sign_in(each) for each in recent],
        "conditions": len(recent) < len(asked),
    }
    return {name: value for name, value in found.items() if value}


def security_schemes(policy: Policy, names: ScopeNames = SAME) -> list[dict[str, Any]]:
    """Return the ``securitySchemes`` of a tool: ``noauth``, or ``oauth2`` for each alternative.

    >>> from toolguard import public, requires_scopes
    >>> security_schemes(requires_scopes("calendar.read").policy)
    [{'type': 'oauth2', 'scopes': ['calendar.read']}]
    >>> security_schemes(public.policy)
    [{'type': 'noauth'}]
    """
    if policy.public:
        return [{"type": "noauth"}]
    grants = _grants(policy, names) or ((),)
    return [{"type": "oauth2", "scopes": list(group)} for group in grants]


def _grants(policy: Policy, names: ScopeNames) -> tuple[tuple[str, ...], ...]:
    grants = policy.formula.grants if policy.formula is not None else ()
    requested = (tuple(map(names.requested, group)) for group in grants if group)
    return tuple(dict.fromkeys(requested))


def _sign_in(rule: RecentAuthentication) -> dict[str, Any]:
    age = {"max_age": rule.max_age} if rule.max_age is not None else {}
    return age | ({"acr_values": list(rule.acr_values)} if rule.acr_values else {})
