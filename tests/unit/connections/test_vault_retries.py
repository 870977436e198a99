"""What is asked of a vault again, how often, and after which wait?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.token_endpoint import NOW, TokenEndpoint, Waits
from support.virtual_time import run_in_virtual_time
from toolguard.connections.http import MAX_ANSWER_BYTES, VaultAnswer, VaultClient, VaultRequest
from toolguard.connections.retries import NO_RETRIES, Failure, FaultKind, Retries
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)

GOOD = httpx.Response(200, json={"access_token": "ya29"})
UNSENT = [httpx.ConnectError("x"), httpx.ConnectTimeout("x"), httpx.PoolTimeout("x")]
UNANSWERED: list[httpx.Response | Exception] = [
    httpx.ReadTimeout("x"),
    httpx.WriteTimeout("x"),
    httpx.ReadError("x"),
    httpx.WriteError("x"),
    httpx.RemoteProtocolError("x"),
    httpx.Response(502),
    httpx.Response(503),
    httpx.Response(504),
]
FINAL: list[httpx.Response | Exception] = [
    httpx.LocalProtocolError("x"),
    httpx.ProxyError("x"),
    *(httpx.Response(status) for status in (301, 307, 408, 500, 501, 505, 599)),
    httpx.Response(200, content=b"<html>"),
    httpx.Response(200, content=b" " * (MAX_ANSWER_BYTES + 1)),
]


def named(each: object) -> str:
    return str(each.status_code) if isinstance(each, httpx.Response) else type(each).__name__


def request(*, is_idempotent: bool = False, body: str = "1") -> VaultRequest:
    return VaultRequest(
        "calendar",
        "https://auth.example.com/token",
        {"n": body},
        "Basic x",
        encoding="form",
        is_idempotent=is_idempotent,
    )


def post(
    endpoint: TokenEndpoint,
    waits: Waits,
    *,
    is_idempotent: bool = False,
    timeout: float = 10.0,
    again: Callable[[], VaultRequest] | None = None,
) -> VaultAnswer:
    client = VaultClient(
        timeout=timeout,
        retries=Retries(sleep=waits, jitter=lambda: 0.5),
        transport=httpx.MockTransport(endpoint),
        clock=lambda: NOW,
    )
    return asyncio.run(client.post(request(is_idempotent=is_idempotent), again=again))


def post_in_vain(
    *answers: httpx.Response | Exception, is_idempotent: bool = False, timeout: float = 10.0
) -> tuple[ConnectionTokenError, int, list[float]]:
    """Return the error, how often was asked, and the waits between."""
    endpoint, waits = TokenEndpoint(*answers), Waits()
    with pytest.raises(ConnectionTokenError) as caught:
        post(endpoint, waits, is_idempotent=is_idempotent, timeout=timeout)
    return caught.value, len(endpoint.requests), waits.seconds


# What is sent again ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_idempotent", [False, True])
@pytest.mark.parametrize("fault", UNSENT, ids=named)
def test_what_never_left_is_sent_again_whatever_it_is(
    fault: httpx.HTTPError, is_idempotent: bool
) -> None:
    endpoint, waits = TokenEndpoint(fault, fault, GOOD), Waits()

    assert post(endpoint, waits, is_idempotent=is_idempotent).members == {"access_token": "ya29"}
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("fault", UNANSWERED, ids=named)
def test_only_idempotent_requests_are_repeated_after_an_answer_is_lost(
    fault: httpx.Response | Exception,
) -> None:
    endpoint = TokenEndpoint(fault, GOOD)
    assert post(endpoint, Waits(), is_idempotent=True).status == 200
    assert len(endpoint.requests) == 2

    error, times, waits = post_in_vain(fault)
    assert isinstance(error, ConnectionUnavailableError)
    assert (times, waits) == (1, [])


@pytest.mark.parametrize("fault", FINAL, ids=named)
def test_what_would_end_the_same_way_is_not_sent_again(fault: httpx.Response | Exception) -> None:
    _, times, waits = post_in_vain(fault, GOOD, is_idempotent=True)

    assert (times, waits) == (1, [])


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_request", "temporarily_unavailable"])
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 425])
def test_a_refusal_is_an_answer_and_never_asked_for_twice(status: int, error: str) -> None:
    endpoint, waits = TokenEndpoint(httpx.Response(status, json={"error": error}), GOOD), Waits()

    answer = post(endpoint, waits, is_idempotent=True)

    assert (answer.status, answer.members) == (status, {"error": error})
    assert (len(endpoint.requests), waits.seconds) == (1, [])


# How often, and when ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [httpx.ConnectError("x"), httpx.Response(503)], ids=named)
def test_after_two_more_attempts_it_is_over(fault: httpx.Response | Exception) -> None:
    error, times, waits = post_in_vain(fault, is_idempotent=True)

    assert isinstance(error, ConnectionUnavailableError)
    assert times == 3
    assert waits == pytest.approx([0.15, 0.3])


def test_the_error_is_that_of_the_last_attempt() -> None:
    error, _, _ = post_in_vain(
        httpx.ConnectError("x"), httpx.Response(503), httpx.Response(502), is_idempotent=True
    )

    assert str(error) == "The vault has a problem (502): try again"


def test_all_kinds_of_failure_count_together() -> None:
    faults = (httpx.ConnectError("x"), httpx.Response(429, headers={"Retry-After": "1"}))

    _, times, _ = post_in_vain(*faults, httpx.Response(503), GOOD, is_idempotent=True)

    assert times == 3


@pytest.mark.parametrize(
    ("header", "wait"),
    [("1", 1.15), ("2", 2.15), ("0", 1.15), ("Fri, 15 Jan 2027 08:00:02 GMT", 2.15)],
)
@pytest.mark.parametrize("is_idempotent", [False, True])
def test_a_rate_limit_that_passes_soon_is_waited_for(
    header: str, wait: float, is_idempotent: bool
) -> None:
    limited = httpx.Response(429, headers={"Retry-After": header})
    endpoint, waits = TokenEndpoint(limited, GOOD), Waits()

    assert post(endpoint, waits, is_idempotent=is_idempotent).status == 200
    assert waits.seconds == pytest.approx([wait])


def test_a_rate_limit_is_waited_for_once() -> None:
    error, times, waits = post_in_vain(httpx.Response(429, headers={"Retry-After": "1"}))

    assert isinstance(error, ConnectionRateLimitedError)
    assert error.retry_after == 1
    assert times == 2
    assert waits == pytest.approx([1.15])


@pytest.mark.parametrize(
    ("status", "header"),
    [(429, "3"), (429, "3600"), (429, "soon"), (429, None), (503, "3"), (503, "3600")],
)
def test_who_asks_for_more_patience_than_a_call_has_is_not_asked_again(
    status: int, header: str | None
) -> None:
    headers = {"Retry-After": header} if header else {}

    _, times, waits = post_in_vain(httpx.Response(status, headers=headers), is_idempotent=True)

    assert (times, waits) == (1, [])


def test_a_server_error_that_names_a_short_time_gets_it() -> None:
    endpoint = TokenEndpoint(httpx.Response(503, headers={"Retry-After": "2"}), GOOD)
    waits = Waits()

    assert post(endpoint, waits, is_idempotent=True).status == 200
    assert waits.seconds == pytest.approx([2.15])


def test_without_being_told_to_nothing_is_sent_again() -> None:
    endpoint = TokenEndpoint(httpx.ConnectError("x"), GOOD)
    client = VaultClient(transport=httpx.MockTransport(endpoint))

    with pytest.raises(ConnectionUnavailableError):
        asyncio.run(client.post(request(is_idempotent=True)))

    assert len(endpoint.requests) == 1


# The deadline ----------------------------------------------------------------------------------


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    limited = httpx.Response(429, headers={"Retry-After": "2"})

    error, times, waits = post_in_vain(limited, GOOD, timeout=2.0)

    assert isinstance(error, ConnectionRateLimitedError)
    assert (times, waits) == (1, [])


class Silence(httpx.AsyncBaseTransport):
    """Never answers the first requests; counts them."""

    def __init__(self, silent: int) -> None:
        self.silent = silent
        self.times = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.times += 1
        if self.times <= self.silent:
            await anyio.sleep_forever()
        return httpx.Response(200, json={})


def post_into(
    silence: Silence, *, is_idempotent: bool, timeout: float
) -> tuple[VaultAnswer | Exception, float]:
    """Return how it ended, and after how many seconds."""
    retries = Retries(sleep=Waits(), jitter=lambda: 0.0)
    client = VaultClient(timeout=timeout, retries=retries, transport=silence)
    return run_in_virtual_time(client.post(request(is_idempotent=is_idempotent)))


def test_who_does_not_answer_is_asked_again_while_there_is_time() -> None:
    silence = Silence(1)

    answer, _ = post_into(silence, is_idempotent=True, timeout=2.0)

    assert isinstance(answer, VaultAnswer)
    assert answer.status == 200
    assert silence.times == 2


@pytest.mark.parametrize("is_idempotent", [True, False])
def test_all_attempts_together_end_at_the_deadline(is_idempotent: bool) -> None:
    silence = Silence(10)

    error, seconds = post_into(silence, is_idempotent=is_idempotent, timeout=2.5)

    assert isinstance(error, ConnectionUnavailableError)
    assert "did not answer in 2.5 s" in str(error)
    assert seconds == pytest.approx(2.5, abs=0.1)
    assert (silence.times > 1) == is_idempotent


# What is sent the second time ------------------------------------------------------------------


def test_the_same_is_sent_again_unless_something_else_is_made() -> None:
    endpoint = TokenEndpoint(httpx.ConnectError("x"), GOOD)
    post(endpoint, Waits())
    assert endpoint.forms == [{"n": "1"}, {"n": "1"}]


def test_what_is_good_for_once_is_made_anew_for_each_attempt() -> None:
    endpoint = TokenEndpoint(httpx.ConnectError("x"), httpx.ConnectError("x"), GOOD)
    bodies = iter(["2", "3"])

    post(endpoint, Waits(), again=lambda: request(body=next(bodies)))

    assert endpoint.forms == [{"n": "1"}, {"n": "2"}, {"n": "3"}]


# Requests --------------------------------------------------------------------------------------


def test_a_form_is_sent_as_a_form_and_repeats_what_is_a_list() -> None:
    sent = VaultRequest(
        "g",
        "https://auth.example.com/token",
        {"resource": ("https://a.example/", "https://b.example/"), "scope": "a b&c=\N{EURO SIGN}"},
        None,
        encoding="form",
    )

    assert sent.content == (
        "resource=https%3A%2F%2Fa.example%2F&resource=https%3A%2F%2Fb.example%2F"
        "&scope=a+b%26c%3D%E2%82%AC"
    )
    assert sent.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert "Authorization" not in sent.headers


def test_a_json_request_is_what_it_was() -> None:
    sent = VaultRequest("g", "https://vault.example/t", {"appId": "g"}, "Bearer P:t")

    assert sent.content == '{"appId": "g"}'
    assert sent.headers == {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "toolguard-mcp",
        "Content-Type": "application/json",
        "Authorization": "Bearer P:t",
    }


# The decision ----------------------------------------------------------------------------------

ERROR = ConnectionResponseError("x", connection="calendar")
KINDS: Sequence[FaultKind] = ("unsent", "unanswered", "rate_limited", "final")


@given(
    st.sampled_from(KINDS),
    st.none() | st.integers(1, 3_600),
    st.lists(st.sampled_from(KINDS), max_size=4),
    st.booleans(),
    st.floats(0, 1),
)
def test_retries_wait_within_the_time_limit_and_twice_at_most(
    kind: FaultKind,
    retry_after: int | None,
    earlier: list[FaultKind],
    is_idempotent: bool,
    jitter: float,
) -> None:
    failure = Failure(ERROR, kind, retry_after)

    delay = Retries(jitter=lambda: jitter).delay(failure, earlier, is_idempotent=is_idempotent)

    if delay is None:
        return
    assert 0.1 <= delay <= 2.4
    assert len(earlier) < 2
    assert kind != "final"
    assert is_idempotent or kind != "unanswered"
    assert NO_RETRIES.delay(failure, earlier, is_idempotent=is_idempotent) is None


@pytest.mark.parametrize("most", [-1, 3, 100])
def test_more_attempts_than_help_cannot_be_asked_for(most: int) -> None:
    with pytest.raises(ValueError, match="write max_retries=2"):
        Retries(max_retries=most)


def test_one_more_attempt_is_one() -> None:
    failure = Failure(ERROR, "unsent")

    assert Retries(max_retries=1, jitter=lambda: 0.0).delay(failure, [], is_idempotent=False) == 0.1
    assert Retries(max_retries=1).delay(failure, ["unsent"], is_idempotent=False) is None
