"""The public decorators that declare the policy of an operation."""

from __future__ import annotations

import functools
import inspect
import keyword
import math
import operator
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, cast, overload

from toolguard.decorators.wrapper import GuardDecorator
from toolguard.parsing.kinds import of_kind
from toolguard.parsing.scope_token import check_requestable
from toolguard.policies.argument_scopes import ScopeFunction, ScopesForCall, ScopeTemplate
from toolguard.policies.formulas import Condition, Formula
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.policies.requirements import (
    CHECK_TIMEOUT,
    BelongsToTenant,
    BelongsToTenantOf,
    Check,
    CheckByName,
    CheckFunction,
    HasClaim,
    HasPermission,
    HasRole,
    IsClient,
    RecentAuthentication,
    Requirement,
)
from toolguard.policies.scopes import Scope, ScopeLike
from toolguard.policies.scopes import all_of as all_of_scopes
from toolguard.policies.scopes import any_of as any_of_scopes

__all__ = [
    "RuleLike",
    "all_of",
    "any_of",
    "public",
    "requires",
    "requires_auth",
    "requires_claim",
    "requires_client",
    "requires_permissions",
    "requires_recent_auth",
    "requires_roles",
    "requires_scopes",
    "requires_tenant",
    "with_connection",
]

RuleLike: TypeAlias = ScopeLike | GuardDecorator
"""A scope, a scope expression, or any guard."""


def requires_scopes(*scopes: ScopeLike | ScopesForCall) -> GuardDecorator:
    """Require the caller's token to have all of these scopes.

    A caller who lacks one is challenged with 403 ``insufficient_scope`` (RFC 6750 §3.1).

    Args:
        scopes: scope-tokens (RFC 6749 §3.3), or expressions: ``any_of("a", "b")``, ``"a" & b``.
            For scopes that depend on the call, write an argument in braces,
            ``"calendar.{calendar_id}.write"`` (``{{`` for a literal brace), or a function,
            ``lambda call: ...``, of the :class:`OperationCall`. An argument of which no scope-token
            can be made is invalid input.

    Raises:
        ValueError: if there is no scope, or one that a challenge cannot request.
        TypeError: if a function does not have exactly one parameter, the call.

    Example::

        @mcp.tool()
        @requires_scopes("mcp:calendar.write")
        async def delete_event(event_id: str, *, user_id: str) -> None: ...
    """
    if not scopes:
        raise ValueError(
            'name at least one scope: @requires_scopes("calendar.read"); for "any valid token" '
            "write @requires_auth"
        )
    return GuardDecorator(Policy(functools.reduce(operator.and_, map(_scope_rule, scopes))))


def _scope_rule(given: object) -> Formula:
    if callable(given):
        return Formula(ScopeFunction(_function_of_call(given)))
    rule = all_of_scopes(cast("ScopeLike", given)).substitute(_scope_condition)
    if all(isinstance(each, str) for each in rule.conditions):
        scope = Scope.of(rule.alternatives)
        check_requestable(scope.tokens)
        return scope
    return rule


def _scope_condition(token: Condition) -> Formula:
    if not isinstance(token, str) or not {"{", "}"} & set(token):
        return Formula(token)
    template = ScopeTemplate(token)
    return Formula(template) if template.arguments else template.scope(OperationCall("tool", ""))


def _function_of_call(function: Callable[..., Any]) -> ScopesForCall:
    try:
        parameters = [*inspect.signature(function).parameters]
    except (TypeError, ValueError):  # a built-in
        parameters = []
    if parameters != ["call"] or inspect.iscoroutinefunction(function):
        raise TypeError(
            'write @requires_scopes("calendar.read"), with the scopes in parentheses; a function '
            "that names them takes the call: @requires_scopes(lambda call: ...)"
        )
    return function


requires_auth = GuardDecorator(Policy())
"""Require a valid token and nothing else."""

