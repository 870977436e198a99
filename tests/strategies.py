"""Which values do the property tests draw?"""

from __future__ import annotations

import string
from collections.abc import Mapping
from itertools import combinations
from operator import and_, or_
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from toolguard.challenge import Challenge
from toolguard.policy import Policy
from toolguard.scopes import Scope, ScopeHierarchy

__all__ = [
    "ALPHABET",
    "EVERY_GRANT",
    "challenges",
    "claims",
    "grants",
    "guards",
    "hierarchies",
    "json_values",
    "rules",
    "scope_tokens",
    "sendable_scopes",
]

#: So few scopes that a law can be held against every grant there is.
ALPHABET = ("a", "b", "c", "d")
EVERY_GRANT = tuple(
    frozenset(chosen)
    for size in range(len(ALPHABET) + 1)
    for chosen in combinations(ALPHABET, size)
)

# RFC 6749 §3.3 names what a scope is made of by what it is not.
_SCOPE_CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')
# What the clients of a challenge would take for the start of a parameter needs a "=".
_SENDABLE_CHARACTERS = _SCOPE_CHARACTERS.replace("=", "")
_BAITS = ("scope", "resource_metadata", "error", "scope:evil", "Bearer", ",", "scope'evil'")


def scope_tokens() -> SearchStrategy[str]:
    """Scopes as RFC 6749 §3.3 allows them."""
    return st.text(_SCOPE_CHARACTERS, min_size=1, max_size=12)


def sendable_scopes() -> SearchStrategy[str]:
    """Scopes that may be asked for in a challenge, baits among them."""
    return st.text(_SENDABLE_CHARACTERS, min_size=1, max_size=12) | st.sampled_from(_BAITS)


def rules() -> SearchStrategy[Scope]:
    """Scope expressions over the small alphabet, of every shape."""
    return st.recursive(
        st.sampled_from(ALPHABET).map(Scope),
        lambda inner: st.builds(and_, inner, inner) | st.builds(or_, inner, inner),
        max_leaves=6,
    )


def grants() -> SearchStrategy[frozenset[str]]:
    """Sets of granted scopes over the small alphabet."""
    return st.frozensets(st.sampled_from(ALPHABET))


@st.composite
def hierarchies(draw: st.DrawFn) -> ScopeHierarchy:
    """Hierarchies over the small alphabet; a scope includes only later ones, so no circles."""
    order = draw(st.permutations(ALPHABET))
    implications = {
        scope: draw(st.lists(st.sampled_from(order[position + 1 :]), unique=True))
        for position, scope in enumerate(order[:-1])
    }
    return ScopeHierarchy(implications)


def guards() -> SearchStrategy[list[Policy]]:
    """The policies of one to four decorators on one function."""
    policy = st.builds(Policy, rule=st.none() | rules())
    return st.lists(policy, min_size=1, max_size=4)


@st.composite
def challenges(draw: st.DrawFn) -> Challenge:
    """Challenges of every kind that is sent, with texts that try to be misread."""
    text = st.text([c for c in map(chr, range(0x20, 0x7F)) if c not in '"\\='], min_size=1)
    texts = text | st.lists(st.sampled_from(_BAITS), min_size=1).map(" ".join)
    path = st.text([*string.ascii_letters, *"/:@!$'()*+,;?&-._~%"], max_size=20)
    urls = path.map("https://mcp.example.com/".__add__)
    error = draw(st.none() | texts)
    scope = tuple(draw(st.lists(sendable_scopes(), max_size=4)))
    description = draw(st.none() | texts) if error is not None else None
    has_other = error is not None or bool(scope)
    metadata = draw(st.none() | urls) if has_other else draw(urls)
    return Challenge(error, scope, metadata, description)


def json_values() -> SearchStrategy[Any]:
    """What a JSON document may hold anywhere."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        # json.loads reads NaN, Infinity and numbers that no float holds.
        | st.just(10**400)
        | st.text(max_size=8)
        | st.sampled_from(("admin", "a b", "a\tb", "a\u00a0b", " ", "T1"))
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(_MEMBERS) | st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=12,
    )


def claims() -> SearchStrategy[Mapping[str, Any]]:
    """JSON objects with the names of real claims, and anything at all as their values."""
    return st.dictionaries(
        st.sampled_from(_CLAIMS) | st.text(max_size=4), json_values(), max_size=8
    )


_MEMBERS = ("permissions", "roles", "id", "sub", "T1", "T2")
_CLAIMS = (
    *("iss", "sub", "userId", "user_id", "user", "exp", "aud"),
    *("client_id", "azp", "appid", "cid"),
    *("tenant", "tenantId", "dct", "tid", "org_id", "tenants"),
    *("scope", "scp", "scopes", "permissions"),
    *("roles", "role", "realm_access", "resource_access", "cognito:groups"),
)
