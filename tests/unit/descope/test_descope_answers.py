"""Descope: what the answers of its vault mean, and where a user is sent to connect."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.vaults import (
    CONNECT,
    LATEST,
    NOT_CONNECTED,
    NOW,
    READ,
    TOKEN,
    USER_TOKEN,
    WRITE,
    Vault,
    answering,
    asked,
    fetch,
)
from toolguard.connections import Connection, ConnectionRequest
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
)

# What an answer means --------------------------------------------------------------------------


def test_a_token_becomes_a_connection() -> None:
    assert fetch(answering(token=TOKEN), asked(READ)) == Connection(
        token="ya29.third-party",
        token_type="Bearer",
        scopes=(READ, WRITE),
        expires_at=1_800_003_600.0,
    )


@pytest.mark.parametrize(
    ("expiry", "expires_at"),
    [
        ("1800003600", 1_800_003_600.0),
        (1_800_003_600, 1_800_003_600.0),
        (None, None),
        ("", None),
        # What an API key has: proto3 writes an expiry that was never set as 0.
        ("0", None),
        (0, None),
    ],
)
def test_the_expiry_is_in_seconds_as_number_or_text(
    expiry: object, expires_at: float | None
) -> None:
    vault = answering(token={**TOKEN, "accessTokenExpiry": expiry})

    assert fetch(vault, asked(READ)).expires_at == expires_at


@pytest.mark.parametrize(
    "expiry",
    [
        *(-1, "-1", "soon", True, False, 1.5, [], {}, "1e9", " 1"),
        *("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}"),
        *(1_800_003_600_000, "1800003600000", "2027-01-15T08:00:00Z"),
    ],
)
def test_an_expiry_of_another_shape_is_no_expiry_to_guess_at(expiry: object) -> None:
    vault = answering(token={**TOKEN, "accessTokenExpiry": expiry})

    with pytest.raises(ConnectionResponseError):
        fetch(vault, asked(READ))


@pytest.mark.parametrize(
    ("given_type", "token_type"),
    [
        ("Bearer", "Bearer"),
        ("bearer", "Bearer"),
        ("", "Bearer"),
        (None, "Bearer"),
        ("DPoP", "DPoP"),
    ],
)
def test_the_token_type_is_the_vaults_and_bearer_is_written_in_one_way(
    given_type: object, token_type: str
) -> None:
    vault = answering(token={**TOKEN, "accessTokenType": given_type})

    assert fetch(vault, asked(READ)).token_type == token_type


@pytest.mark.parametrize("expiry", ["1799999999", "1800000000"])
def test_an_expired_token_is_not_handed_out(expiry: str) -> None:
    vault = answering(token={**TOKEN, "accessTokenExpiry": expiry})

    with pytest.raises(ConnectionRequiredError, match="has expired"):
        fetch(vault, asked(READ))


@pytest.mark.parametrize(
    ("granted", "missing"),
    [([READ], (WRITE,)), ([], (READ, WRITE)), (None, (READ, WRITE)), ([READ + "x"], (READ, WRITE))],
)
def test_fewer_scopes_than_asked_are_not_enough(granted: object, missing: tuple[str, ...]) -> None:
    vault = answering(token={**TOKEN, "scopes": granted})

    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(vault, asked(READ, WRITE))

    assert caught.value.missing_scopes == missing


@pytest.mark.parametrize(
    "token",
    [
        None,
        [],
        "ya29.third-party",
        {},
        {**TOKEN, "accessToken": None},
        {**TOKEN, "accessToken": ""},
        {**TOKEN, "accessToken": " "},
        {**TOKEN, "accessToken": 5},
        {**TOKEN, "accessToken": "ya29\r\nX-Injected: yes"},
        {**TOKEN, "accessTokenType": "Bearer\r\nX-Injected: yes"},
        {**TOKEN, "accessTokenType": ["Bearer"]},
        {**TOKEN, "scopes": READ},
        {**TOKEN, "scopes": [READ, 5]},
        {**TOKEN, "scopes": {READ: True}},
    ],
)
def test_an_answer_without_a_readable_token_makes_no_sense(token: object) -> None:
    response = httpx.Response(200, json={"token": token})

    with pytest.raises(ConnectionResponseError, match="no token that can be read"):
        fetch(Vault({USER_TOKEN: response}), asked(READ))


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={name: JSON | st.just(value) for name, value in TOKEN.items()},
    )
)
def test_any_token_object_is_a_good_connection_or_an_error_of_ours(token: dict[str, Any]) -> None:
    try:
        connection = fetch(answering(token=token), asked(READ))
    except ConnectionTokenError:
        return
    assert connection.token == token["accessToken"]
    assert READ in connection.scopes
    assert connection.expires_at is None or connection.expires_at > NOW


@pytest.mark.parametrize("member", ["appId", "userId"])
def test_an_answer_about_another_user_or_app_is_refused(member: str) -> None:
    with pytest.raises(ConnectionResponseError, match=member) as caught:
        fetch(answering(token={**TOKEN, member: "another"}), asked(READ))

    assert TOKEN["accessToken"] not in str(caught.value)


@pytest.mark.parametrize("value", ["", None])
def test_an_answer_that_names_no_user_is_accepted(value: object) -> None:
    token = {**TOKEN, "userId": value, "appId": value, "tenantId": value}

    assert fetch(answering(token=token), asked(READ)).token == TOKEN["accessToken"]


@pytest.mark.parametrize(("status", "code"), [(401, "E061103"), (403, None), (403, "E111504")])
def test_a_policy_that_says_no_is_a_denial(status: int, code: str | None) -> None:
    vault = answering(status=status, errorCode=code)

    with pytest.raises(ConnectionDeniedError, match=r"outbound\.token\.fetch"):
        fetch(vault, asked(READ))

    assert len(vault.requests) == 1


@pytest.mark.parametrize(("status", "code"), [(404, "E111504"), (400, "E111504")])
def test_a_connection_that_is_not_there_has_to_be_made(status: int, code: str) -> None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(answering(status=status, errorCode=code), asked(READ))

    assert str(caught.value) == "Connect google-calendar first, then try again"
    assert caught.value.connection == "google-calendar"
    assert caught.value.missing_scopes == ()


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "E011003", "(400, E011003)"),
        (422, None, "(422)"),
        (400, {"a": 1}, "(400)"),
        (400, "Bearer P2abc:ey.caller", "(400)"),
        (413, "E1\n2", "(413)"),
        (422, "E111504", "(422, E111504)"),
        (404, None, "(404)"),
        (404, "E011004", "(404, E011004)"),
    ],
)
def test_any_other_refusal_shows_its_code_and_nothing_else_the_vault_wrote(
    status: int, code: object, shown: str
) -> None:
    vault = answering(
        status=status, errorCode=code, errorDescription="d", errorMessage="token ey.caller is bad"
    )

    with pytest.raises(ConnectionResponseError) as caught:
        fetch(vault, asked(READ))

    assert str(caught.value) == (
        f"The vault did not understand the request for google-calendar {shown}"
    )


# The connect URL -------------------------------------------------------------------------------


def connect_url(vault: Vault, request: ConnectionRequest, **settings: str) -> str | None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(vault, request, **settings)
    return caught.value.connect_url


def test_who_is_not_connected_is_told_where_to_connect_what_the_tool_needs() -> None:
    url = "https://accounts.example.com/authorize?client_id=1&scope=a%20b"
    vault = Vault({USER_TOKEN: NOT_CONNECTED, CONNECT: httpx.Response(200, json={"url": url})})

    assert connect_url(vault, asked(READ, WRITE)) == url
    assert vault.sent[1] == (
        "/v1/mgmt/outbound/app/connect",
        {"appId": "google-calendar", "options": {"scopes": [READ, WRITE]}},
    )
    assert vault.requests[1].headers["Authorization"] == "Bearer P2abc:ey.caller"


def test_without_scopes_the_connection_is_made_with_the_vaults_own() -> None:
    answer = httpx.Response(200, json={"url": "https://accounts.example.com/"})
    vault = Vault({LATEST: NOT_CONNECTED, CONNECT: answer})

    assert connect_url(vault, asked()) == "https://accounts.example.com/"
    assert vault.sent[1][1] == {"appId": "google-calendar", "options": {}}


@pytest.mark.parametrize(
    "token", [{**TOKEN, "scopes": []}, {**TOKEN, "accessTokenExpiry": 1}], ids=["scopes", "expired"]
)
def test_a_small_or_expired_grant_names_the_connect_url(
    token: dict[str, Any],
) -> None:
    vault = answering(token=token)
    vault.answers[CONNECT] = httpx.Response(200, json={"url": "https://accounts.example.com/"})

    assert connect_url(vault, asked(READ)) == "https://accounts.example.com/"


def test_no_connect_url_is_asked_with_the_management_key_which_is_nobody() -> None:
    answer = httpx.Response(200, json={"url": "https://accounts.example.com/"})
    vault = Vault({USER_TOKEN: NOT_CONNECTED, CONNECT: answer})

    request = asked(READ, access_token=None)
    assert connect_url(vault, request, management_key="K2key") is None
    assert len(vault.requests) == 1


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://accounts.example.com/a?b=c#d", True),
        ("http://localhost:8000/connect", True),
        ("http://127.0.0.1/connect", True),
        ("http://accounts.example.com/", False),
        ("http://localhost@evil.example/", False),
        ("http://evil.example\\@localhost/", False),
        ("http://localhost.evil.example/", False),
        ("https://user:password@accounts.example.com/", False),
        ("javascript:alert(1)", False),
        ("https://", False),
        ("https:///path", False),
        ("//accounts.example.com/", False),
        ("https://accounts.example.com/\r\nX: y", False),
        ("https://accounts.example.com/ & calc", False),
        ('https://accounts.example.com/"><script>', False),
        ("", False),
        (None, False),
        (["https://accounts.example.com/"], False),
    ],
)
def test_a_connect_url_is_https_or_on_this_machine_or_dropped(url: object, kept: bool) -> None:
    answer = httpx.Response(200, json={"url": url})
    vault = Vault({USER_TOKEN: NOT_CONNECTED, CONNECT: answer})

    assert connect_url(vault, asked(READ)) == (url if kept else None)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(401, json={"url": "https://accounts.example.com/"}),
        httpx.Response(404),
        httpx.Response(429),
        httpx.Response(500),
        httpx.Response(302, headers={"Location": "https://accounts.example.com/"}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, json={}),
    ],
    ids=lambda answer: str(answer.status_code),
)
def test_a_vault_that_gives_no_connect_url_changes_nothing_else(answer: httpx.Response) -> None:
    vault = Vault({USER_TOKEN: NOT_CONNECTED, CONNECT: answer})

    assert connect_url(vault, asked(READ)) is None
