"""The claims that a caller needs to be permitted an operation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from toolguard.policies.formulas import Alternative, Condition
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import (
    BelongsToTenant,
    BelongsToTenantOf,
    Check,
    HasClaim,
    HasPermission,
    HasRole,
    IsClient,
    RecentAuthentication,
)

__all__ = ["claims_for"]

_TENANT = "tenant-1"
# The callers they permit are known only by running them.
_UNKNOWABLE = (Check, HasClaim)


def claims_for(
    policy: Policy, arguments: Mapping[str, Any], *, says: Collection[str], now: float
) -> dict[str, Any]:
    """Return the claims that meet a policy, as far as its requirements are known.

    They are every scope, role and permission in the policy, and the client and sign-in of the
    alternative that is the easiest to meet. Requirements of functions are not known, and scopes
    that depend on arguments are named only by a challenge.

    Args:
        policy: the policy of the operation.
        arguments: the arguments of the call.
        says: those of ``tenant``, ``roles`` and ``permissions`` that the issuer's tokens support.
        now: the time of the sign-in, in seconds since the epoch.

    Returns:
        Keyword arguments of :meth:`~toolguard.testing.LocalIssuer.mint`.

    >>> from toolguard import requires_roles, requires_scopes
    >>> policy = requires_scopes("notes.write").policy & requires_roles("editor").policy
    >>> claims = claims_for(policy, {}, says={"roles"}, now=0)
    >>> claims["scopes"], claims["roles"]
    (['notes.write'], ['editor'])
    """
    conditions = policy.formula.conditions if policy.formula is not None else ()
    tenants = tuple(dict.fromkeys(_tenants(policy, conditions, arguments)))
    claims: dict[str, Any] = {
        "scopes": [each for each in conditions if isinstance(each, str)],
        "auth_time": int(now),
        **dict(_of_one_alternative(policy)),
    }
    words = {
        "roles": [each.role for each in conditions if isinstance(each, HasRole)],
        "permissions": [each.permission for each in conditions if isinstance(each, HasPermission)],
        "tenant": next(iter(tenants), None),
    }
    claims.update({name: value for name, value in words.items() if value and name in says})
    if tenants:
        claims["tenants"] = {tenant: {} for tenant in tenants}
    return claims


def _tenants(
    policy: Policy, conditions: Collection[Condition], arguments: Mapping[str, Any]
) -> Iterator[str]:
    for each in conditions:
        if isinstance(each, BelongsToTenant):
            yield each.tenant_id
        elif isinstance(each, BelongsToTenantOf):
            named = arguments.get(each.parameter)
            if isinstance(named, str):
                yield named
    if any(need.tenant for need in policy.connections):
        yield _TENANT


def _of_one_alternative(policy: Policy) -> Iterator[tuple[str, str]]:
    """Yield the claims that have one value in a token, for one alternative of the policy."""
    alternatives = policy.formula.alternatives if policy.formula is not None else ()
    chosen = min(alternatives, key=_luck, default=())
    classes = [
        each.acr_values
        for each in chosen
        if isinstance(each, RecentAuthentication) and each.acr_values
    ]
    for acr in classes[0] if classes else ():
        if all(acr in each for each in classes):
            yield "acr", acr
            break
    for each in chosen:
        if isinstance(each, IsClient):
            yield "client_id", each.pattern.replace("*", "") or "x"


def _luck(alternative: Alternative) -> int:
    return sum(isinstance(each, _UNKNOWABLE) for each in alternative)
