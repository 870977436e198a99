"""Hypothesis strategies for rules, callers, tokens and texts.

`Hypothesis <https://hypothesis.readthedocs.io>`_ has to be installed to import this module. Values
shrink to the simplest one, so that a failing example is short::

    from hypothesis import given
    from toolguard.testing import LocalIssuer, call_as
    from toolguard.testing.strategies import broken_tokens

    issuer = LocalIssuer()

    @given(broken_tokens(issuer))
    def test_no_broken_token_opens_the_calendar(token):
        assert call_as(server, "list_events", token=token).status == 401
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, TypeVar

from toolguard.decorators.requires import (
    RuleLike,
    all_of,
    any_of,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.parts.extras import explained
from toolguard.policies.scopes import Scope, ScopeHierarchy
from toolguard.principal import Principal
from toolguard.testing.bad_tokens import INVALID_TOKENS, BadTokens
from toolguard.testing.hostile import (
    authorization_values,
    challenges,
    claims,
    forged_tokens,
    json_values,
    scope_tokens,
    sendable_scopes,
    tool_arguments,
)
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.proofs import INVALID_PROOFS, ProofKey

with explained():
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "NOW",
    "PERMISSIONS",
    "ROLES",
    "SCOPES",
    "TENANTS",
    "authorization_values",
    "broken_proofs",
    "broken_tokens",
    "challenges",
    "claims",
    "every_grant",
    "forged_tokens",
    "grants",
    "guards",
    "hierarchies",
    "json_values",
    "principals",
    "rules",
    "scope_rules",
    "scope_tokens",
    "sendable_scopes",
    "single_rules",
    "strange_proofs",
    "strange_tokens",
    "tokens",
    "tool_arguments",
]

T = TypeVar("T")

#: So few scopes that a law can be held against every grant there is.
SCOPES = ("read", "write", "share", "admin")
#: The roles of drawn rules and callers.
ROLES = ("editor", "owner")
#: Their permissions.
PERMISSIONS = ("export", "delete")
#: Their tenants.
TENANTS = ("north", "south")
#: When drawn callers call, in seconds since the epoch: on a day in January 2027.
NOW = 1_800_000_000.0

_USERS = ("alice", "bob")
_CLIENTS = ("desktop", "phone")
_AGES = (300, 60)
# No two of them without a class in common: one sign-in can always do for all.
_CLASSES = (("mfa",), ("mfa", "hwk"), ("pwd", "mfa"))


def _several(values: Iterable[T]) -> SearchStrategy[tuple[T, ...]]:
    """Some of ``values``, or none, in any order."""
    known = _listed(values)
    if not known:
        return st.just(())
    return st.lists(st.sampled_from(known), unique=True).map(tuple)


def _listed(values: Iterable[T]) -> tuple[T, ...]:
    if isinstance(values, str):
        raise TypeError(f"write {values.split()}: a list of names")
    return tuple(values)


# --- scopes


def scope_rules(scopes: Iterable[str] = SCOPES) -> SearchStrategy[Scope]:
    """Scope expressions of every shape.

    Args:
        scopes: what they are made of, at least one.

    >>> from hypothesis import find
    >>> find(scope_rules(), lambda rule: len(rule.tokens) > 1)
    <Scope: read & write>
    """
    return st.recursive(
        st.sampled_from(_listed(scopes)).map(Scope),
        lambda inner: st.builds(all_of, inner, inner) | st.builds(any_of, inner, inner),
        max_leaves=6,
    )


def grants(scopes: Iterable[str] = SCOPES) -> SearchStrategy[frozenset[str]]:
    """Sets of granted scopes, the empty one among them.

    Args:
        scopes: of which they are.
    """
    return _several(scopes).map(frozenset)


def every_grant(scopes: Iterable[str] = SCOPES) -> tuple[frozenset[str], ...]:
    """Return every set of granted scopes that there is, the small ones first.

    Args:
        scopes: the scopes to choose from.

    >>> every_grant(["read"])
    (frozenset(), frozenset({'read'}))
    """
    known = _listed(scopes)
    sizes = range(len(known) + 1)
    return tuple(frozenset(chosen) for size in sizes for chosen in combinations(known, size))


def hierarchies(scopes: Iterable[str] = SCOPES) -> SearchStrategy[ScopeHierarchy]:
    """Hierarchies of these scopes, the flat one among them.

    Args:
        scopes: which may include each other.
    """
    known = _listed(scopes)
    orders = st.permutations(known)
    # A scope includes only those before it, so there are no circles.
    before = st.tuples(*(_several(range(position)) for position in range(len(known))))

    @st.composite
    def implications(draw: st.DrawFn) -> dict[str, list[str]]:
        order = draw(orders)
        positions = zip(order, draw(before), strict=True)
        return {scope: [order[each] for each in chosen] for scope, chosen in positions if chosen}

    return implications().map(ScopeHierarchy)


# --- rules


def single_rules(scopes: Iterable[str] = SCOPES) -> SearchStrategy[RuleLike]:
    """Rules of one condition: a scope, a role, a permission, a tenant, a client, a fresh sign-in.

    Args:
        scopes: the scopes among them, at least one.
    """
    return st.one_of(
        st.sampled_from(_listed(scopes)),
        st.builds(requires_roles, st.sampled_from(ROLES)),
        st.builds(requires_permissions, st.sampled_from(PERMISSIONS)),
        st.builds(requires_tenant, st.sampled_from(TENANTS)),
        st.builds(requires_client, st.sampled_from(_CLIENTS)),
        st.builds(requires_recent_auth, max_age=st.sampled_from(_AGES)),
        st.builds(requires_recent_auth, acr_values=st.sampled_from(_CLASSES)),
    )


def rules(single: SearchStrategy[RuleLike] | None = None) -> SearchStrategy[RuleLike]:
    """Expressions of every shape, as ``all_of`` and ``any_of`` take them.

    Args:
        single: draws what they are made of; by default :func:`single_rules`.

    Example::

        mine = st.sampled_from(["notes.read", requires_roles("editor")])

        @given(rules(mine), principals(["notes.read"]))
        def test_my_law(rule, caller): ...
    """
    return st.recursive(
        single_rules() if single is None else single,
        lambda inner: st.builds(all_of, inner, inner) | st.builds(any_of, inner, inner),
        max_leaves=6,
    )


def guards(single: SearchStrategy[RuleLike] | None = None) -> SearchStrategy[GuardDecorator]:
    """Guards to put on a function.

    Args:
        single: draws what they are made of, as for :func:`rules`.
    """
    return rules(single).flatmap(_as_guard)


def _as_guard(rule: RuleLike) -> SearchStrategy[GuardDecorator]:
    if isinstance(rule, GuardDecorator):
        return st.just(rule)
    return st.builds(requires_scopes, st.just(rule))


# --- callers


def principals(
    scopes: Iterable[str] = SCOPES,
    *,
    roles: Iterable[str] = ROLES,
    permissions: Iterable[str] = PERMISSIONS,
    tenants: Iterable[str] = TENANTS,
    now: float = NOW,
) -> SearchStrategy[Principal]:
    """Verified callers whose token is good for five minutes; the simplest holds nothing.

    Args:
        scopes: of which they hold some, or none.
        roles: likewise.
        permissions: likewise.
        tenants: to which they belong, likewise.
        now: the time at which they call, in seconds since the epoch; they have signed in just
            now, or two minutes or an hour ago, or their token does not say.
    """
    signed_in = {
        "auth_time": st.sampled_from((now, now - 120, now - 3_600)),
        "acr": st.sampled_from(tuple(dict.fromkeys(acr for each in _CLASSES for acr in each))),
    }
    facts = {
        "scopes": _several(scopes),
        "roles": _several(roles),
        "permissions": _several(permissions),
        "tenant_ids": _several(tenants),
        "client_id": st.sampled_from((None, *_CLIENTS)),
        "claims": st.fixed_dictionaries({}, optional=signed_in),
    }
    return _callers(facts, now + 300)


@st.composite
def _callers(
    draw: st.DrawFn, facts: Mapping[str, SearchStrategy[Any]], expires_at: float
) -> Principal:
    user = draw(st.sampled_from(_USERS))
    drawn = {name: draw(values) for name, values in facts.items()}
    drawn["tenant_id"] = draw(st.sampled_from((None, *drawn["tenant_ids"])))
    # What a caller does not hold is not said, so that a failing example shows what they do.
    said = {name: st.just(value) for name, value in drawn.items() if value}
    issuer, expiry = st.just("https://issuer.test"), st.just(expires_at)
    return draw(st.builds(Principal, st.just(user), issuer, expires_at=expiry, **said))


# --- tokens


def tokens(issuer: LocalIssuer, scopes: Iterable[str] = SCOPES) -> SearchStrategy[str]:
    """Valid tokens, with some of these scopes or none.

    Args:
        issuer: signs them.
        scopes: of which they hold some.
    """

    def mint(user: str, scopes: tuple[str, ...]) -> str:
        return issuer.mint(user, scopes=scopes)

    return st.builds(mint, st.sampled_from(_USERS), _several(scopes))


def broken_tokens(issuer: BadTokens, scopes: Iterable[str] = SCOPES) -> SearchStrategy[str]:
    """Tokens that differ from valid ones in one respect, and have to be refused for it.

    Args:
        issuer: mints them; each is one of
            :data:`~toolguard.testing.bad_tokens.INVALID_TOKENS`.
        scopes: of which they hold some.
    """

    def mint_invalid(name: str, user: str, scopes: tuple[str, ...]) -> str:
        return issuer.mint_invalid(name, user, scopes=scopes)

    kinds, users = st.sampled_from(tuple(INVALID_TOKENS)), st.sampled_from(_USERS)
    return st.builds(mint_invalid, kinds, users, _several(scopes))


def broken_proofs(key: ProofKey, url: str, token: str) -> SearchStrategy[list[str]]:
    """The DPoP headers of requests whose proof differs from a valid one in one respect.

    Args:
        key: signs them; each is one of :data:`~toolguard.testing.proofs.INVALID_PROOFS`.
        url: the URL of the requests.
        token: the access token that they carry.
    """

    def prove_invalid(name: str, method: str) -> list[str]:
        return key.prove_invalid(name, method, url, token)

    kinds = st.sampled_from(tuple(INVALID_PROOFS))
    return st.builds(prove_invalid, kinds, st.sampled_from(("POST", "GET", "DELETE")))


def strange_proofs(key: ProofKey, url: str, token: str) -> SearchStrategy[str]:
    """Proofs with a valid signature and nearly any claims: a server accepts or refuses them.

    Args:
        key: signs them.
        url: the URL of the requests.
        token: the access token that they carry.
    """
    names = st.sampled_from(("jti", "htm", "htu", "iat", "ath", "nonce", "exp"))
    changes = st.dictionaries(names, json_values())
    return changes.map(lambda changed: key.prove("POST", url, token, **changed))


def strange_tokens(issuer: LocalIssuer) -> SearchStrategy[str]:
    """Tokens with a valid signature and nearly any claims: a server accepts or refuses them.

    Args:
        issuer: signs them.
    """

    def sign(changes: Mapping[str, Any]) -> str:
        return issuer.sign({**issuer.claims(), **changes})

    return st.builds(sign, claims())
