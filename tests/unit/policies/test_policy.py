"""Whom does a policy let in, and does it matter how it was put together?"""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from functools import reduce
from operator import and_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import requires_roles
from toolguard.errors import InsufficientScopeError, MissingTokenError, ToolGuardError
from toolguard.policies.decision import Caller, decide_on_scopes
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.policies.scopes import Scope, ScopeHierarchy, all_of, any_of
from toolguard.principal import Principal
from toolguard.testing.strategies import SCOPES, grants, hierarchies, scope_rules

FLAT = ScopeHierarchy()
CALENDAR = ConnectionNeed("google-calendar", ("calendar",), "calendar_token")
MAIL = ConnectionNeed("mail", (), "mail_token")


def caller(*scopes: str) -> Principal:
    return Principal("alice", "https://issuer.example", scopes=scopes, expires_at=2e9)


def refusal(
    policy: Policy, principal: Principal | None, hierarchy: ScopeHierarchy = FLAT
) -> ToolGuardError | None:
    held = frozenset() if principal is None else hierarchy.expand(principal.scopes)
    return decide_on_scopes(policy, Caller(principal, held)).refusal


def missing(policy: Policy, grant: frozenset[str], hierarchy: ScopeHierarchy) -> tuple[str, ...]:
    error = refusal(policy, caller(*sorted(grant)), hierarchy)
    if error is None:
        return ()
    assert isinstance(error, InsufficientScopeError)
    return error.missing_scopes


# --- decisions


def test_a_policy_without_a_scope_lets_every_caller_in_and_nobody_else() -> None:
    assert refusal(Policy(), caller()) is None
    assert isinstance(refusal(Policy(), None), MissingTokenError)


def test_a_public_policy_lets_everybody_in() -> None:
    assert refusal(Policy(public=True), None) is None
    assert refusal(Policy(public=True), caller()) is None


def test_without_a_caller_the_scopes_to_begin_with_are_named() -> None:
    error = refusal(Policy(any_of(all_of("a", "b"), "c")), None)

    assert isinstance(error, MissingTokenError)
    assert error.scopes == ("c",)


def test_a_caller_with_too_few_scopes_is_told_everything_at_once() -> None:
    error = refusal(Policy(all_of("a", "b", "c")), caller("z", "b"))

    assert isinstance(error, InsufficientScopeError)
    assert error.required_scopes == ("a", "b", "c")
    assert error.missing_scopes == ("a", "c")
    assert error.token_scopes == ("z", "b")
    assert error.scope_parameter == "z b a c"


def test_the_alternative_nearest_to_the_grant_is_asked_for() -> None:
    policy = Policy(any_of(all_of("a", "b", "c"), all_of("x", "y")))

    near_first = refusal(policy, caller("a", "b"))
    near_second = refusal(policy, caller("x"))
    equally_near = refusal(policy, caller("b", "y", "c"))

    assert isinstance(near_first, InsufficientScopeError)
    assert near_first.missing_scopes == ("c",)
    assert isinstance(near_second, InsufficientScopeError)
    assert near_second.missing_scopes == ("y",)
    assert isinstance(equally_near, InsufficientScopeError)
    assert equally_near.missing_scopes == ("a",)


def test_a_scope_that_includes_another_counts_as_it_and_is_shown_as_held() -> None:
    hierarchy = ScopeHierarchy({"write": ["read"]})

    error = refusal(Policy(all_of("read", "list")), caller("write"), hierarchy)

    assert refusal(Policy(Scope("read")), caller("write"), hierarchy) is None
    assert isinstance(error, InsufficientScopeError)
    assert error.missing_scopes == ("list",)
    assert error.token_scopes == ("write",)
    assert error.combined_scopes == ("write", "list")


def test_a_scope_does_not_include_the_one_that_includes_it() -> None:
    hierarchy = ScopeHierarchy({"write": ["read"]})

    assert refusal(Policy(Scope("write")), caller("read"), hierarchy) is not None


@pytest.mark.parametrize(
    "held",
    ["calendar", "calendar.readonly", "Calendar.Read", "calendar.read.all", "xcalendar.read"],
)
def test_scopes_that_look_alike_are_different(held: str) -> None:
    assert refusal(Policy(Scope("calendar.read")), caller(held)) is not None


def test_permissions_and_roles_are_not_scopes() -> None:
    admin = Principal(
        "alice", "https://issuer.example", permissions=("read",), roles=("read",), expires_at=2e9
    )

    assert refusal(Policy(Scope("read")), admin) is not None


# --- merging


