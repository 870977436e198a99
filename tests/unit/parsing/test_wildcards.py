"""Does `*` match what it says, whatever a client sends to be matched?"""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import requires_auth
from toolguard.errors import InvalidInputError
from toolguard.parsing.wildcards import wildcard
from toolguard.policies.argument_scopes import ScopeTemplate
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.formulas import Attempt
from toolguard.policies.operations import OperationCall
from toolguard.policies.requirements import IsClient
from toolguard.principal import Principal

# Far more than any machine needs, and far less than the combinations take.
SOON = 2.0


@given(st.text("ab/*", max_size=9), st.text("ab/", max_size=9))
def test_a_wildcard_matches_what_trying_all_combinations_matches(pattern: str, text: str) -> None:
    for wild in (".", "[ab]"):
        plain = re.compile(f"{wild}*".join(map(re.escape, pattern.split("*"))), re.DOTALL)
        assert bool(wildcard(pattern, wild).fullmatch(text)) is bool(plain.fullmatch(text))


def test_a_name_cannot_keep_the_rules_busy() -> None:
    rules = PoliciesByName({"*a*a*a*a*b": requires_auth})
    begun = time.process_time()

    assert rules.policy("tool", "a" * 2_048) is None
    assert rules.policy("tool", "a" * 2_048 + "b") is not None
    assert time.process_time() - begun < SOON


def test_a_client_id_cannot_keep_a_rule_busy() -> None:
    begun = time.process_time()
    caller = Principal("alice", client_id="a" * 2_048, issuer="https://issuer.example")

    attempt = Attempt(caller, frozenset(), OperationCall("tool", "x"), now=0.0)
    assert not IsClient("*a*a*a*a*/").holds(attempt)
    assert time.process_time() - begun < SOON


def test_arguments_cannot_keep_a_template_busy() -> None:
    begun = time.process_time()
    dots = "." * 256

    with pytest.raises(InvalidInputError):
        ScopeTemplate("{x}.{y}.{z}.{x}").scope(
            OperationCall("tool", "add", {"x": f"{dots[1:]}a", "y": dots, "z": dots})
        )
    assert time.process_time() - begun < SOON


def test_an_argument_may_occur_twice_in_a_template() -> None:
    template = ScopeTemplate("{org}.{item}.of.{org}")

    made = template.scope(OperationCall("tool", "add", {"org": "a", "item": "b"}))
    assert made.tokens == ("a.b.of.a",)
