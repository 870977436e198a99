"""Which laws hold for what a verifier remembers of a token?

First of all: nothing is accepted that would be refused without it, at any time, after any change
of keys, for any settings.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.counted_keys import published
from support.trusted import AUDIENCE, ES256, ISSUER, NOW, issuing, mint
from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.principal import Principal
from toolguard.testing import FrozenClock
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.tokens.claims import Times
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import Key, StaticKeys
from toolguard.tokens.memo import Memo, Verified, own_claims

KEY = published(ES256)
OTHER_KEY = published(issuing())
NESTED = mint(tenants={"acme": {"roles": ["clerk"]}}, roles=["reader"])
PLAIN = mint()


class Source:
    """A source of keys that a test changes."""

    def __init__(self) -> None:
        self.keys: tuple[Key, ...] | None = (KEY,)
        self.issuer: str | None = ISSUER
        self.asked = 0

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        self.asked += 1
        return self.keys

    def report_bad_signature(self, kid: str | None) -> bool:
        return False

    async def refresh(self) -> None:
        pass


def verifier(source: Source, **settings: Any) -> JWTVerifier:
    return ES256.verifier(**{"keys": source, **settings})


def accepted(verifying: JWTVerifier, token: str) -> Principal:
    principal = verifying.verify_now(token)
    assert principal is not None
    return principal


def outcome(verifying: JWTVerifier, token: str) -> object:
    """Return all that a caller can see of a verification."""
    try:
        principal = asyncio.run(verifying.verify(token))
    except (InvalidTokenError, KeysUnavailableError) as error:
        return error.reason or "outage", str(error)
    return principal, dict(principal.claims)


def entered(run: Callable[[], object]) -> list[str]:
    """Return the functions of toolguard that ``run`` enters, comprehensions aside."""
    names: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_name
        ours = str(frame.f_globals.get("__name__")).startswith("toolguard.")
        if event == "call" and ours and not name.startswith("<"):
            names.append(name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return names


# --- nothing is accepted that would be refused

TOKENS = (
    PLAIN,
    NESTED,
    mint(sub="bob"),
    mint(exp=NOW + 30),
    mint(nbf=NOW + 30),
    mint(iat=NOW + 30),
    mint(headers={"kid": None}),
    mint(headers={"typ": "at+jwt"}),
    mint(aud=[AUDIENCE, "https://other.example.com"]),
    mint(iss="https://other.example.com"),
    mint(permissions=["delete"]),
    *(ES256.mint_invalid(name, "alice") for name in INVALID_TOKENS),
)
EVENTS = st.one_of(
    st.tuples(st.just("verify"), st.sampled_from(TOKENS)),
    st.tuples(st.just("time"), st.integers(-60, 700) | st.floats(-60, 700)),
    st.tuples(
        st.just("keys"),
        st.sampled_from(
            [
                None,
                (),
                (KEY,),
                (OTHER_KEY, KEY),
                (replace(OTHER_KEY, kid=KEY.kid),),
                (replace(KEY),),
                (replace(KEY, algorithms=frozenset({"RS256"})),),
            ]
        ),
    ),
    st.tuples(st.just("issuer"), st.sampled_from([ISSUER, "https://other.example.com", None])),
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "issuer": st.sampled_from([None, ISSUER, "https://other.example.com"]),
        "audience": st.sampled_from([AUDIENCE, "https://other.example.com"]),
        "algorithms": st.sampled_from([["ES256"], ["RS256"]]),
        "leeway": st.sampled_from([0, 5, 300]),
        "token_types": st.sampled_from([["at+jwt"], ["JWT"], ["at+jwt", "JWT"]]),
        "permissions_are_scopes": st.booleans(),
        "require_single_audience": st.booleans(),
    },
)


@settings(max_examples=3 * settings().max_examples)
@given(st.lists(EVENTS, max_size=30), SETTINGS, st.sampled_from([1, 2, 3, 1024]))
def test_with_the_memo_every_answer_is_that_without_it(
    events: Sequence[tuple[str, Any]], configured: dict[str, Any], remember: int
) -> None:
    source, now = Source(), [float(NOW)]
    usual: dict[str, Any] = {**configured, "clock": lambda: now[0]}
    remembering = verifier(source, **usual, remember=remember)
    forgetful = verifier(source, **usual, remember=0)

    for what, value in [("verify", PLAIN), *events, ("verify", PLAIN)]:
        if what == "time":
            now[0] = NOW + value
        elif what == "keys":
            source.keys = value
        elif what == "issuer":
            source.issuer = value
        else:
            assert outcome(remembering, value) == outcome(forgetful, value)


@given(st.sampled_from(TOKENS), st.integers(0, 2_000), st.integers(0, 127))
def test_one_changed_character_is_another_token(token: str, position: int, code: int) -> None:
    remembering, forgetful = verifier(Source()), verifier(Source(), remember=0)
    position %= len(token)
    changed = token[:position] + chr(code) + token[position + 1 :]
    outcome(remembering, token)

    assert outcome(remembering, changed) == outcome(forgetful, changed)


@pytest.mark.parametrize("after", [(), None, (OTHER_KEY,), (replace(OTHER_KEY, kid=KEY.kid),)])
def test_a_token_is_forgotten_with_its_key(after: tuple[Key, ...] | None) -> None:
    source = Source()
    verifying = verifier(source)
    accepted(verifying, PLAIN)

    source.keys = after

    assert outcome(verifying, PLAIN)[0] in ("key", "signature", "outage")  # type: ignore[index]


def test_the_key_is_asked_for_each_time() -> None:
    source = Source()
    verifying = verifier(source)
    accepted(verifying, PLAIN)
    before = source.asked

    accepted(verifying, PLAIN)

    assert source.asked == before + 1


def test_a_remembered_token_expires() -> None:
    clock = FrozenClock(NOW)
    verifying = verifier(Source(), clock=clock)
    accepted(verifying, PLAIN)

    clock.advance(3_600)

    assert outcome(verifying, PLAIN) == ("expired", "The token has expired")


# --- what is remembered


def test_a_signature_is_verified_once() -> None:
    verifying = verifier(Source())
    first = entered(lambda: verifying.verify_now(PLAIN))
    second = entered(lambda: verifying.verify_now(PLAIN))

    assert first.count("is_signed") == 1
    assert second.count("is_signed") == 0


def test_a_remembered_token_costs_a_handful_of_functions() -> None:
    # A clock that is no function of Python's, as time.time is none.
    clock = itertools.repeat(NOW).__next__
    verifying = verifier(Source(), keys=StaticKeys(ES256.jwks()), clock=clock)
    accepted(verifying, PLAIN)

    def verify() -> None:
        with pytest.raises(StopIteration):
            verifying.verify(PLAIN).send(None)

    names = entered(verify)
    assert len(names) <= 10, " ".join(names)


def test_switched_off_every_signature_is_verified() -> None:
    verifying = verifier(Source(), remember=0)
    accepted(verifying, PLAIN)

    assert "is_signed" in entered(lambda: verifying.verify_now(PLAIN))


@pytest.mark.parametrize("name", INVALID_TOKENS)
def test_only_good_tokens_are_remembered(name: str) -> None:
    verifying = verifier(Source(), keys=StaticKeys(ES256.jwks()))

    outcome(verifying, ES256.mint_invalid(name, "alice"))

    assert len(verifying._memo) == 0


@pytest.mark.parametrize("remember", [-1, 1.5, True, "1024", None])
def test_a_number_to_remember_that_is_none_is_refused(remember: Any) -> None:
    with pytest.raises(ValueError, match="remember is a number of tokens, 0 for none"):
        verifier(Source(), remember=remember)


@given(st.integers(0, 9), st.lists(st.integers(0, 20)))
def test_no_more_is_remembered_than_was_asked_for(size: int, used: list[int]) -> None:
    memo = Memo(size)
    for number in used:
        memo.keep(bytes([number]), remembered(PLAIN))

        assert len(memo) <= size


@given(st.integers(2, 9), st.lists(st.integers(0, 20), min_size=1))
def test_what_was_used_last_is_remembered(size: int, used: list[int]) -> None:
    memo = Memo(size)
    for number in used:
        memo.keep(bytes([number]), remembered(PLAIN))

        assert memo.recall(bytes([number])) is not None


def remembered(token: str) -> Verified:
    principal = accepted(verifier(Source(), remember=0), token)
    return Verified("ES256", KEY.kid, KEY, Times(0, NOW + 60), principal)


def test_no_token_is_kept() -> None:
    verifying = verifier(Source())
    accepted(verifying, PLAIN)
    (digest,) = verifying._memo._young

    assert digest == blake2b(PLAIN.encode(), digest_size=32).digest()
    kept = verifying._memo._young[digest]
    shown = repr([getattr(kept, name) for name in Verified.__slots__])
    assert not any(part in shown for part in PLAIN.split("."))


@pytest.mark.parametrize("text", ["\ud800", "\ud800.\udfff.x", "?.?.?"])
def test_a_text_that_is_no_unicode_is_refused_as_ever(text: str) -> None:
    assert outcome(verifier(Source()), text)[0] == "malformed"  # type: ignore[index]


# --- what a message does to it


def test_no_message_changes_the_claims_of_another() -> None:
    verifying = verifier(Source())
    for _ in range(3):
        claims: Any = accepted(verifying, NESTED).claims
        assert claims["roles"] == ["reader"]
        assert claims["tenants"] == {"acme": {"roles": ["clerk"]}}
        claims["roles"].append("admin")
        claims["tenants"]["acme"]["roles"].append("admin")
        claims["tenants"]["evil"] = {}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=10,
)


def containers(value: object) -> list[int]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = [id(value)] if isinstance(value, (dict, list)) else []
    return here + [each for item in inner for each in containers(item)]


@given(st.dictionaries(st.text(max_size=4), _json, max_size=4))
def test_a_copy_of_claims_is_equal_and_shares_nothing_that_changes(claims: dict[str, Any]) -> None:
    copied = own_claims(claims)

    assert json.dumps(copied) == json.dumps(claims)
    assert not {*containers(copied)} & {*containers(claims)}
