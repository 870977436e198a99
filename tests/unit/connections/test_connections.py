"""Connections, the requests for them, and the table that stands in for a vault."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.connections import Connection, ConnectionRequest, StaticConnections
from toolguard.errors import ConnectionRequiredError
from toolguard.principal import Principal

ALICE = Principal(user_id="alice", issuer="https://issuer.example")
BOB = Principal(user_id="bob", issuer="https://issuer.example")
NOBODY = Principal(user_id=None, issuer="https://issuer.example")


def request(
    *scopes: str, name: str = "google-calendar", principal: Principal = ALICE
) -> ConnectionRequest:
    return ConnectionRequest(name, scopes, principal, "caller-token")


def fetch(connections: StaticConnections, asked: ConnectionRequest) -> Connection:
    return asyncio.run(connections.fetch(asked))


def test_a_connection_shows_everything_but_its_token() -> None:
    connection = Connection("ya29.secret", scopes=("calendar",), expires_at=1_000.0)

    assert repr(connection) == (
        "Connection(token_type='Bearer', scopes=('calendar',), expires_at=1000.0)"
    )


def test_a_request_does_not_show_the_callers_token() -> None:
    assert repr(request("calendar")) == (
        "ConnectionRequest(name='google-calendar', scopes=('calendar',), "
        "principal=<Principal: alice of https://issuer.example []>, tenant_id=None, fresh=False)"
    )


@pytest.mark.parametrize("token", ["", " ", "\t\n"])
def test_a_connection_without_a_token_cannot_be_made(token: str) -> None:
    with pytest.raises(ValueError, match="a connection needs a token"):
        Connection(token)


def test_a_token_that_is_not_text_is_named_by_its_type_only() -> None:
    with pytest.raises(TypeError, match=r"^the token of a connection is text, not bytes$"):
        Connection(b"ya29.secret")  # type: ignore[arg-type]


def test_scopes_in_one_string_are_refused_because_they_would_match_by_substring() -> None:
    with pytest.raises(TypeError, match=r"write \['calendar', 'mail'\]"):
        Connection("t", scopes="calendar mail")
    with pytest.raises(TypeError, match=r"write \['calendar'\]"):
        ConnectionRequest("g", "calendar", ALICE, None)  # type: ignore[arg-type]


def test_a_list_of_scopes_becomes_a_tuple_so_that_the_value_cannot_change() -> None:
    scopes = ["calendar"]
    connection = Connection("t", scopes=scopes)
    scopes.append("mail")

    assert connection.scopes == ("calendar",)
    assert hash(connection) == hash(Connection("t", scopes=("calendar",)))


def test_a_request_without_a_name_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="a connection has a name"):
        ConnectionRequest("", (), ALICE, None)


@pytest.mark.parametrize(
    ("expires_at", "expired"), [(999.0, True), (1_000.0, True), (1_000.5, False), (None, False)]
)
def test_a_connection_has_expired_from_the_second_it_names(
    expires_at: float | None, expired: bool
) -> None:
    assert Connection("t", expires_at=expires_at).is_expired(1_000.0) is expired


def test_a_token_for_everybody_is_given_to_everybody() -> None:
    connections = StaticConnections({"google-calendar": "shared"})

    assert fetch(connections, request()) == Connection("shared")
    assert fetch(connections, request(principal=NOBODY)) == Connection("shared")


def test_each_user_gets_the_token_of_that_user() -> None:
    connections = StaticConnections({"google-calendar": {"alice": "a", "bob": "b"}})

    assert fetch(connections, request()).token == "a"
    assert fetch(connections, request(principal=BOB)).token == "b"


@pytest.mark.parametrize(
    "asked",
    [request(name="slack"), request(principal=BOB), request(principal=NOBODY)],
    ids=["another connection", "another user", "a caller who is no user"],
)
def test_what_the_table_does_not_hold_has_to_be_connected(asked: ConnectionRequest) -> None:
    # The empty name must not become the entry of callers without a user.
    connections = StaticConnections({"google-calendar": {"alice": "a", "": "nobody's"}})

    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(connections, asked)

    assert caught.value.connection == asked.name
    assert caught.value.connect_url is None


def test_a_connection_with_fewer_scopes_names_the_missing_ones() -> None:
    connections = StaticConnections({"google-calendar": Connection("t", scopes=("read",))})

    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(connections, request("read", "write"))

    assert caught.value.missing_scopes == ("write",)


def test_a_plain_token_stands_for_whatever_scopes_are_asked() -> None:
    connections = StaticConnections({"google-calendar": "t"})

    assert fetch(connections, request("read", "write")).token == "t"


def test_a_table_that_changes_later_changes_nothing() -> None:
    users: dict[str, str | Connection] = {"alice": "a"}
    connections = StaticConnections({"google-calendar": users})
    users["alice"] = "b"

    assert fetch(connections, request()).token == "a"


def test_a_table_shows_names_only() -> None:
    connections = StaticConnections({"google-calendar": {"alice": "secret"}, "slack": "secret"})

    assert repr(connections) == "<StaticConnections: google-calendar, slack>"


def test_an_empty_table_or_token_is_refused_when_the_table_is_written() -> None:
    with pytest.raises(ValueError, match="write StaticConnections"):
        StaticConnections({})
    with pytest.raises(ValueError, match="a connection needs a token"):
        StaticConnections({"google-calendar": {"alice": ""}})


@given(
    st.dictionaries(
        st.text(min_size=1), st.from_regex(r"[!-~]([ -~]*[!-~])?", fullmatch=True), min_size=1
    ),
    st.text(),
)
def test_nobody_is_given_the_token_of_somebody_else(users: dict[str, str], user_id: str) -> None:
    connections = StaticConnections({"google-calendar": users})
    asked = request(principal=Principal(user_id=user_id, issuer="https://issuer.example"))

    try:
        token: str | None = fetch(connections, asked).token
    except ConnectionRequiredError:
        token = None

    assert token == users.get(user_id)


def test_the_protocol_and_the_table_need_no_http_client() -> None:
    code = "import sys, toolguard.connections; sys.exit('httpx' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
