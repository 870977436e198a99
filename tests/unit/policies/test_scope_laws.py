"""Which laws do scope expressions and hierarchies obey?"""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.policies.scopes import Scope, ScopeHierarchy, all_of, any_of
from toolguard.testing.strategies import (
    SCOPES,
    every_grant,
    grants,
    hierarchies,
    scope_rules,
    scope_tokens,
)

# --- what & and | mean


@given(st.lists(scope_rules(), min_size=1, max_size=4))
def test_all_of_is_and_of_all_parts(parts: list[Scope]) -> None:
    rule = parts[0]
    for part in parts[1:]:
        rule = rule & part

    assert all_of(*parts) == rule


@given(st.lists(scope_tokens(), min_size=1, max_size=6))
def test_all_of_keeps_scopes_in_their_declared_order(tokens: list[str]) -> None:
    assert all_of(*tokens).alternatives == (tuple(dict.fromkeys(tokens)),)


@given(st.lists(scope_rules(), min_size=1, max_size=4))
def test_any_of_is_or_from_left_to_right(parts: list[Scope]) -> None:
    rule = parts[0]
    for part in parts[1:]:
        rule = rule | part

    assert any_of(*parts).alternatives == rule.alternatives


@given(scope_rules(), st.sampled_from(SCOPES))
def test_a_string_stands_for_its_scope_on_either_side(a: Scope, token: str) -> None:
    assert (token & a, a & token) == (Scope(token) & a, a & Scope(token))
    assert (token | a, a | token) == (Scope(token) | a, a | Scope(token))


# --- equality


@given(scope_rules(), scope_rules())
def test_equality_means_the_same_permission(a: Scope, b: Scope) -> None:
    same = all(a.allows(grant) == b.allows(grant) for grant in every_grant())

    assert (a == b) is same


# --- the normal form


@given(scope_rules())
def test_no_rule_is_empty(a: Scope) -> None:
    assert a.alternatives
    assert all(a.alternatives)


@given(scope_rules())
def test_tokens_are_those_of_the_alternatives_without_repetition(a: Scope) -> None:
    assert len(a.tokens) == len(set(a.tokens))
    assert set(a.tokens) == {token for group in a.alternatives for token in group}


@given(st.lists(scope_tokens(), min_size=1, max_size=8))
def test_all_of_keeps_the_declared_order(tokens: list[str]) -> None:
    assert all_of(*tokens).alternatives == (tuple(dict.fromkeys(tokens)),)


# --- grants


@given(scope_rules(), grants(), grants())
def test_allows_is_monotone(a: Scope, grant: frozenset[str], more: frozenset[str]) -> None:
    assert a.allows(grant | more) or not a.allows(grant)


@given(scope_rules())
def test_nothing_is_allowed_without_a_grant(a: Scope) -> None:
    assert not a.allows(())


@given(scope_rules())
def test_every_alternative_is_enough_and_nothing_in_it_is_superfluous(a: Scope) -> None:
    for group in a.alternatives:
        assert a.allows(group)
        assert not any(a.allows(set(group) - {token}) for token in group)


@given(scope_rules(), st.lists(st.sampled_from(SCOPES)))
def test_neither_order_nor_repetition_of_a_grant_counts(a: Scope, grant: list[str]) -> None:
    forms = (grant, grant[::-1], tuple(grant * 2), set(grant), frozenset(grant), iter(grant))

    assert len({a.missing(form) for form in forms}) == 1


# --- what is missing


@given(scope_rules(), grants())
def test_missing_is_empty_exactly_if_allowed(a: Scope, grant: frozenset[str]) -> None:
    assert (a.missing(grant) == ()) is a.allows(grant)


@given(scope_rules(), grants())
def test_granting_what_is_missing_allows(a: Scope, grant: frozenset[str]) -> None:
    assert a.allows(grant.union(a.missing(grant)))


@given(scope_rules(), grants())
def test_no_smaller_set_than_the_missing_one_allows(a: Scope, grant: frozenset[str]) -> None:
    enough = min(len(more) for more in every_grant() if a.allows(grant | more))

    assert len(a.missing(grant)) == enough


@given(scope_rules(), grants())
def test_nothing_held_is_missing(a: Scope, grant: frozenset[str]) -> None:
    assert grant.isdisjoint(a.missing(grant))


