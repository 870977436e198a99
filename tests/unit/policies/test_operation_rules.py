"""Which rules apply to which name, and what do they come to?"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import (
    ToolGuard,
    public,
    requires_auth,
    requires_roles,
    requires_scopes,
    with_connection,
)
from toolguard.errors import AccessDeniedError
from toolguard.parsing.spellings import spellings
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.combined import combine_policies
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

AUTH = Policy()


def rules(**named: Any) -> PoliciesByName:
    return PoliciesByName(named)


@pytest.mark.parametrize(
    ("pattern", "kind", "name", "matches"),
    [
        ("delete_*", "tool", "delete_note", True),
        ("delete_*", "tool", "delete_", True),
        ("delete_*", "tool", "undelete_note", False),
        ("delete_*", "tool", "Delete_note", False),
        ("delete_*", "prompt", "delete_note", False),
        ("tool:delete_*", "tool", "delete_note", True),
        ("tool:tool:x", "tool", "tool:x", True),
        ("tool:ns:delete", "tool", "ns:delete", True),
        ("tool:tag:admin", "tool", "tag:admin", True),
        ("a.c", "tool", "abc", False),
        ("a[bc]", "tool", "ab", False),
        ("*", "tool", "x", True),
        ("*", "resource", "file:///x", True),
        ("*", "prompt", "x", True),
        ("tool:*", "prompt", "x", False),
        ("resource:file://*", "resource", "file:///etc/motd", True),
        ("resource:file://*", "resource", "http://file://x", False),
        ("resource:notes://{id}", "resource", "notes://{id}", True),
        ("prompt:*", "prompt", "line\nbreak", True),
    ],
)
def test_a_pattern_matches_names_of_its_kind(
    pattern: str, kind: Kind, name: str, *, matches: bool
) -> None:
    found = PoliciesByName({pattern: requires_auth}).policy(kind, name)

    assert (found is not None) == matches


_names = st.text("abc_", min_size=1, max_size=4)


@given(st.dictionaries(st.text("ab*_", min_size=1, max_size=4), st.sampled_from("xyz")), _names)
def test_all_rules_that_match_apply_whatever_their_order(scopes: dict[str, str], name: str) -> None:
    guards = {pattern: requires_scopes(scope) for pattern, scope in scopes.items()}
    wanted = {scope for pattern, scope in scopes.items() if fnmatchcase(name, pattern)}
    found = PoliciesByName(guards).policy("tool", name)
    backwards = PoliciesByName(dict(reversed(guards.items()))).policy("tool", name)

    assert (set(found.formula.scopes) if found and found.formula is not None else set()) == wanted
    assert found == backwards


def test_a_name_that_may_be_looked_up_as_another_needs_what_both_need() -> None:
    known = rules(a=requires_scopes("x"), b=requires_roles("y"))
    found = known.policy_of_all("tool", ["a", "b"], AUTH)

    assert str(found) == "x & role y"
    assert known.policy_of_all("tool", ["a", "c"], None) is None, "the default denies c"
    assert known.policy_of_all("tool", ["c", "d"], AUTH) == AUTH


@pytest.mark.parametrize("name", ["deleteall", "deleteAll", "DELETEALL"])
def test_the_spelling_of_a_rule_does_not_matter(name: str) -> None:
    known = rules(deleteAll=requires_scopes("x"), Open=public)

    assert str(known.policy_of_all("tool", spellings(name), AUTH)) == "x"
    assert known.policy_of_all("tool", spellings("open"), AUTH) == AUTH, "nothing becomes public"
    assert known.policy_of_all("tool", spellings("open"), None) is None


def test_only_what_is_public_under_every_name_is_public() -> None:
    known = rules(a=public, b=public, c=requires_auth)

    assert known.policy_of_all("tool", ["a", "b"], AUTH) == Policy(public=True)
    assert known.policy_of_all("tool", ["a", "c"], AUTH) == AUTH
    assert known.policy_of_all("tool", ["a", "x"], AUTH) == AUTH
    assert known.policy_of_all("tool", ["a", "x"], Policy(public=True)) == Policy(public=True)


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        (ValueError, {"": requires_auth}),
        (ValueError, {"tool:": requires_auth}),
        (ValueError, {"tag:": requires_auth}),
        (ValueError, {"x": with_connection("mail")}),
        (TypeError, {"x": "scope"}),
        (TypeError, {"x": requires_scopes}),
    ],
)
def test_a_rule_that_is_none_is_refused_where_it_is_written(
    kind: type[Exception], made: dict[str, Any]
) -> None:
    with pytest.raises(kind):
        PoliciesByName(made)


@pytest.mark.parametrize(
    "pattern",
    [
        "ns:delete",
        "tags:admin",
        "Tag:admin",
        " tool:x",
        "file://*",
        "*:x",
        ":x",
        "template:x://{y}",
    ],
)
def test_a_rule_with_an_unknown_prefix_is_refused(pattern: str) -> None:
    message = (
        rf"^the rule {re.escape(repr(pattern))} has the unknown prefix '.*:': write one of "
        r'"tool:", "resource:", "prompt:", "tag:"; a tool with a colon in its name is '
        rf'"tool:{re.escape(pattern)}"$'
    )
    with pytest.raises(ValueError, match=message):
        PoliciesByName({pattern: requires_auth})


@pytest.mark.parametrize("kind", ["tool", "resource", "prompt"])
@pytest.mark.parametrize(
    ("tags", "matches"),
    [((), False), (["admin"], True), ({"x", "admin:eu"}, True), (["Admin", "sub-admin"], False)],
)
def test_a_tag_rule_matches_any_operation_with_the_tag(
    kind: Kind, tags: Any, *, matches: bool
) -> None:
    known = PoliciesByName({"tag:admin*": requires_auth})

    for respelled in (False, True):
        found = known.policy(kind, "admin", tags=tags, respelled=respelled)
        assert (found is not None) == matches
    assert known.uses_tags
    assert [*known.unmatched([(kind, "admin", tags)])] == ([] if matches else ["tag:admin*"])


def test_rules_by_tag_and_by_name_apply_together() -> None:
    known = PoliciesByName({"tag:admin": requires_scopes("x"), "a": requires_scopes("y")})

    assert str(known.policy("tool", "a", tags={"admin"})) == "x & y"
    assert str(known.policy("tool", "a")) == "y"
    assert str(known.policy("tool", "a" * 1_000, tags={"admin"})) == "x"
    assert not rules(a=requires_auth).uses_tags


def test_a_tag_rule_is_refused_where_messages_tell_no_tags() -> None:
    guard = ToolGuard(issuer="https://issuer.test", audience="https://mcp.test/mcp")

    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(ValueError, match="messages do not carry tags"):
        guard.asgi(app, rules={"tag:admin": requires_auth})


def test_long_names_are_looked_at_and_not_remembered() -> None:
    known = rules(**{"a*": requires_auth})

    for _ in range(3):
        assert known.policy("tool", "a" * 10_000) == AUTH
    assert known._remembered.cache_info().currsize == 0
    known.policy("tool", "a")
    assert known._remembered.cache_info().currsize == 1


def ruled(sent: str, default: Policy | None, **named: Any) -> Policy | None:
    by_name = PoliciesByName({f"resource:notes://{name}": each for name, each in named.items()})
    names = ["notes://{path}"]
    return combine_policies(
        by_name, "resource", names=names, declared=None, default=default, sent=sent
    )


def test_the_default_is_for_a_uri_that_no_rule_matches_in_any_spelling() -> None:
    assert ruled("NOTES://home", AUTH, work=public) == AUTH
    assert ruled("NOTES://home", None, work=public) is None


def test_a_uri_that_only_one_spelling_permits_is_refused() -> None:
    with pytest.raises(AccessDeniedError) as caught:
        ruled("NOTES://work", None, work=requires_scopes("notes.read"))
    assert caught.value.rule == "default=deny"


def test_a_uri_too_long_to_be_matched_with_every_rule_is_refused() -> None:
    with pytest.raises(AccessDeniedError) as caught:
        ruled("notes://" + "a" * 2_048, AUTH)
    assert caught.value.rule == "a name of more than 2048 characters"
