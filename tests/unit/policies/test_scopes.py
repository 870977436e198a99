"""What do scope expressions look like to those who write them?"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from operator import and_, or_

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.policies.scopes import Scope, ScopeHierarchy, all_of, any_of

READ, WRITE, ADMIN = Scope("calendar.read"), Scope("calendar.write"), Scope("admin")


def test_a_rule_reads_as_it_was_written() -> None:
    rule = READ & "profile" | ADMIN

    assert str(rule) == "calendar.read & profile | admin"
    assert repr(rule) == "<Scope: calendar.read & profile | admin>"


def test_a_rule_names_its_alternatives_and_its_scopes_in_the_declared_order() -> None:
    rule = any_of(all_of("read", "write"), all_of("write", "admin"), "root")

    assert rule.alternatives == (("read", "write"), ("write", "admin"), ("root",))
    assert rule.tokens == ("read", "write", "admin", "root")


def test_an_alternative_that_asks_for_more_than_another_is_dropped() -> None:
    assert (READ & WRITE | READ).alternatives == (("calendar.read",),)


@pytest.mark.parametrize(
    ("granted", "nearest", "missing"),
    [
        ((), ("admin",), ("admin",)),
        (("read",), ("read", "write"), ("write",)),
        (("write",), ("read", "write"), ("read",)),
        (("read", "write"), ("read", "write"), ()),
        (("admin",), ("admin",), ()),
        (("other",), ("admin",), ("admin",)),
    ],
)
def test_the_nearest_alternative_needs_the_fewest_further_scopes(
    granted: tuple[str, ...], nearest: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    rule = any_of(all_of("read", "write"), "admin")

    assert rule.nearest(granted) == nearest
    assert rule.missing(granted) == missing


def test_a_tie_goes_to_the_alternative_declared_first() -> None:
    assert any_of("write", "admin").nearest(()) == ("write",)
    assert any_of("admin", "write").nearest(()) == ("admin",)
    assert any_of("write", "admin", "write").nearest(()) == ("write",)


def test_scopes_are_compared_as_whole_strings_and_with_case() -> None:
    assert not READ.allows({"calendar.readonly", "calendar", "Calendar.Read"})


@pytest.mark.parametrize(
    "scope",
    [
        "mcp:calendar.write",
        "https://www.googleapis.com/auth/calendar",
        "api://1b2c/Tasks.Read",
        "repo:status",
        "!#$%&'()*+,-./",
        "scope=value",
    ],
)
def test_what_providers_call_a_scope_is_one(scope: str) -> None:
    assert Scope(scope).tokens == (scope,)


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a\tb", 'a"b', "a\\b", "a\nb", "\x7f", "é", "\u00a0"]
)
def test_what_the_grammar_excludes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a scope: RFC 6749 §3\.3 allows"):
        Scope(text)


def test_a_single_scope_that_is_none_is_refused_without_further_advice() -> None:
    with pytest.raises(ValueError, match=r"^'a\"b' is not a scope: .* quotes and backslashes$"):
        Scope('a"b')


def test_several_scopes_in_one_string_are_shown_one_by_one() -> None:
    message = (
        "'read write' is not a scope: RFC 6749 §3.3 allows printable ASCII without spaces, quotes "
        "and backslashes; write them one by one: ['read', 'write']"
    )

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Scope("read write")
    with pytest.raises(ValueError, match=r"write them one by one: \['read', 'write'\]"):
        READ & "read write"


def test_a_scope_that_is_no_string_is_refused_by_type() -> None:
    with pytest.raises(TypeError, match=r"^a scope is a string, not int: write '7'$"):
        Scope(7)  # type: ignore[arg-type]


def test_a_list_of_scopes_is_shown_one_by_one() -> None:
    with pytest.raises(TypeError, match=r"^name the scopes one by one: write 'read', 'write'$"):
        any_of(["read", "write"])  # type: ignore[arg-type]


def test_a_grant_in_one_string_would_match_by_letters_and_is_refused() -> None:
    with pytest.raises(TypeError, match=r"not a string: write \['read', 'write'\]$"):
        READ.allows("read write")
    with pytest.raises(TypeError, match="granted scopes are a collection"):
        READ.missing("read")
    with pytest.raises(TypeError, match="granted scopes are a collection"):
        READ.nearest("read")


@pytest.mark.parametrize("combine", [all_of, any_of])
def test_no_scopes_at_all_are_refused_with_an_example(combine: Callable[..., Scope]) -> None:
    with pytest.raises(ValueError, match=rf'^no scope given: write {combine.__name__}\("read", '):
        combine()


def test_and_written_as_a_word_is_refused_with_what_to_write() -> None:
    message = r"^a Scope has no truth value: combine rules with & and \| \(not `and` and `or`\)"

    with pytest.raises(TypeError, match=message):
        all_of(READ and WRITE)
    with pytest.raises(TypeError, match=message):
        all_of(READ or WRITE)
    with pytest.raises(TypeError, match=message):
        assert not READ


@pytest.mark.parametrize("stranger", [7, None, ["read"], object()])
@pytest.mark.parametrize("combine", [and_, or_])
def test_a_rule_combines_with_rules_and_strings_only(
    combine: Callable[[object, object], object], stranger: object
) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        combine(READ, stranger)
    with pytest.raises(TypeError, match=r"a scope is a string, not |name the scopes one by one"):
        combine(stranger, READ)


def test_a_rule_is_not_equal_to_its_text() -> None:
    assert READ != "calendar.read"
    assert Scope("a") == Scope("a")


def test_a_rule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError, match=r"^a Scope is immutable; cannot set '_alternatives'$"):
        READ._alternatives = (("other",),)
    with pytest.raises(AttributeError, match=r"^a Scope is immutable; cannot delete '_canonical'$"):
        del READ._canonical
    with pytest.raises(AttributeError, match="immutable"):
        READ.note = "mine"


def test_a_rule_that_multiplies_out_of_bounds_is_refused() -> None:
    thirty = any_of(*(f"a{i}" for i in range(30)))
    forty = any_of(*(f"b{i}" for i in range(40)))

    assert len((thirty & any_of(*(f"c{i}" for i in range(30)))).alternatives) == 900
    with pytest.raises(ValueError, match=r"^this rule has more than 1000 alternatives; split it$"):
        thirty & forty


# --- hierarchies


def test_a_granted_scope_stands_for_what_it_includes_and_so_on() -> None:
    hierarchy = ScopeHierarchy({"admin": ["write"], "write": ["read", "list"]})

    assert hierarchy.expand(["admin"]) == {"admin", "write", "read", "list"}
    assert hierarchy.expand(["read"]) == {"read"}
    assert repr(hierarchy) == "<ScopeHierarchy: admin > list read write; write > list read>"


def test_a_hierarchy_goes_by_what_is_declared_and_not_by_how_names_begin() -> None:
    hierarchy = ScopeHierarchy({"calendar": ["calendar.read"]})

    assert hierarchy.expand(["calendar.write", "calenda"]) == {"calendar.write", "calenda"}


def test_a_scope_that_includes_itself_is_a_circle() -> None:
    with pytest.raises(ValueError, match=r"^the scope hierarchy has a cycle through 'a'$"):
        ScopeHierarchy({"a": ["a"]})


def test_an_included_scope_without_its_list_is_refused() -> None:
    message = r"^write {'write': \['read'\]}: the included scopes are a list$"

    with pytest.raises(TypeError, match=message):
        ScopeHierarchy({"write": "read"})


@pytest.mark.parametrize("implications", [{"a b": ["c"]}, {"a": ["b c"]}, {"": ["a"]}, {"a": [""]}])
def test_a_hierarchy_of_what_are_no_scopes_is_refused(implications: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="is not a scope"):
        ScopeHierarchy(implications)


class Counted(str):
    """A scope that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return super().__eq__(other)