public = GuardDecorator(Policy(public=True))
"""Permit every caller, with or without a token. A token that is sent must still be valid."""


def with_connection(
    name: str,
    *,
    scopes: Iterable[str] | None = None,
    as_: str = "connection_token",
    tenant: bool = False,
    optional: bool = False,
    fresh: bool = False,
) -> GuardDecorator:
    """Inject the caller's token for a third-party service; implies a valid access token.

    The connection is fetched once the policy has permitted the call, with the caller's own access
    token. Several connections of one tool are fetched concurrently.

    Args:
        name: the connection's name at the guard's provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token must have; None accepts any.
        as_: the parameter that receives it, annotated ``str`` for the token or ``Connection`` for
            the object with its scopes, its expiry and ``auth`` for httpx.
        tenant: fetch the connection of the tenant that the caller's token names.
        optional: pass None if the user has not connected, instead of asking them to connect.
        fresh: never use a cached token.

    Raises:
        ValueError: for an empty name or an empty list of scopes.

    Example::

        @mcp.tool()
        @requires_scopes("mcp:calendar.write")
        @with_connection("google-calendar", scopes=["https://www.googleapis.com/auth/calendar"])
        async def create_event(title: str, *, user_id: str, connection_token: str) -> str: ...
    """
    if not isinstance(name, str):
        raise TypeError('write @with_connection("google-calendar"): the name comes first')
    if not name:
        raise ValueError('name the connection: @with_connection("google-calendar")')
    if isinstance(scopes, str):
        raise TypeError(f"write scopes=[{scopes!r}]: a list of scopes")
    write = 'scopes=["calendar.read"]: a list of scopes'
    listed = tuple(of_kind("scopes", scopes, Iterable, write)) if scopes is not None else ()
    if scopes is not None and not listed:
        raise ValueError(
            "scopes=[] asks for nothing: leave it out to accept the scopes that were granted"
        )
    if listed:
        all_of_scopes(*listed)  # raises for a value that is not a scope
    of_kind("as_", as_, str, 'as_="calendar_token": the name of a parameter')
    for name_of, flag in {"tenant": tenant, "optional": optional, "fresh": fresh}.items():
        of_kind(name_of, flag, bool, f"{name_of}=True")
    if not as_.isidentifier() or keyword.iskeyword(as_) or as_ == "user_id":
        raise ValueError(
            f"as_={as_!r} cannot be the parameter that takes a connection: "
            'write as_="calendar_token"'
        )
    need = ConnectionNeed(name, listed, as_, tenant=tenant, optional=optional, fresh=fresh)
    return GuardDecorator(Policy(connections=(need,)))


def requires_permissions(*permissions: str) -> GuardDecorator:
    """Require the token to name all of these permissions, of the user or the current tenant.

    A caller who lacks one is refused without a challenge: no scope that a client could request
    would change the decision.

    Args:
        permissions: names of permissions.

    Raises:
        ValueError: if there is no permission, or one is empty.
    """
    _check_names(permissions, 'requires_permissions("events.delete")')
    return _all(map(HasPermission, permissions))


def requires_roles(*roles: str) -> GuardDecorator:
    """Require the token to name all of these roles, of the user or the current tenant.

    For alternatives write ``any_of(requires_roles("owner"), requires_roles("editor"))``.

    Args:
        roles: names of roles.

    Raises:
        ValueError: if there is no role, or one is empty.
    """
    _check_names(roles, 'requires_roles("admin")')
    return _all(map(HasRole, roles))


