"""Can a caller ever be served what was fetched for another caller, or for another grant?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.cache import CachedConnections, MemoryTokenCache
from toolguard.errors import ConnectionRequiredError
from toolguard.principal import Principal
from toolguard.testing import FrozenClock

Facts = Mapping[str, Any]

#: All that an answer can depend on, and another value of each.
ALICE: Facts = {
    "issuer": "https://issuer.example",
    "user": "alice",
    "client": "desktop",
    "tenant": "T1",
    "tenants": ("T1", "T2"),
    "granted": ("calendar.read", "calendar.write"),
    "permissions": ("schedule",),
    "roles": ("member",),
    "access_token": "token-1",
    "connection": "google-calendar",
    "scopes": ("read", "write"),
    "tenant_asked": None,
    "namespace": "vault",
}
OTHERWISE: Facts = {
    "issuer": "https://issuer.example/",
    "user": "bob",
    "client": None,
    "tenant": "T2",
    "tenants": ("T1",),
    "granted": ("calendar.read",),
    "permissions": (),
    "roles": ("member", "guest"),
    "access_token": None,
    "connection": "google-calendar-2",
    "scopes": ("read",),
    "tenant_asked": "T1",
    "namespace": "another vault",
}
SETS = ("tenants", "granted", "permissions", "roles", "scopes")
TEXTS = tuple(fact for fact in ALICE if fact not in SETS)
OPTIONAL = ("client", "tenant", "tenant_asked", "access_token")

# What a careless encoding would join by, quote with, or take for "nothing".
BAITS = ("None", "null", "a", "b", "ab", "a,b", '"', '","', "[]", "]", ":", "|", "\\", "\x00")
texts = st.sampled_from(BAITS) | st.text(st.characters(exclude_categories=()), min_size=1)
values = {
    **dict.fromkeys(TEXTS, texts),
    **dict.fromkeys(OPTIONAL, st.none() | st.just("") | texts),
    **dict.fromkeys(SETS, st.lists(st.just("") | texts, max_size=3).map(tuple)),
}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Facts, Facts]:
    """Two calls that differ in some of the facts: often in one, sometimes in none."""
    one = draw(st.fixed_dictionaries(values))
    changed = draw(st.sets(st.sampled_from(list(values)), max_size=2))
    other = draw(st.fixed_dictionaries({fact: values[fact] for fact in sorted(changed)}))
    return one, {**one, **other}


def request_of(facts: Facts) -> ConnectionRequest:
    principal = Principal(
        facts["user"],
        facts["issuer"],
        client_id=facts["client"],
        tenant_id=facts["tenant"],
        tenant_ids=facts["tenants"],
        scopes=facts["granted"],
        permissions=facts["permissions"],
        roles=facts["roles"],
    )
    return ConnectionRequest(
        facts["connection"],
        facts["scopes"],
        principal,
        facts["access_token"],
        tenant_id=facts["tenant_asked"],
    )


def identity(facts: Facts) -> Facts:
    """Return what has to be equal for two calls to share an entry."""
    return {fact: frozenset(value) if fact in SETS else value for fact, value in facts.items()}


def share(*callers: Facts) -> bool:
    """Return whether all are served what was fetched for the first."""
    given = iter("123456789")

    class Numbered:
        async def fetch(self, request: ConnectionRequest) -> Connection:
            return Connection(next(given))

    cache = MemoryTokenCache(10, clock=FrozenClock())

    async def call(facts: Facts) -> str:
        connections = CachedConnections(Numbered(), cache=cache, namespace=facts["namespace"])
        return (await connections.fetch(request_of(facts))).token

    async def calls() -> set[str]:
        return {await call(facts) for facts in callers}

    return asyncio.run(calls()) == {"1"}


@pytest.mark.parametrize("fact", ALICE)
def test_two_calls_that_differ_in_one_fact_share_nothing(fact: str) -> None:
    assert share(ALICE, ALICE)
    assert not share(ALICE, {**ALICE, fact: OTHERWISE[fact]})


@given(pairs())
def test_two_calls_share_an_entry_exactly_if_every_fact_is_equal(pair: tuple[Facts, Facts]) -> None:
    one, other = pair

    assert share(one, other) is (identity(one) == identity(other))


@given(
    st.permutations(TEXTS),
    texts,
    st.lists(st.integers(0, 8), min_size=2, max_size=2, unique=True),
)
def test_no_fact_runs_into_another(neighbours: list[str], text: str, cuts: list[int]) -> None:
    first, second = neighbours[:2]
    one, other = (
        {**ALICE, first: f"a{text[:cut]}", second: f"{text[cut:]}b"} for cut in sorted(cuts)
    )

    assert share(one, other) is (identity(one) == identity(other))


@given(st.sampled_from(SETS), st.sampled_from(SETS), texts, texts)
def test_no_element_runs_into_another_or_into_another_set(
    fact: str, another: str, first: str, second: str
) -> None:
    apart = {**ALICE, **dict.fromkeys(SETS, ()), fact: (first, second)}
    for separator in (" ", ",", '","', "\x00", ""):
        joined = {**apart, fact: (f"{first}{separator}{second}",)}
        assert share(apart, joined) is (identity(apart) == identity(joined))
    elsewhere = {**apart, fact: (), another: (first, second)}
    assert share(apart, elsewhere) is (fact == another)


@example("\U0001f600", "\ud83d\ude00")
@example("é", "e\u0301")
@example("alice", "Alice")
@example("alice", "alice ")
@given(texts, texts)
def test_no_two_users_are_one_however_alike_they_look(one: str, other: str) -> None:
    assert share({**ALICE, "user": one}, {**ALICE, "user": other}) is (one == other)


@given(st.permutations(ALICE["granted"]), st.permutations(ALICE["scopes"]))
def test_the_order_and_the_repetition_of_scopes_make_no_difference(
    granted: list[str], scopes: list[str]
) -> None:
    assert share(ALICE, {**ALICE, "granted": (*granted, *granted), "scopes": (*scopes, scopes[0])})


class Registry:
    """A provider whose tokens say for whom they are, and that takes any number of turns."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.requests = 0

    async def fetch(self, request: ConnectionRequest) -> Connection:
        self.requests += 1
        refuses = self.chance.random() < 0.1
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if refuses:
            raise ConnectionRequiredError(
                "Connect it", connection=request.name, connect_url=owner(request)
            )
        return Connection(owner(request))


