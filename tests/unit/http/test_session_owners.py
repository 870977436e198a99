"""Who may use a session, and from when on?"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.http.sessions import SessionOwners
from toolguard.principal import Principal


def principal(
    user: str | None = "alice",
    issuer: str = "https://issuer.example",
    client: str | None = "desktop",
) -> Principal:
    return Principal(user, issuer, client)


ALICE = principal()
BOB = principal("bob")
OTHERS = {
    "another user": BOB,
    "the same user name at another issuer": principal(issuer="https://issuer.example/"),
    "the same user through another client": principal(client="phone"),
    "the same user through no named client": principal(client=None),
    "no user": principal(None),
    "nobody": None,
}


def test_a_session_admits_the_principal_it_was_opened_for_again_and_again() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)

    assert [sessions.admits("s1", ALICE) for _ in range(3)] == [True, True, True]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_a_session_admits_nobody_else(other: Principal | None) -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)

    assert not sessions.admits("s1", other)
    assert sessions.admits("s1", ALICE)


def test_a_refreshed_token_of_the_same_principal_is_admitted() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)
    refreshed = Principal(
        "alice", "https://issuer.example", "desktop", scopes=("more",), expires_at=2e9
    )

    assert sessions.admits("s1", refreshed)


@pytest.mark.parametrize("anyone", [ALICE, None])
def test_an_unknown_session_admits_nobody(anyone: Principal | None) -> None:
    assert not SessionOwners().admits("s1", anyone)
    assert not SessionOwners().opened_anonymously("s1")


def test_a_known_session_keeps_its_owner_when_it_is_opened_again() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)
    sessions.open("s1", BOB)
    sessions.open("s1", None)

    assert sessions.admits("s1", ALICE)
    assert not sessions.admits("s1", BOB)


def test_sessions_do_not_know_each_other() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)
    sessions.open("s2", BOB)

    assert not sessions.admits("s2", ALICE)
    assert not SessionOwners().admits("s1", ALICE)


def test_an_anonymous_session_stays_open_to_anonymous_callers_until_somebody_signs_in() -> None:
    sessions = SessionOwners()
    sessions.open("s1", None)

    assert sessions.admits("s1", None)
    assert sessions.opened_anonymously("s1")
    assert sessions.admits("s1", ALICE)
    assert not sessions.admits("s1", None)
    assert not sessions.admits("s1", BOB)
    assert sessions.admits("s1", ALICE)
    assert sessions.opened_anonymously("s1")


def test_a_caller_who_is_no_user_cannot_sign_in_to_an_anonymous_session() -> None:
    sessions = SessionOwners()
    sessions.open("s1", None)

    assert not sessions.admits("s1", principal(None))
    assert sessions.admits("s1", None)
    assert sessions.admits("s1", ALICE)


def test_a_session_that_was_opened_by_somebody_was_not_opened_anonymously() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)

    assert not sessions.opened_anonymously("s1")


def test_a_closed_session_admits_nobody() -> None:
    sessions = SessionOwners()
    sessions.open("s1", ALICE)
    sessions.close("s1")
    sessions.close("never opened")

    assert not sessions.admits("s1", ALICE)


def test_the_least_recently_used_session_is_the_first_to_be_forgotten() -> None:
    sessions = SessionOwners(max_sessions=2)
    sessions.open("s1", ALICE)
    sessions.open("s2", ALICE)
    sessions.admits("s1", ALICE)
    sessions.open("s3", ALICE)

    assert [sessions.admits(name, ALICE) for name in ("s1", "s2", "s3")] == [True, False, True]


def test_any_number_of_sessions_stays_within_the_bound() -> None:
    sessions = SessionOwners(max_sessions=10)
    for number in range(1_000):
        sessions.open(f"s{number}", ALICE)

    assert sum(sessions.admits(f"s{number}", ALICE) for number in range(1_000)) == 10


def test_one_principal_ends_only_sessions_of_their_own() -> None:
    sessions = SessionOwners(max_sessions=100, max_of_one=5)
    sessions.open("bobs", BOB)
    for number in range(1_000):
        sessions.open(f"s{number}", ALICE)

    assert sessions.admits("bobs", BOB)
    assert [n for n in range(1_000) if sessions.admits(f"s{n}", ALICE)] == [*range(995, 1_000)]


def test_callers_without_a_token_end_no_session_of_a_principal() -> None:
    sessions = SessionOwners(max_sessions=100, max_anonymous=5)
    sessions.open("alices", ALICE)
    for number in range(1_000):
        sessions.open(f"s{number}", None)

    assert sessions.admits("alices", ALICE)
    assert sum(sessions.admits(f"s{number}", None) for number in range(1_000)) == 5


def test_a_session_that_is_signed_in_to_counts_as_its_new_owners() -> None:
    sessions = SessionOwners(max_of_one=2)
    for name in ("s1", "s2", "s3"):
        sessions.open(name, None)
        assert sessions.admits(name, ALICE)

    assert [sessions.admits(name, ALICE) for name in ("s1", "s2", "s3")] == [False, True, True]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from((ALICE, BOB)))))
def test_no_bound_is_ever_passed(steps: list[tuple[bool, int, Principal]]) -> None:
    sessions = SessionOwners(max_sessions=3, max_of_one=2)
    for opens, number, caller in steps:
        if opens:
            sessions.open(str(number), caller)
        else:
            sessions.close(str(number))
        owned = [sum(sessions.admits(str(n), c) for n in range(10)) for c in (ALICE, BOB)]
        assert max(owned) <= 2
        assert sum(owned) <= 3


_CALLERS = (ALICE, BOB, principal(client="phone"), None)
_STEPS = st.tuples(st.sampled_from(("open", "admits")), st.sampled_from(_CALLERS))


@given(st.lists(_STEPS))
def test_no_session_ever_serves_two_principals(steps: list[tuple[str, Any]]) -> None:
    sessions = SessionOwners()
    served = set()
    for verb, caller in steps:
        if verb == "open":
            sessions.open("s1", caller)
        elif sessions.admits("s1", caller):
            served.add(caller)

    assert len(served - {None}) <= 1
