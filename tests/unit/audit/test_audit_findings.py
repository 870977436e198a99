"""When does a rule match nothing?"""

from __future__ import annotations

import re
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from toolguard import requires_auth
from toolguard.audit.findings import unmatched_rules, unoffered_scopes
from toolguard.policies.by_name import PoliciesByName

patterns = st.text("ab*", min_size=1, max_size=4)


def matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None


# Two patterns that overlap share a text that is no longer than both of them together.
TEXTS = ["".join(letters) for length in range(7) for letters in product("ab", repeat=length)]


@given(patterns, patterns)
def test_a_rule_overlaps_a_template_exactly_if_some_uri_is_of_both(one: str, other: str) -> None:
    template = "x://" + other.replace("*", "{argument}")
    pattern = f"resource:x://{one}"
    rules = PoliciesByName({pattern: requires_auth})

    found = [*unmatched_rules(rules, [("resource", template, ())])]

    shared = any(matches(one, text) and matches(other, text) for text in TEXTS)
    assert (found == []) == (shared or matches(one, template.removeprefix("x://")))


def test_long_patterns_are_held_against_each_other_in_time() -> None:
    rules = PoliciesByName({"resource:x://" + "a*" * 300: requires_auth})
    template = "x://" + "{argument}a" * 300 + "b"

    assert len([*unmatched_rules(rules, [("resource", template, ())])]) == 0


def test_a_scope_is_named_with_who_asks_for_it_first() -> None:
    asked = {"read": ["tool 'a'", "tool 'b'", "prompt 'c'"], "write": ["tool 'a'"]}

    (finding,) = unoffered_scopes(asked, ["write"])

    assert finding.message == (
        "the authorization server does not offer scope 'read', which tool 'a' (and 2 more) asks "
        "for: correct it, or have it offered"
    )
