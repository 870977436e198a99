"""Are the drawn values what they are said to be, and is the first one the simplest?"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from support.callers import Caller, Desk
from toolguard import InvalidTokenError, Principal, Scope, ScopeHierarchy, ToolGuardError
from toolguard.decorators.requires import RuleLike
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.errors import InvalidProofError, MalformedCredentialsError
from toolguard.http.challenge import Challenge
from toolguard.policies.requirements import (
    BelongsToTenant,
    HasPermission,
    HasRole,
    IsClient,
    RecentAuthentication,
)
from toolguard.testing import INVALID_PROOFS, LocalIssuer, ProofKey
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.testing.strategies import (
    NOW,
    SCOPES,
    authorization_values,
    broken_proofs,
    broken_tokens,
    challenges,
    claims,
    every_grant,
    forged_tokens,
    grants,
    guards,
    hierarchies,
    json_values,
    principals,
    rules,
    scope_rules,
    scope_tokens,
    sendable_scopes,
    single_rules,
    strange_proofs,
    strange_tokens,
    tokens,
    tool_arguments,
)
from toolguard.tokens.bearer import presented_token
from toolguard.tokens.proofs.proof import Proof, Request, check_proof, read_proof

ISSUER = LocalIssuer(algorithm="ES256", clock=lambda: NOW)
VERIFIER = ISSUER.verifier()
KEY, URL, TOKEN = ProofKey(clock=lambda: NOW), "https://mcp.test/mcp", "token"
QUICKLY = settings(database=None, max_examples=1_000, phases=(Phase.generate, Phase.shrink))


def proved(*headers: str) -> Proof:
    """Return the proof in the headers of a request with ``POST``."""
    return check_proof(
        read_proof([(b"dpop", each.encode()) for each in headers]),
        Request("POST", URL, TOKEN, KEY.thumbprint),
        now=NOW,
        window=300,
        algorithms=["ES256"],
    )


def outcome(token: str) -> Principal | InvalidTokenError:
    try:
        caller = VERIFIER.verify_now(token)
    except InvalidTokenError as refusal:
        return refusal
    assert caller is not None
    return caller


# --- the first one is the simplest


@pytest.mark.parametrize(
    ("strategy", "simplest"),
    [
        (scope_rules(), Scope("read")),
        (scope_rules(["notes"]), Scope("notes")),
        (single_rules(), "read"),
        (rules(), "read"),
        (grants(), frozenset()),
        (tool_arguments("calendar"), {}),
        (claims(), {}),
        (json_values(), None),
        (authorization_values(), b""),
        (scope_tokens(), "0"),
    ],
    ids=repr,
)
def test_the_simplest_value_comes_first(strategy: SearchStrategy[Any], simplest: object) -> None:
    assert find(strategy, lambda _: True, settings=QUICKLY) == simplest


def test_the_simplest_caller_holds_nothing() -> None:
    caller = find(principals(), lambda _: True, settings=QUICKLY)

    assert caller == Principal("alice", "https://issuer.test", expires_at=NOW + 300)
    assert caller.claims == {}


def test_the_simplest_guard_and_the_simplest_hierarchy_are_short() -> None:
    assert repr(find(guards(), lambda _: True, settings=QUICKLY)) == "<guard: read>"
    assert repr(find(hierarchies(), lambda _: True, settings=QUICKLY)) == "<ScopeHierarchy: >"


def test_a_failing_example_says_what_was_drawn_and_shows_no_token() -> None:
    @QUICKLY
    @given(rules(), principals(), hierarchies(), broken_tokens(ISSUER))
    def law(rule: RuleLike, caller: Principal, hierarchy: ScopeHierarchy, token: str) -> None:
        assert isinstance(rule, str)
        assert not caller.roles

    with pytest.raises(AssertionError) as failed:
        law()

    shown = "\n".join(failed.value.__notes__) if sys.version_info >= (3, 11) else ""
    if shown:
        assert "mint_invalid('expired', 'alice', ())" in shown
        assert "eyJ" not in shown


# --- what is drawn


@pytest.mark.parametrize(
    "kind", [str, HasRole, HasPermission, BelongsToTenant, IsClient, RecentAuthentication]
)
def test_rules_of_every_kind_are_drawn(kind: type) -> None:
    def asks_for(guard: GuardDecorator) -> bool:
        rule = guard.policy.formula
        return rule is not None and isinstance(rule.conditions[0], kind)

    assert asks_for(find(guards(), asks_for, settings=QUICKLY))


def test_rules_of_every_shape_are_drawn() -> None:
    def is_mixed(rule: Scope) -> bool:
        return len(rule.alternatives) > 1 and max(map(len, rule.alternatives)) > 1

    assert is_mixed(find(scope_rules(), is_mixed, settings=QUICKLY))


@given(guards(), principals())
def test_a_guard_can_be_put_on_a_function(guard: GuardDecorator, caller: Principal) -> None:
    @guard
    async def tool() -> str:
        return "done"

    with suppress(ToolGuardError):
        assert Caller(caller, Desk(clock=lambda: NOW)).calls(tool) == "done"


@given(principals(["notes.read"], roles=(), permissions=("x",), tenants=(), now=5_000.0))
def test_a_caller_holds_only_what_is_named(caller: Principal) -> None:
    assert {*caller.scopes} <= {"notes.read"}
    assert {*caller.permissions} <= {"x"}
    assert (caller.roles, caller.tenant_ids, caller.tenant_id) == ((), (), None)
    assert not caller.is_expired(5_000.0)
    assert (caller.auth_time or 0) <= 5_000.0


def test_every_grant_is_every_grant() -> None:
    assert len({*every_grant()}) == len(every_grant()) == 2 ** len(SCOPES)
    assert find(grants(), lambda grant: len(grant) == len(SCOPES), settings=QUICKLY)


@given(hierarchies())
def test_a_hierarchy_has_only_the_scopes_it_is_made_of(hierarchy: ScopeHierarchy) -> None:
    assert hierarchy.expand(SCOPES) == {*SCOPES}


@given(scope_tokens(), sendable_scopes())
def test_what_is_drawn_as_a_scope_is_one(token: str, sendable: str) -> None:
    assert Scope(token).tokens == (token,)
    assert Challenge(scope=(sendable,)).header == f'Bearer scope="{sendable}"'


@given(challenges())
def test_what_is_drawn_as_a_challenge_can_be_sent(challenge: Challenge) -> None:
    assert challenge.header.startswith("Bearer ")


@pytest.mark.parametrize("strategy", [grants, scope_rules, hierarchies, principals])
def test_names_in_one_string_are_no_list(strategy: Any) -> None:
    with pytest.raises(TypeError, match=r"^write \['read', 'write'\]: a list of names$"):
        strategy("read write")


# --- tokens and headers


@given(tokens(ISSUER, ["read", "write"]))
def test_a_good_token_is_good(token: str) -> None:
    caller = outcome(token)

    assert isinstance(caller, Principal)
    assert {*caller.scopes} <= {"read", "write"}


@given(broken_tokens(ISSUER))
def test_a_broken_token_is_refused_for_one_of_the_named_reasons(token: str) -> None:
    refusal = outcome(token)

    assert isinstance(refusal, InvalidTokenError)
    assert refusal.reason in INVALID_TOKENS.values()


@given(broken_proofs(KEY, URL, TOKEN))
def test_a_broken_proof_is_refused_for_one_of_the_named_reasons(headers: list[str]) -> None:
    with pytest.raises(InvalidProofError) as caught:
        proved(*headers)

    assert caught.value.reason in INVALID_PROOFS.values()


@given(strange_proofs(KEY, URL, TOKEN))
def test_a_strange_proof_is_accepted_or_refused(proof: str) -> None:
    try:
        assert proved(proof).key == KEY.thumbprint
    except InvalidProofError as refusal:
        assert refusal.reason  # noqa: PT017 - either is an outcome


@given(forged_tokens())
def test_a_forged_token_is_refused(token: str) -> None:
    assert isinstance(outcome(token), InvalidTokenError)


@given(strange_tokens(ISSUER))
def test_a_strange_token_is_taken_or_refused(token: str) -> None:
    assert isinstance(outcome(token), (Principal, InvalidTokenError))


def test_some_strange_tokens_are_taken() -> None:
    assert find(strange_tokens(ISSUER), lambda t: isinstance(outcome(t), Principal))


@given(st.data(), st.sampled_from(("abc", "a.b-c_d~e+f/g=", "eyJ.eyJ.sig")))
def test_no_drawn_header_carries_the_token(data: st.DataObject, token: str) -> None:
    value = data.draw(authorization_values(token))

    with suppress(MalformedCredentialsError):
        assert presented_token([value]) != (token, False)


@given(tool_arguments("calendar", "day"))
def test_arguments_can_be_sent_as_json(arguments: dict[str, Any]) -> None:
    sent = json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()

    assert json.loads(sent) == arguments
    assert {*arguments} <= {"calendar", "day"}