def requires_tenant(*tenant_ids: str, tenant_from: str | None = None) -> GuardDecorator:
    """Require the user to belong to one of these tenants, according to the token.

    Args:
        tenant_ids: the ids of the accepted tenants.
        tenant_from: the argument of the call that names the tenant, instead of ``tenant_ids``.

    Raises:
        ValueError: if neither or both are given.

    Example::

        @mcp.tool()
        @requires_tenant(tenant_from="tenant_id")
        async def invoices(tenant_id: str) -> list[str]: ...
    """
    if tenant_from is not None:
        if tenant_ids or not tenant_from.isidentifier():
            raise ValueError('write requires_tenant(tenant_from="tenant_id") and no tenant beside')
        return _all([BelongsToTenantOf(tenant_from)])
    _check_names(tenant_ids, 'requires_tenant("tenant-a")')
    return _any(map(BelongsToTenant, tenant_ids))


def requires_client(*client_ids: str) -> GuardDecorator:
    """Require the token to have been issued to one of these OAuth clients.

    Args:
        client_ids: the accepted client ids; ``*`` stands for any number of letters, digits and
            ``.``, ``_``, ``~``, ``-``, so it never matches beyond the next delimiter of a URL.

    Raises:
        ValueError: if there is no client id, or one is empty.
    """
    _check_names(client_ids, 'requires_client("my-client")')
    return _any(map(IsClient, client_ids))


def requires_claim(name: str, predicate: Callable[[Any], bool]) -> GuardDecorator:
    """Require the token to have a claim that satisfies ``predicate``.

    Args:
        name: the name of the claim.
        predicate: a function of its value; only True permits the call. An exception refuses it.

    Raises:
        TypeError: if ``predicate`` is not a function.
        ValueError: if the name is empty.

    Example::

        @requires_claim("email_verified", lambda value: value is True)
        async def invite(address: str) -> None: ...
    """
    _check_names((name,), 'requires_claim("email_verified", lambda value: value is True)')
    if not callable(predicate):
        raise TypeError(f"write requires_claim({name!r}, lambda value: value == {predicate!r})")
    return _all([HasClaim(name, predicate)])


def requires(check: CheckFunction, *, timeout: float = CHECK_TIMEOUT) -> GuardDecorator:
    """Require your own check to permit the call.

    It is asked at most once for each call. With ``Refusals(unauthorized_tools="hide")`` it is
    also asked for each operation of a list, without arguments; a check with a coroutine method
    ``answer_each(principal, calls)``, which returns one answer for each (None where the arguments
    decide), is asked once for the list. A check with ``reads_arguments = False`` reads the name of
    the call and no argument, so it is also asked about completions and subscriptions.

    Args:
        check: a function of the :class:`Principal` and the :class:`OperationCall`; a coroutine
            function, or an ordinary one, which runs in a worker thread. It returns True, False or
            an :class:`Answer`; anything else denies the call, and so does an exception, which is
            logged with the name of the check.
        timeout: seconds for the answer; afterwards it cannot be told now whether the caller is
            permitted, which is an error and neither a permit nor a denial.

    Raises:
        TypeError: if ``check`` is not a function of two arguments.
        ValueError: if ``timeout`` is not a positive number.

    Example::

        async def may_approve(principal, call):
            if call.arguments["amount"] < 1000 or "finance" in principal.roles:
                return True
            return Answer.deny("more than 1000, and not of finance")

        @mcp.tool()
        @requires(may_approve)
        async def approve(invoice_id: str, amount: int) -> str: ...
    """
    try:
        inspect.signature(check).bind(None, None)
    except (TypeError, ValueError):
        raise TypeError(
            "write @requires(check): check(principal, call) returns True or False, or an Answer"
        ) from None
    if not 0 < timeout < math.inf:
        raise ValueError(f"timeout={timeout!r}: write seconds, more than 0")
    kind = Check if getattr(check, "reads_arguments", True) else CheckByName
    return _all([kind(check, timeout)])