@pytest.mark.parametrize("combine", [all_of, any_of])
def test_scopes_are_combined_in_steps_that_grow_with_their_number(
    combine: Callable[..., Scope],
) -> None:
    looks = []
    for number in (200, 400, 800):
        before = Counted.looks
        combine(*(Counted(f"s{i}") for i in range(number)))
        looks.append((Counted.looks - before) / number)

    assert max(looks) < 1.2 * min(looks)
    assert max(looks) < 20


_formulas = st.recursive(
    st.sampled_from("abcde").map(Scope),
    lambda inner: st.tuples(st.sampled_from((and_, or_)), inner, inner).map(
        lambda made: made[0](made[1], made[2])
    ),
    max_leaves=5,
)


@given(st.lists(_formulas, min_size=1, max_size=5))
def test_all_at_once_is_the_same_as_one_by_one(rules: list[Scope]) -> None:
    assert all_of(*rules) == functools.reduce(and_, rules)
    assert any_of(*rules) == functools.reduce(or_, rules)


def test_more_alternatives_than_can_be_compared_are_refused() -> None:
    assert len(any_of(*map(str, range(1_000))).alternatives) == 1_000
    with pytest.raises(ValueError, match="more than 1,000 alternatives; split it"):
        any_of(*map(str, range(1_001)))