def owner(request: ConnectionRequest) -> str:
    return repr((request.principal, request.access_token, request.scopes, request.tenant_id))


CROWD = [
    request_of({**ALICE, **changes})
    for changes in (
        {},
        {"user": "bob", "access_token": "token-2"},
        {"user": "bob"},
        {"issuer": "https://other.example"},
        {"granted": ("calendar.read",), "access_token": "token-3"},
        {"scopes": ("read",)},
        {"client": "web", "access_token": "token-4"},
        {"tenant_asked": "T1"},
        {"access_token": None},
    )
]


INTERLEAVINGS = 30 * settings().max_examples


async def interleaving(chance: Random) -> tuple[int, int]:
    """Let some callers call at random times; return how many calls and requests that made."""
    clock, registry = FrozenClock(), Registry(chance)
    connections = CachedConnections(registry, clock=clock, timer=clock)

    async def caller() -> None:
        request = replace(chance.choice(CROWD), fresh=chance.random() < 0.1)
        for _ in range(chance.randrange(5)):
            await asyncio.sleep(0)
        clock.advance(chance.choice((0, 0, 0, 1, 61)))
        try:
            served = (await connections.fetch(request)).token
        except ConnectionRequiredError as error:
            served = str(error.connect_url)
        assert served == owner(request)

    callers = [asyncio.ensure_future(caller()) for _ in range(4)]
    if chance.random() < 0.3:
        await asyncio.sleep(0)
        callers.pop().cancel()
    await asyncio.gather(*callers)
    return len(callers), registry.requests


def test_no_interleaving_serves_a_caller_what_is_another_callers() -> None:
    chance = Random(4)

    async def all_of_them() -> list[tuple[int, int]]:
        return [await interleaving(chance) for _ in range(INTERLEAVINGS)]

    outcomes = asyncio.run(all_of_them())

    shared = [calls for calls, requests in outcomes if requests < calls]
    assert len(outcomes) == INTERLEAVINGS
    assert len(shared) > 0.3 * INTERLEAVINGS