def requires_recent_auth(
    *, max_age: int | None = None, acr_values: Iterable[str] = ()
) -> GuardDecorator:
    """Require the user to have signed in recently, or strongly enough (step-up, RFC 9470).

    A caller who has not is challenged with 401 ``insufficient_user_authentication``, ``max_age``
    and ``acr_values``, so that the client can have the user sign in again.

    Args:
        max_age: the maximum age of the sign-in in seconds, by the token's ``auth_time``; at
            least 1.
        acr_values: the accepted authentication context class references, one of which must be
            the token's ``acr``, in the order of preference.

    Raises:
        ValueError: if neither is given, or a challenge cannot request one of the values.
    """
    if isinstance(acr_values, str):
        raise TypeError(f"write acr_values=[{acr_values!r}]: a list")
    classes = tuple(acr_values)
    if max_age is not None:
        of_kind("max_age", max_age, int, "requires_recent_auth(max_age=300), in seconds")
    if (max_age is None and not classes) or (max_age is not None and max_age < 1):
        raise ValueError("write requires_recent_auth(max_age=300), in seconds, or acr_values=[...]")
    check_requestable(classes, "class")
    return GuardDecorator(Policy(Formula(RecentAuthentication(max_age, classes))))


@overload
def all_of(*rules: ScopeLike) -> Scope: ...  # type: ignore[overload-overlap]
@overload
def all_of(*rules: RuleLike) -> GuardDecorator: ...
def all_of(*rules: RuleLike) -> Scope | GuardDecorator:
    """Return the conjunction of ``rules``: scopes, guards, or both.

    Args:
        rules: scope-tokens, scope expressions or guards, all of which must be met.

    Raises:
        ValueError: if there are no rules, or one is not a scope-token.

    >>> all_of("read", "write")
    <Scope: read & write>
    >>> all_of("read", requires_roles("editor"))
    <guard: read & role editor>
    """
    scopes = [rule for rule in rules if isinstance(rule, (str, Scope))]
    if len(scopes) == len(rules):
        return all_of_scopes(*scopes)
    return GuardDecorator(functools.reduce(operator.and_, map(_policy, rules)))


@overload
def any_of(*rules: ScopeLike) -> Scope: ...  # type: ignore[overload-overlap]
@overload
def any_of(*rules: RuleLike) -> GuardDecorator: ...
def any_of(*rules: RuleLike) -> Scope | GuardDecorator:
    """Return the disjunction of ``rules``: scopes, guards, or both.

    Args:
        rules: scope-tokens, scope expressions or guards, at least one of which must be met.

    Raises:
        ValueError: if there are no rules, or one is not a scope-token, is public or fetches a
            connection.

    >>> any_of("admin", all_of("read", "write"))
    <Scope: admin | read & write>
    >>> any_of("admin", all_of("read", requires_roles("editor")))
    <guard: admin | read & role editor>
    """
    scopes = [rule for rule in rules if isinstance(rule, (str, Scope))]
    if len(scopes) == len(rules):
        return any_of_scopes(*scopes)
    policies = [_policy(rule) for rule in rules]
    if any(policy.public or policy.connections or policy.approval for policy in policies):
        raise ValueError(
            "any_of() takes rules: write public, with_connection() and requires_approval() by "
            "themselves"
        )
    wanted = [policy.formula for policy in policies if policy.formula is not None]
    if len(wanted) < len(policies):  # one of them permits every verified caller
        return GuardDecorator(Policy())
    return GuardDecorator(Policy(functools.reduce(operator.or_, wanted)))


def _policy(rule: RuleLike) -> Policy:
    return rule.policy if isinstance(rule, GuardDecorator) else Policy(_scope_rule(rule))


def _all(requirements: Iterable[Requirement]) -> GuardDecorator:
    return GuardDecorator(Policy(functools.reduce(operator.and_, map(Formula, requirements))))


def _any(requirements: Iterable[Requirement]) -> GuardDecorator:
    return GuardDecorator(Policy(functools.reduce(operator.or_, map(Formula, requirements))))


def _check_names(names: tuple[object, ...], example: str) -> None:
    if not names or not all(names):
        raise ValueError(f"name at least one: write {example}")
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"names are strings: write {example}")
