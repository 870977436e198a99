"""Token exchange: what the answers of an authorization server mean, and what they show."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import traceback
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.token_endpoint import (
    CALENDAR,
    GOOD,
    NOW,
    TokenEndpoint,
    asked,
    fetch,
    giving,
    provider,
    refusing,
)
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.client_auth import ClientSecretPost
from toolguard.connections.exchange.settings import (
    ACCESS_TOKEN,
    JWT,
    REFRESH_TOKEN,
    ActorToken,
    ExchangeSettings,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)

LENIENT = ExchangeSettings(audience=("calendar-api",), strict=False)


def nonsense(endpoint: TokenEndpoint, *scopes: str, exchange: ExchangeSettings = CALENDAR) -> str:
    """Return what is said of an answer that makes no sense."""
    with pytest.raises(ConnectionResponseError) as caught:
        fetch(endpoint, asked(*scopes), exchange)
    assert len(endpoint.requests) == 1
    return str(caught.value).removeprefix("The authorization server's answer for calendar ")


# Success ---------------------------------------------------------------------------------------


def test_an_answer_becomes_a_connection() -> None:
    assert fetch(giving(scope="read write"), asked("read")) == Connection(
        token="ya29.downstream",
        token_type="Bearer",
        scopes=("read", "write"),
        expires_at=1_800_000_300.0,
    )


@pytest.mark.parametrize(
    "token", [None, "", " ", "a b", "caf\xe9", "x\r\nX-Injected: yes", 5, [], {"a": 1}, True]
)
def test_an_answer_without_a_readable_token_makes_no_sense(token: object) -> None:
    assert nonsense(giving(access_token=token)) == "holds no token that can be read"


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER"])
def test_bearer_is_read_in_any_case_and_written_in_one(token_type: str) -> None:
    assert fetch(giving(token_type=token_type)).token_type == "Bearer"


@pytest.mark.parametrize(
    "token_type", [None, "N_A", "n_a", "DPoP", "mac", "", " Bearer", "Bearer ", 5, ["Bearer"]]
)
def test_a_token_of_another_type_is_no_bearer_token(token_type: object) -> None:
    assert nonsense(giving(token_type=token_type)) == "holds no bearer token"


@pytest.mark.parametrize(
    ("asked_for", "issued", "is_good"),
    [
        (None, ACCESS_TOKEN, True),
        (None, JWT, True),
        (None, REFRESH_TOKEN, False),
        (None, None, False),
        (ACCESS_TOKEN, ACCESS_TOKEN, True),
        (ACCESS_TOKEN, JWT, False),
        (ACCESS_TOKEN, REFRESH_TOKEN, False),
        (ACCESS_TOKEN, None, False),
        (ACCESS_TOKEN, "access_token", False),
        (ACCESS_TOKEN, [ACCESS_TOKEN], False),
        (JWT, JWT, True),
        (JWT, ACCESS_TOKEN, False),
    ],
)
def test_the_kind_of_token_is_what_was_asked_for(
    asked_for: str | None, issued: object, is_good: bool
) -> None:
    exchange = ExchangeSettings(requested_token_type=asked_for)
    endpoint = giving(issued_token_type=issued)

    if is_good:
        assert fetch(endpoint, exchange=exchange).token == "ya29.downstream"
    else:
        assert nonsense(endpoint, exchange=exchange) == (
            "holds another kind of token than was asked for"
        )


@pytest.mark.parametrize(
    ("expires_in", "expires_at"),
    [
        (300, 1_800_000_300.0),
        ("300", 1_800_000_300.0),
        (1, 1_800_000_001.0),
        (None, None),
        (99_999_999_999, 101_799_999_999.0),
    ],
)
def test_a_lifetime_is_seconds_or_digits_or_absent(
    expires_in: object, expires_at: float | None
) -> None:
    assert fetch(giving(expires_in=expires_in)).expires_at == expires_at


@pytest.mark.parametrize(
    "expires_in",
    [
        *(-1, "-1", "", " 300", "300 ", "3e2", "+300", 300.0, 1.5, True, False, [], {}),
        *("\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "soon"),
        *(1_800_003_600_000, "2027-01-15T08:00:00Z"),
    ],
)
def test_a_lifetime_of_another_shape_is_not_guessed_at(expires_in: object) -> None:
    assert nonsense(giving(expires_in=expires_in)) == (
        "says when the token expires in a way that cannot be read"
    )


@pytest.mark.parametrize("expires_in", [0, "0", "000"])
def test_a_token_that_expires_at_once_is_not_handed_out(expires_in: object) -> None:
    with pytest.raises(ConnectionRequiredError, match="has expired: connect it again"):
        fetch(giving(expires_in=expires_in))


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ("read", ("write",)),
        ("", ("read", "write")),
        ("read-only writer", ("read", "write")),
        ("READ write", ("read",)),
        ("read\twrite", ("read", "write")),
        ("read,write", ("read", "write")),
    ],
)
def test_fewer_scopes_than_asked_are_not_enough(granted: str, missing: tuple[str, ...]) -> None:
    with pytest.raises(ConnectionRequiredError) as caught:
        fetch(giving(scope=granted), asked("read", "write"))

    assert str(caught.value) == "Connect calendar again and allow what is missing"
    assert caught.value.missing_scopes == missing


def test_without_a_scope_the_answer_means_what_was_asked_for() -> None:
    assert fetch(giving(), asked("read", "write")).scopes == ("read", "write")


def test_a_server_that_takes_no_scopes_has_to_name_them() -> None:
    exchange = ExchangeSettings(sends_scope=False)
    named, unnamed, unasked = giving(scope="read write"), giving(), giving()

    assert fetch(named, asked("read"), exchange).scopes == ("read", "write")
    assert "scope" not in named.form
    assert nonsense(unnamed, "read", exchange=exchange) == (
        "does not say which scopes the token has: write with_connection() without scopes="
    )
    assert fetch(unasked, asked(), exchange).scopes == ()


@pytest.mark.parametrize("scope", [["read"], {"read": True}, 5, False])
def test_scopes_of_another_shape_are_not_guessed_at(scope: object) -> None:
    assert nonsense(giving(scope=scope), "read") == ("names scopes in a way that cannot be read")


# Lenience --------------------------------------------------------------------------------------


def test_with_lenient_terms_what_is_absent_is_taken_for_the_usual() -> None:
    endpoint = giving(token_type=None, issued_token_type=None, expires_in=0)

    assert fetch(endpoint, exchange=LENIENT) == Connection("ya29.downstream")


@pytest.mark.parametrize(
    "members",
    [
        {"token_type": "N_A"},
        {"token_type": ""},
        {"issued_token_type": REFRESH_TOKEN},
        {"issued_token_type": ""},
        {"expires_in": "soon"},
        {"expires_in": -1},
        {"access_token": None},
        {"scope": []},
    ],
)
def test_lenient_terms_accept_nothing_that_is_wrong(members: dict[str, object]) -> None:
    with pytest.raises(ConnectionResponseError):
        fetch(giving(**members), exchange=LENIENT)


# Refusals --------------------------------------------------------------------------------------


def refused(endpoint: TokenEndpoint, exchange: ExchangeSettings = CALENDAR) -> ConnectionTokenError:
    with pytest.raises(ConnectionTokenError) as caught:
        fetch(endpoint, asked("read"), exchange)
    assert len(endpoint.requests) == 1, "a refusal is never asked for twice"
    return caught.value


@pytest.mark.parametrize(
    "code", ["invalid_grant", "interaction_required", "consent_required", "login_required"]
)
def test_what_the_user_can_put_right_asks_the_user_to_connect(code: str) -> None:
    error = refused(refusing(code, error_description="the token ey.caller is bad"))

    assert isinstance(error, ConnectionRequiredError)
    assert error.to_dict() == {
        "error": "connection_required",
        "error_description": "Connect calendar first, then try again",
        "connection": "calendar",
    }


@pytest.mark.parametrize("code", ["access_denied", "invalid_scope"])
@pytest.mark.parametrize("status", [400, 403])
def test_what_this_caller_may_not_have_is_denied(code: str, status: int) -> None:
    error = refused(refusing(code, status))

    assert isinstance(error, ConnectionDeniedError)
    assert str(error) == (
        f"The authorization server does not give calendar to this caller ({status}, {code})"
    )


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_request", 400),
        ("invalid_client", 401),
        ("unauthorized_client", 400),
        ("unsupported_grant_type", 400),
        ("invalid_target", 400),
    ],
)
def test_what_is_not_set_up_right_is_said_to_be_so(code: str, status: int) -> None:
    error = refused(refusing(code, status))

    assert isinstance(error, ConnectionResponseError)
    assert str(error) == (
        f"The authorization server did not accept the request for calendar ({status}, {code})"
    )


@pytest.mark.parametrize("code", ["temporarily_unavailable", "server_error"])
def test_what_may_pass_is_to_be_tried_again_by_the_caller(code: str) -> None:
    error = refused(refusing(code))

    assert isinstance(error, ConnectionUnavailableError)
    assert str(error) == f"The authorization server has a problem (400, {code}): try again"


@pytest.mark.parametrize("code", ["ey.caller", "INVALID_GRANT", "", None, 5, ["invalid_grant"], {}])
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_an_error_that_is_not_known_is_not_shown(code: object, status: int) -> None:
    error = refused(refusing(code, status))

    assert isinstance(error, ConnectionResponseError)
    assert str(error) == (
        f"The authorization server did not accept the request for calendar ({status})"
    )


def test_a_refusal_without_json_is_still_a_refusal() -> None:
    error = refused(TokenEndpoint(httpx.Response(403, content=b"<html>")))

    assert isinstance(error, ConnectionResponseError)


def test_what_a_vendor_means_by_an_error_comes_before_the_usual() -> None:
    exchange = ExchangeSettings(refusals={"invalid_grant": "denied", "E_NOT_LINKED": "connect"})

    assert isinstance(refused(refusing("invalid_grant"), exchange), ConnectionDeniedError)
    assert isinstance(refused(refusing("E_NOT_LINKED"), exchange), ConnectionRequiredError)
    assert isinstance(refused(refusing("access_denied"), exchange), ConnectionDeniedError)


def test_a_rate_limit_says_when_to_come_back() -> None:
    endpoint = TokenEndpoint(httpx.Response(429, headers={"Retry-After": "60"}))

    error = refused(endpoint)

    assert isinstance(error, ConnectionRateLimitedError)
    assert error.retry_after == 60


# Whatever the answer ---------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def outcome_of(
    endpoint: TokenEndpoint, request: ConnectionRequest, exchange: ExchangeSettings
) -> Connection | ConnectionTokenError:
    try:
        return fetch(endpoint, request, exchange)
    except ConnectionTokenError as error:
        return error


MEMBERS = {**GOOD, "scope": "read", "error": "invalid_grant", "error_description": "ey.canary"}
CANARY = "canary-token"


# Every example makes an event loop and a client: how long that takes is the machine's affair.
@given(
    status=st.sampled_from([200, 201, 400, 401, 403, 404, 422]),
    answer=JSON
    | st.fixed_dictionaries(
        {},
        optional={name: st.just(value) | st.just(CANARY) | JSON for name, value in MEMBERS.items()},
    ),
    strict=st.booleans(),
    sends_scope=st.booleans(),
)
def test_any_answer_is_a_connection_or_a_tokenless_error(
    status: int, answer: Any, strict: bool, sends_scope: bool
) -> None:
    endpoint = TokenEndpoint(httpx.Response(status, content=json.dumps(answer)))
    exchange = ExchangeSettings(strict=strict, sends_scope=sends_scope)

    outcome = outcome_of(endpoint, asked("read", access_token=CANARY), exchange)

    if isinstance(outcome, ConnectionTokenError):
        assert CANARY not in repr((outcome, str(outcome), vars(outcome), outcome.to_dict()))
        return
    assert status in (200, 201)
    assert outcome.token == answer["access_token"]
    assert outcome.token_type == "Bearer"
    assert "read" in outcome.scopes
    assert outcome.expires_at is None or outcome.expires_at > NOW


@given(st.integers(200, 599), st.binary())
def test_any_bytes_are_an_error_of_ours(status: int, content: bytes) -> None:
    with pytest.raises(ConnectionTokenError):
        fetch(TokenEndpoint(httpx.Response(status, content=content)))


# Secrets ---------------------------------------------------------------------------------------

CANARIES = re.compile("canary")
ECHO = {
    "access_token": "ya29.canary",
    "error": "canary",
    "error_description": "the token ey.canary is bad",
    "scope": "canary",
    "token_type": "canary",
}


def shown_by(error: BaseException) -> str:
    """Return all that an error shows: itself, its chain, and the locals of our own frames."""
    assert error.__cause__ is None
    assert error.__context__ is None
    story = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in story.stack if "/tests/" not in frame.filename]
    assert ours, "the error was raised in toolguard"
    return repr((error, str(error), error.args, vars(error), [frame.locals for frame in ours]))


@pytest.mark.parametrize(
    "answer",
    [
        *(httpx.Response(status, json=ECHO) for status in (200, 302, 400, 401, 403, 404, 429, 500)),
        httpx.Response(200, json={**GOOD, **ECHO, "token_type": "Bearer"}),
        httpx.Response(200, json={**GOOD, **ECHO, "token_type": "Bearer", "expires_in": "x"}),
        httpx.Response(200, json={**GOOD, "expires_in": 0, "access_token": "ya29.canary"}),
        httpx.Response(400, json={**ECHO, "error": "invalid_grant"}),
        httpx.Response(400, json={**ECHO, "error": "invalid_target"}),
        httpx.Response(200, content=b"canary"),
        httpx.ConnectError("canary"),
        httpx.ReadTimeout("canary"),
    ],
)
def test_no_error_and_no_log_line_shows_a_token_or_a_secret(
    answer: httpx.Response | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def own(request: ConnectionRequest) -> str:
        return "ey.canary-actor"

    connections = provider(
        TokenEndpoint(answer),
        ExchangeSettings(audience=("calendar-api",), actor=ActorToken(own)),
        client_auth=ClientSecretPost("mcp-server", "canary-secret"),
    )

    with pytest.raises(ConnectionTokenError) as caught:
        asyncio.run(connections.fetch(asked("read", access_token="ey.canary-caller")))

    assert CANARIES.search(shown_by(caught.value)) is None
    assert CANARIES.search(caplog.text) is None