def test_stacked_scopes_are_all_required() -> None:
    assert (Policy(Scope("a")) & Policy(Scope("b"))).formula == all_of("a", "b")


def test_requires_auth_adds_nothing_to_a_policy_with_scopes() -> None:
    assert Policy() & Policy(Scope("a")) == Policy(Scope("a"))
    assert Policy(Scope("a")) & Policy() == Policy(Scope("a"))


def test_connections_are_collected_in_order_without_repetition() -> None:
    stacked = Policy(connections=(CALENDAR,)) & Policy(connections=(MAIL, CALENDAR))

    assert stacked.connections == (CALENDAR, MAIL)


@pytest.mark.parametrize("other", [Policy(), Policy(Scope("a")), Policy(connections=(MAIL,))])
def test_public_and_a_requirement_contradict_each_other_in_either_order(other: Policy) -> None:
    message = r"^@public cannot be combined with another guard: remove one of them$"

    with pytest.raises(ValueError, match=message):
        Policy(public=True) & other
    with pytest.raises(ValueError, match=message):
        other & Policy(public=True)


def test_a_policy_of_more_than_scopes_is_not_decided_on_scopes() -> None:
    with pytest.raises(TypeError, match="asks for more than scopes"):
        decide_on_scopes(
            requires_roles("editor").policy, Caller(caller("read"), frozenset({"read"}))
        )


def test_public_twice_is_public() -> None:
    assert Policy(public=True) & Policy(public=True) == Policy(public=True)


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Policy(Scope("a")).public = True  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        MAIL.parameter = "other"  # type: ignore[misc]


def test_a_policy_reads_as_what_it_asks_for() -> None:
    assert str(Policy()) == "any authenticated caller"
    assert str(Policy(public=True)) == "public"
    assert str(Policy(any_of("a", "b"), (CALENDAR, MAIL))) == (
        "a | b, connection google-calendar, connection mail"
    )
    assert str(Policy(connections=(MAIL,))) == "any authenticated caller, connection mail"


def test_the_first_scopes_are_the_fewest_that_open_the_operation() -> None:
    assert Policy(any_of(all_of("a", "b"), "c")).first_scopes == ("c",)
    assert Policy().first_scopes == ()


# --- laws; test_rule_laws.py has those of every rule

# Of one to four decorators on one function.
STACKS = st.lists(st.builds(Policy, formula=st.none() | scope_rules()), min_size=1, max_size=4)


@given(STACKS)
def test_merging_is_associative(stack: list[Policy]) -> None:
    first, *rest = stack
    from_the_right = reduce(lambda right, left: left & right, reversed(stack))

    assert reduce(and_, rest, first) == from_the_right


@given(STACKS)
def test_merging_a_policy_with_itself_changes_nothing(stack: list[Policy]) -> None:
    policy = reduce(and_, stack)

    assert policy & policy == policy


@given(STACKS, hierarchies(), grants())
def test_granting_the_required_scopes_alone_is_enough(
    stack: list[Policy], hierarchy: ScopeHierarchy, grant: frozenset[str]
) -> None:
    policy = reduce(and_, stack)
    error = refusal(policy, caller(*grant), hierarchy)

    if isinstance(error, InsufficientScopeError):
        assert refusal(policy, caller(*error.required_scopes), hierarchy) is None


@given(STACKS, hierarchies(), grants())
def test_a_refusal_for_scopes_always_names_one(
    stack: list[Policy], hierarchy: ScopeHierarchy, grant: frozenset[str]
) -> None:
    error = refusal(reduce(and_, stack), caller(*sorted(grant)), hierarchy)

    if error is not None:
        assert isinstance(error, InsufficientScopeError)
        assert error.missing_scopes
        assert set(error.missing_scopes) <= set(error.required_scopes)
        assert grant.isdisjoint(error.missing_scopes)
        assert set(error.token_scopes) == grant


@given(STACKS, hierarchies(), st.lists(st.sampled_from(SCOPES), unique=True))
def test_the_order_of_the_token_does_not_change_what_is_missing(
    stack: list[Policy], hierarchy: ScopeHierarchy, grant: list[str]
) -> None:
    policy = reduce(and_, stack)
    errors = [refusal(policy, caller(*order), hierarchy) for order in (grant, grant[::-1])]

    named = {error.missing_scopes for error in errors if isinstance(error, InsufficientScopeError)}
    assert len(named) <= 1


def test_what_is_public_by_its_facts_cannot_be_guarded_by_them() -> None:
    with pytest.raises(ValueError, match="@public cannot be combined"):
        Policy(Scope("notes.read"), public=True)