@given(scope_rules(), grants())
def test_missing_is_what_the_nearest_alternative_lacks(a: Scope, grant: frozenset[str]) -> None:
    nearest = a.nearest(grant)

    assert nearest in a.alternatives
    assert a.missing(grant) == tuple(token for token in nearest if token not in grant)


@given(scope_rules(), grants())
def test_among_equally_near_alternatives_the_first_is_nearest(
    a: Scope, grant: frozenset[str]
) -> None:
    lacking = [len(set(group) - grant) for group in a.alternatives]

    assert a.nearest(grant) == a.alternatives[lacking.index(min(lacking))]


@given(st.lists(st.sampled_from(SCOPES) | scope_tokens(), min_size=1, max_size=8))
def test_alternatives_are_kept_in_the_order_of_their_first_declaration(tokens: list[str]) -> None:
    rule = any_of(*tokens)

    assert rule.alternatives == tuple((token,) for token in dict.fromkeys(tokens))
    assert rule.nearest(()) == (tokens[0],)


# --- round trips


@given(scope_rules())
def test_the_text_of_a_rule_can_be_read_back(a: Scope) -> None:
    groups = [text.split(" & ") for text in str(a).split(" | ")]

    assert any_of(*(all_of(*group) for group in groups)).alternatives == a.alternatives


@given(scope_rules())
def test_the_representation_shows_the_text(a: Scope) -> None:
    assert repr(a) == f"<Scope: {a}>"


# --- scope-tokens

_ALLOWED = (set(string.printable) - set(string.whitespace)) - {'"', "\\"}


@given(st.text(max_size=6) | scope_tokens())
def test_scopes_are_visible_ascii_without_quote_and_backslash(
    text: str,
) -> None:
    if text and set(text) <= _ALLOWED:
        assert Scope(text).alternatives == ((text,),)
    else:
        with pytest.raises(ValueError, match="is not a scope"):
            Scope(text)


# --- hierarchies


@given(hierarchies(), grants())
def test_expansion_is_idempotent(hierarchy: ScopeHierarchy, grant: frozenset[str]) -> None:
    once = hierarchy.expand(grant)

    assert hierarchy.expand(once) == once


@given(hierarchies(), grants())
def test_expansion_drops_nothing(hierarchy: ScopeHierarchy, grant: frozenset[str]) -> None:
    assert hierarchy.expand(grant) >= grant


@given(hierarchies(), grants(), grants())
def test_expansion_is_monotone(
    hierarchy: ScopeHierarchy, grant: frozenset[str], more: frozenset[str]
) -> None:
    assert hierarchy.expand(grant) <= hierarchy.expand(grant | more)


@given(hierarchies(), grants(), grants())
def test_expansion_of_a_union_is_the_union_of_expansions(
    hierarchy: ScopeHierarchy, one: frozenset[str], other: frozenset[str]
) -> None:
    assert hierarchy.expand(one | other) == hierarchy.expand(one) | hierarchy.expand(other)


@given(st.permutations(SCOPES), st.integers(1, len(SCOPES) - 1))
def test_expansion_is_transitive(order: list[str], steps: int) -> None:
    chain = {order[i]: [order[i + 1]] for i in range(steps)}

    assert ScopeHierarchy(chain).expand([order[0]]) == frozenset(order[: steps + 1])


@given(grants())
def test_without_a_hierarchy_a_grant_stands_for_itself(grant: frozenset[str]) -> None:
    assert ScopeHierarchy().expand(grant) == grant
    assert ScopeHierarchy({}).expand(grant) == grant


@given(hierarchies(), st.lists(scope_tokens()))
def test_expansion_adds_nothing_for_scopes_that_are_not_in_it(
    hierarchy: ScopeHierarchy, grant: list[str]
) -> None:
    strangers = {f"x{token}" for token in grant}

    assert hierarchy.expand(strangers) == strangers


@given(st.permutations(SCOPES), st.integers(1, len(SCOPES)))
def test_a_circle_is_refused_wherever_it_is_entered(order: list[str], length: int) -> None:
    circle = {order[i]: [order[(i + 1) % length]] for i in range(length)}

    with pytest.raises(ValueError, match="the scope hierarchy has a cycle through"):
        ScopeHierarchy({"entrance": [order[0]], **circle})
