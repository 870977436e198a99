"""Does the id of an event lead only its owner back to it?"""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from support.callers import person
from toolguard.http.event_ids import EventIds, EventOwner
from toolguard.parts.environment import SECRET

IDS = EventIds("a secret that replicas share")
OWNERS = [
    EventOwner.of(principal, session)
    for principal, session in product(
        (
            person("alice"),
            person("bob"),
            person(None),
            person("alice", client_id="phone"),
            person("alice", issuer="https://other.example"),
            None,
        ),
        ("s1", "s2", None),
    )
]
ids = st.binary(max_size=30)
owners = st.sampled_from(OWNERS)


@given(ids, owners)
def test_an_owner_gets_the_id_of_the_store_back(event_id: bytes, owner: EventOwner) -> None:
    assert IDS.unsealed(IDS.sealed(event_id, owner), owner) == event_id


@given(ids, owners, owners)
def test_no_other_caller_or_session_unseals_an_id(
    event_id: bytes, owner: EventOwner, other: EventOwner
) -> None:
    assume(owner != other)

    assert IDS.unsealed(IDS.sealed(event_id, owner), other) is None


@given(ids, owners)
def test_an_id_without_its_seal_is_not_known(event_id: bytes, owner: EventOwner) -> None:
    assert IDS.unsealed(event_id, owner) is None
    sealed = IDS.sealed(event_id, owner)
    for cut in (sealed[:-1], sealed + b"A", sealed.rpartition(b".")[0] + b".", b"x" + sealed):
        assert IDS.unsealed(cut, owner) is None


@given(ids, ids, owners)
def test_a_seal_fits_no_other_id(event_id: bytes, other: bytes, owner: EventOwner) -> None:
    assume(event_id != other)
    seal = IDS.sealed(event_id, owner).rpartition(b".")[2]

    assert IDS.unsealed(other + b"." + seal, owner) is None


@given(st.binary(max_size=80), owners)
def test_whatever_is_sent_is_refused_or_a_sealed_id(sent: bytes, owner: EventOwner) -> None:
    event_id = IDS.unsealed(sent, owner)

    assert event_id is None or IDS.sealed(event_id, owner) == sent


@given(ids, owners)
def test_a_sealed_id_stays_on_its_line(event_id: bytes, owner: EventOwner) -> None:
    seal = IDS.sealed(event_id, owner)[len(event_id) :]

    assert seal.isascii()
    assert not {0, 10, 13, 32} & set(seal)


def test_replicas_that_share_a_secret_know_each_others_ids() -> None:
    sealed = IDS.sealed(b"e1", OWNERS[0])

    assert EventIds(b"a secret that replicas share").unsealed(sealed, OWNERS[0]) == b"e1"
    assert EventIds("another secret of theirs").unsealed(sealed, OWNERS[0]) is None


def test_the_environment_may_name_the_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "a secret that replicas share\n")
    sealed = IDS.sealed(b"e1", OWNERS[0])

    assert EventIds().unsealed(sealed, OWNERS[0]) == b"e1"
    assert EventIds("another secret of theirs").unsealed(sealed, OWNERS[0]) is None


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_secret_each_process_has_its_own(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    if value is not None:
        monkeypatch.setenv(SECRET, value)
    one, other = EventIds(), EventIds()
    sealed = one.sealed(b"e1", OWNERS[0])

    assert one.unsealed(sealed, OWNERS[0]) == b"e1"
    assert other.unsealed(sealed, OWNERS[0]) is None


@pytest.mark.parametrize("secret", ["", "short", b"15 bytes of it.", " " * 40])
def test_a_short_secret_is_refused_and_not_shown(secret: str | bytes) -> None:
    with pytest.raises(ValueError, match="at least 16 bytes") as raised:
        EventIds(secret)

    assert "short" not in str(raised.value)
    assert "15 bytes" not in str(raised.value)


def test_the_secret_is_in_no_representation() -> None:
    ids = EventIds("a secret that replicas share")

    assert "a secret" not in repr(ids) + repr(vars(ids))
