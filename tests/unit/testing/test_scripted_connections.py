"""Do the parts that tests are made of do what they are told: the clock, the connections?"""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.callers import TOKEN, person
from toolguard.connections import Connection, ConnectionProvider, ConnectionRequest
from toolguard.errors import ConnectionRequiredError, ConnectionUnavailableError
from toolguard.testing import FrozenClock, ScriptedConnections
from toolguard.testing.connections import ScriptedAnswer

APP = "google-calendar"
SECONDS = st.floats(0, 1e9)
TOKENS = st.lists(st.from_regex(r"[!-~]{1,20}", fullmatch=True), min_size=1, max_size=5)


def request(
    user: str | None = "alice", *scopes: str, tenant: str | None = None, name: str = APP
) -> ConnectionRequest:
    return ConnectionRequest(name, scopes, person(user), TOKEN, tenant_id=tenant)


def fetch(connections: ScriptedConnections, asked: ConnectionRequest) -> Connection:
    return asyncio.run(connections.fetch(asked))


def token(connections: ScriptedConnections, asked: ConnectionRequest) -> str:
    return fetch(connections, asked).token


# --- the clock


@given(now=SECONDS, steps=st.lists(SECONDS))
def test_advances_add_up(now: float, steps: list[float]) -> None:
    clock, expected = FrozenClock(now), now
    for step in steps:
        clock.advance(step)
        expected += step

    assert clock() == clock() == expected


def test_a_clock_starts_at_the_beginning_of_2026() -> None:
    assert FrozenClock()() == 1_767_225_600.0


@pytest.mark.parametrize("seconds", [-1, -math.inf, math.inf, math.nan])
def test_time_neither_goes_back_nor_ends(seconds: float) -> None:
    clock = FrozenClock(1.0)

    with pytest.raises(ValueError, match=r"write clock\.advance"):
        clock.advance(seconds)
    with pytest.raises(ValueError, match=r"write FrozenClock"):
        FrozenClock(seconds)
    assert clock() == 1.0


# --- scripted connections


def test_scripted_connections_are_a_provider() -> None:
    assert isinstance(ScriptedConnections(), ConnectionProvider)


def test_answers_of_a_user_and_of_a_tenant_come_before_those_for_everybody() -> None:
    connections = ScriptedConnections({APP: "everybodys"})
    connections.answer(APP, "bobs", user="bob")
    connections.answer(APP, Connection("acmes", token_type="MAC"), tenant="acme")

    assert token(connections, request("alice")) == "everybodys"
    assert token(connections, request(None)) == "everybodys"
    assert token(connections, request("bob")) == "bobs"
    assert fetch(connections, request("bob", tenant="acme")).token_type == "MAC"
    assert token(connections, request("acme")) == "everybodys"
    assert token(connections, request("alice", tenant="bob")) == "everybodys"


@given(tokens=TOKENS, more=st.integers(0, 3))
def test_several_answers_are_given_in_turn_and_the_last_one_from_then_on(
    tokens: list[str], more: int
) -> None:
    connections = ScriptedConnections()
    connections.answer(APP, *tokens)

    given_out = [token(connections, request()) for _ in range(len(tokens) + more)]

    assert given_out == tokens + [tokens[-1]] * more


def test_the_last_word_on_a_connection_counts() -> None:
    connections = ScriptedConnections({APP: "old"})
    connections.answer(APP, "new")

    assert token(connections, request()) == "new"


def test_an_exception_is_raised_each_time_anew() -> None:
    refusal = ConnectionUnavailableError("Later", connection=APP)
    connections = ScriptedConnections({APP: refusal, "broken": ZeroDivisionError("a bug")})

    for _ in range(2):
        with pytest.raises(ConnectionUnavailableError, match="Later") as caught:
            fetch(connections, request())
        assert caught.value is not refusal
        with pytest.raises(ZeroDivisionError):
            fetch(connections, request(name="broken"))
    assert refusal.__traceback__ is None


def test_who_has_nothing_scripted_has_not_connected() -> None:
    connections = ScriptedConnections()
    connections.answer(APP, "bobs", user="bob")

    with pytest.raises(ConnectionRequiredError, match=r'connections\.answer\("google-calendar"'):
        fetch(connections, request("alice"))


def test_a_connection_that_states_its_scopes_is_given_where_they_suffice() -> None:
    connections = ScriptedConnections({APP: Connection("a-token", scopes=("read",))})

    assert token(connections, request("alice", "read")) == "a-token"
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(connections, request("alice", "read", "write"))
    assert caught.value.missing_scopes == ("write",)


def test_every_request_is_remembered_and_none_shows_the_callers_token() -> None:
    connections = ScriptedConnections({APP: "third-party-token"})
    asked = [request("alice"), request("bob", name="unknown")]
    fetch(connections, asked[0])
    with pytest.raises(ConnectionRequiredError):
        fetch(connections, asked[1])

    assert connections.calls == asked
    shown = f"{connections!r} {connections.calls!r}"
    assert TOKEN not in shown
    assert "third-party-token" not in shown


def test_what_is_no_answer_is_refused_where_it_is_written() -> None:
    connections = ScriptedConnections()
    number: ScriptedAnswer = 7  # type: ignore[assignment]

    with pytest.raises(TypeError, match="a token, a Connection or an exception"):
        connections.answer(APP, number)
    with pytest.raises(ValueError, match="needs a token"):
        connections.answer(APP, "")
    with pytest.raises(ValueError, match=r"write connections\.answer"):
        connections.answer(APP)
    with pytest.raises(ValueError, match=r"write connections\.answer"):
        connections.answer("", "a-token")
    with pytest.raises(ValueError, match="user= or tenant="):
        connections.answer(APP, "a-token", user="alice", tenant="acme")
