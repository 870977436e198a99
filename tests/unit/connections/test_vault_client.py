"""The client that every provider posts through: what it makes of answers, and shows of secrets."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import re
import time
import traceback
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.vaults import GOOD, LATEST, NOW, Vault, asked, fetch, provider
from toolguard.connections import Connection
from toolguard.connections.http import (
    MAX_ANSWER_BYTES,
    VaultAnswer,
    VaultClient,
    VaultRequest,
    retry_after_seconds,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parsing.secure_urls import secure_origin


def fetch_answer(answer: httpx.Response) -> Connection:
    return fetch(Vault({LATEST: answer}), asked())


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 408])
def test_a_server_error_may_pass(status: int) -> None:
    with pytest.raises(ConnectionUnavailableError, match=str(status)):
        fetch_answer(httpx.Response(status, json=GOOD))


@pytest.mark.parametrize("status", [100, 204, 300, 301, 302, 303, 304, 307, 308, 600, 999])
def test_neither_a_redirect_nor_an_unknown_status_is_an_answer(status: int) -> None:
    location = {"Location": "https://elsewhere.example/"}
    with pytest.raises(ConnectionResponseError):
        fetch_answer(httpx.Response(status, headers=location))


@pytest.mark.parametrize("location", ["mailto:http://", "https://[", "//", "http://\xff:99999"])
def test_where_a_redirect_leads_is_not_even_read(location: str) -> None:
    headers = [(b"Location", location.encode("latin-1"))]
    with pytest.raises(ConnectionResponseError, match="elsewhere"):
        fetch_answer(httpx.Response(302, headers=headers))


@pytest.mark.parametrize(
    ("header", "retry_after"),
    [("7", 7), (None, None), ("Fri, 15 Jan 2027 08:00:30 GMT", 30), ("86400", 3_600)],
)
def test_a_rate_limit_says_when_to_come_back(header: str | None, retry_after: int | None) -> None:
    headers = {} if header is None else {"Retry-After": header}

    with pytest.raises(ConnectionRateLimitedError) as caught:
        fetch_answer(httpx.Response(429, headers=headers, content=b"<html>"))

    assert caught.value.retry_after == retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 1),
        ("1", 1),
        ("3600", 3_600),
        ("3601", 3_600),
        ("9999999999", 3_600),
        ("9" * 5_000, None),
        ("-5", None),
        ("1.5", None),
        ("+5", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("Fri, 15 Jan 2027 08:02:00 GMT", 120),
        ("Fri, 15 Jan 2027 08:02:00 -0000", 120),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120),
        ("Fri Jan 15 08:02:00 2027", 120),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 1),
        ("Fri, 15 Jan 2100 08:00:00 GMT", 3_600),
        ("Fri, 15 Jan 20270 08:00:00 GMT", None),
        ("soon", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(
    value: str | None, seconds: int | None
) -> None:
    assert retry_after_seconds(value, now=NOW) == seconds


def test_a_wait_is_rounded_up_so_that_nobody_comes_too_early() -> None:
    assert retry_after_seconds("Fri, 15 Jan 2027 08:00:30 GMT", now=NOW + 0.75) == 30


def test_a_date_without_a_zone_is_not_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Etc/GMT+5")
        time.tzset()
        seconds = retry_after_seconds("Fri, 15 Jan 2027 08:02:00 -0000", now=NOW)
    time.tzset()

    assert seconds == 120


@given(st.text() | st.text("0123456789 :,+-JanFriGMT"), st.floats(0, 1e11))
def test_any_retry_after_is_between_a_second_and_an_hour_or_nothing(value: str, now: float) -> None:
    assert retry_after_seconds(value, now) in {None, *range(1, 3_601)}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"null",
        b"[]",
        b'"text"',
        b'{"token": ',
        b"\xff\xfe{}",
        json.dumps(GOOD).encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a": ' * 20_000,
        b'{"a": ' + b"9" * 5_000 + b"}",
    ],
)
def test_what_is_not_a_json_object_is_no_answer(body: bytes) -> None:
    with pytest.raises(ConnectionResponseError, match="not JSON"):
        fetch_answer(httpx.Response(200, content=body))


def test_an_answer_one_byte_too_long_is_not_read() -> None:
    body = json.dumps(GOOD).encode().ljust(MAX_ANSWER_BYTES)

    assert fetch_answer(httpx.Response(200, content=body)).token == "ya29.third-party"
    with pytest.raises(ConnectionResponseError, match="too long"):
        fetch_answer(httpx.Response(200, content=body + b" "))


@pytest.mark.parametrize("status", [200, 404])
def test_a_compressed_answer_is_refused_before_it_can_grow(status: int) -> None:
    body = gzip.compress(json.dumps(GOOD).encode())
    answer = httpx.Response(status, headers={"Content-Encoding": "gzip"}, content=body)

    with pytest.raises(ConnectionResponseError, match="compressed"):
        fetch_answer(answer)


def test_a_refusal_without_json_is_still_a_refusal() -> None:
    with pytest.raises(ConnectionDeniedError):
        fetch_answer(httpx.Response(403, content=b"<html>"))


@given(
    st.integers(200, 599),
    st.binary() | st.sampled_from([json.dumps(GOOD).encode(), b'{"token": {"accessToken": NaN}}']),
)
def test_any_answer_is_a_connection_or_an_error_of_ours(status: int, body: bytes) -> None:
    try:
        connection = fetch_answer(httpx.Response(status, content=body))
    except ConnectionTokenError:
        return
    assert connection.token == "ya29.third-party"
    assert status < 300


FAULTS = [
    httpx.ConnectTimeout("x"),
    httpx.ReadTimeout("x"),
    httpx.PoolTimeout("x"),
    httpx.ConnectError("x"),
    httpx.ReadError("x"),
    httpx.RemoteProtocolError("x"),
    httpx.LocalProtocolError("x"),
    httpx.ProxyError("x"),
    httpx.DecodingError("x"),
]


def failing(fault: httpx.RequestError) -> Callable[[httpx.Request], httpx.Response]:
    def handler(request: httpx.Request) -> httpx.Response:
        # As httpx does: the exception holds the request, and the request the credential.
        fault.request = request
        raise fault

    return handler


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_fault_of_the_client_is_named_and_not_kept(fault: httpx.RequestError) -> None:
    transport = httpx.MockTransport(failing(fault))
    connections = provider(transport=transport)

    with pytest.raises(ConnectionUnavailableError, match=type(fault).__name__) as caught:
        asyncio.run(connections.fetch(asked()))

    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


# Secrets ---------------------------------------------------------------------------------------

CALLER, KEY, THIRD_PARTY = "ey.canary-caller", "K2canary-key", "ya29.canary-third-party"
CANARIES = re.compile("canary")
ECHO = {
    "errorCode": CALLER,
    "errorDescription": f"Bearer P2abc:{CALLER}",
    "errorMessage": THIRD_PARTY,
    "token": {"accessToken": THIRD_PARTY, "scopes": ["other"], "accessTokenExpiry": "1800003600"},
}


def shown_by(error: BaseException) -> str:
    """Return all that an error shows: itself, its chain, and the locals of our own frames."""
    assert error.__cause__ is None
    assert error.__context__ is None
    story = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in story.stack if "/tests/" not in frame.filename]
    assert ours, "the error was raised in toolguard"
    return repr((error, str(error), error.args, vars(error), [frame.locals for frame in ours]))


def leaking(status: int, **members: object) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, json={**ECHO, **members})


@pytest.mark.parametrize(
    "handler",
    [
        *(leaking(status) for status in (200, 302, 400, 401, 403, 404, 422, 429, 500)),
        leaking(200, token={**ECHO["token"], "accessTokenExpiry": "1"}),  # type: ignore[dict-item]
        leaking(200, token={**ECHO["token"], "accessTokenExpiry": "x"}),  # type: ignore[dict-item]
        leaking(200, token=THIRD_PARTY),
        lambda _: httpx.Response(200, content=f"{THIRD_PARTY} {CALLER}".encode()),
        lambda _: httpx.Response(200, content=THIRD_PARTY.encode() * MAX_ANSWER_BYTES),
        *(failing(fault) for fault in FAULTS),
    ],
)
@pytest.mark.parametrize("access_token", [CALLER, None], ids=["caller", "key"])
def test_no_error_and_no_log_line_shows_a_credential(
    handler: Callable[[httpx.Request], httpx.Response],
    access_token: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    transport = httpx.MockTransport(handler)
    connections = provider(transport=transport, management_key=KEY)
    request = asked("read", access_token=access_token)

    with pytest.raises(ConnectionTokenError) as caught:
        asyncio.run(connections.fetch(request))

    assert CANARIES.search(shown_by(caught.value)) is None
    assert CANARIES.search(caplog.text) is None


def test_no_error_shows_a_credential_that_could_not_be_sent() -> None:
    connections = provider()

    with pytest.raises(ConnectionTokenError) as caught:
        asyncio.run(connections.fetch(asked(access_token=f"{CALLER}\n")))

    assert CANARIES.search(shown_by(caught.value)) is None


def test_requests_and_answers_show_no_secret() -> None:
    request = VaultRequest("g", "https://vault.example/t", {"subject_token": KEY}, f"Bearer {KEY}")

    assert repr(request) == "VaultRequest(connection='g', url='https://vault.example/t')"
    assert repr(VaultAnswer(200, ECHO)) == "VaultAnswer(status=200)"


@pytest.mark.parametrize(
    ("url", "authorization"),
    [
        ("http://vault.example/t", "Bearer t"),
        ("ftp://localhost/t", "Bearer t"),
        ("https://vault.example/t", "Bearer t\r\nX-Injected: yes"),
        ("https://vault.example/t", "Bearer caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("https://vault.example/t", ""),
    ],
)
def test_a_request_that_must_not_be_sent_cannot_be_made(url: str, authorization: str) -> None:
    with pytest.raises(ValueError, match=r"a vault is at|one line of printable ASCII"):
        VaultRequest("g", url, {}, authorization)


def test_a_client_of_a_closed_loop_is_forgotten() -> None:
    client = VaultClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, json={})))
    request = VaultRequest("g", "https://vault.example/", {}, "Bearer P:t")
    for _ in range(3):
        asyncio.run(client.post(request))

    assert len(client._clients) == 1


@pytest.mark.parametrize("timeout", [0, -1.0, float("inf"), float("nan")])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"timeout=10\.0"):
        VaultClient(timeout=timeout)


@given(st.text() | st.text("htps:/.[]@1270localhost:%\\"))
def test_the_http_client_reads_secure_origins_alike(url: str) -> None:
    origin = secure_origin(url)
    if origin is None:
        return

    read = httpx.URL(url)

    assert read.userinfo == b""
    assert httpx.URL(origin).netloc == read.netloc
    assert read.scheme == "https" or read.host in ("localhost", "::1") or read.host[:4] == "127."
