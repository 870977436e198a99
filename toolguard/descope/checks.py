"""Check the scopes and the owner of a verified token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from toolguard.calls.message import here
from toolguard.connections.descope.models import TokenValidationResult, UserTokenRequest
from toolguard.descope.default import default
from toolguard.errors import AccessDeniedError, ConnectionDeniedError
from toolguard.policies.decision import Caller, decide_on_scopes
from toolguard.policies.policy import Policy
from toolguard.policies.scopes import ScopeHierarchy, all_of
from toolguard.principal import Principal

__all__ = ["check", "check_owner", "require_all", "require_scopes", "require_user_id"]


def require_scopes(
    token_result: TokenValidationResult,
    required_scopes: Sequence[str],
    error_description: str | None = None,
) -> None:
    """Check that a token has all of the scopes.

    Args:
        token_result: the result of ``validate_token``.
        required_scopes: at least one scope-token (RFC 6749 §3.3).
        error_description: the text of the refusal, instead of the usual one.

    Raises:
        InsufficientScopeError: if a scope is missing.
        ValueError: if the list is empty: there is nothing to check.

    >>> require_scopes({"scopes": ["calendar.read", "profile"]}, ["calendar.read"])
    """
    principal = Principal.from_claims(token_result)
    check(require_all(required_scopes), principal, error_description, default.scope_hierarchy)


def require_all(required_scopes: Sequence[str]) -> Policy:
    """Return the rule that requires all of these scopes.

    Raises:
        ValueError: if there is no scope, or one is not a scope-token.
        TypeError: if ``required_scopes`` is a string.
    """
    if isinstance(required_scopes, str):
        raise TypeError(f"scopes are a list: write {required_scopes.split()!r}")
    if not required_scopes:
        raise ValueError("name at least one scope; for any valid token leave the list out")
    return Policy(formula=all_of(*required_scopes))


def check(
    rule: Policy, principal: Principal, description: str | None, hierarchy: ScopeHierarchy
) -> None:
    """Check that ``principal`` meets ``rule``.

    Args:
        rule: a rule of scopes.
        principal: the verified caller.
        description: the text of the refusal, instead of the usual one.
        hierarchy: the scope hierarchy to use if no guard serves this message; else that of the
            guard is used.

    Raises:
        InsufficientScopeError: if scopes are missing.
    """
    frame = here()
    counts = hierarchy if frame is None else frame.guard.scope_hierarchy
    caller = Caller(principal, counts.expand(principal.scopes), now=-math.inf)
    refusal = decide_on_scopes(rule, caller).refusal
    if refusal is not None:
        if description is not None:
            refusal.args = (description,)
        raise refusal


def require_user_id(principal: Principal) -> str:
    """Return the user id of ``principal``.

    Raises:
        AccessDeniedError: if it is not a user.
    """
    if principal.user_id is None:
        raise AccessDeniedError.unnamed("user", "This operation needs a user")
    return principal.user_id


def check_owner(request: UserTokenRequest, principal: Principal) -> None:
    """Check that ``principal`` requests its own token, in one of its own tenants.

    Raises:
        ConnectionDeniedError: if the request is for another user or tenant.
    """
    if request.user_id != principal.user_id or (
        request.tenant_id is not None and request.tenant_id not in principal.tenant_ids
    ):
        raise ConnectionDeniedError(
            f"{request.app_id} is asked for another user or tenant than the access token names",
            connection=request.app_id,
        )
