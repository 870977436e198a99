"""Which functions are providers, and what do their answers and faults mean?"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Connection, ToolGuard
from toolguard.connections import CachedConnections, ConnectionRequest, ConnectionRouter
from toolguard.connections.fetching import ConnectionFetcher
from toolguard.connections.functions import as_connection
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.policies.policy import ConnectionNeed
from toolguard.principal import Principal

SECRET = "ya29.secret"


def guard(connections: Any) -> ToolGuard:
    return ToolGuard(
        issuer="https://auth.test", audience="https://mcp.test/mcp", connections=connections
    )


def connect(connections: Any) -> Connection:
    """Fetch through a guard as a tool does."""
    provider = guard(connections).connections
    fetcher = ConnectionFetcher(
        provider, Principal("alice", "https://auth.test"), "ey.t", lambda: 0.0, lambda _: None
    )
    (found,) = asyncio.run(fetcher.connect([ConnectionNeed("crm", (), "crm")])).values()
    assert found is not None
    return found


def raising(error: Exception) -> Callable[[ConnectionRequest], Awaitable[str]]:
    async def connect(request: ConnectionRequest) -> str:
        raise error

    return connect


def returning(value: Any) -> Callable[[ConnectionRequest], Awaitable[Any]]:
    async def connect(request: ConnectionRequest) -> Any:
        return value

    return connect


# --- how it may be written


def sync(request: ConnectionRequest) -> str:
    return SECRET


async def without() -> str:
    return SECRET


async def with_two(request: ConnectionRequest, other: int) -> str:
    return SECRET


async def with_keyword(request: ConnectionRequest, *, needed: int) -> str:
    return SECRET


async def generating(request: ConnectionRequest) -> Any:
    yield SECRET


class Table:
    async def fetch(self, request: ConnectionRequest) -> Connection:
        return Connection(SECRET)


@pytest.mark.parametrize("wrap", [guard, CachedConnections, lambda f: ConnectionRouter({"a": f})])
@pytest.mark.parametrize(
    ("function", "told"),
    [
        (sync, "sync is not async: write `async def connect"),
        (generating, "generating is not async"),
        (lambda request: SECRET, "is not async"),
        (without, "without does not take one argument: write `async def connect"),
        (with_two, "with_two does not take one argument"),
        (with_keyword, "with_keyword does not take one argument"),
        (Table, r"Table is a class: write connections=Table\(\.\.\.\)"),
        ({"crm": SECRET}, "not from dict"),
    ],
)
def test_a_function_that_cannot_be_called_is_refused_at_once(
    wrap: Callable[[Any], object], function: Any, told: str
) -> None:
    with pytest.raises(TypeError, match=told):
        wrap(function)


class Connector:
    async def __call__(self, request: ConnectionRequest) -> str:
        return SECRET

    async def method(self, request: ConnectionRequest, more: int = 0) -> str:
        return SECRET


@functools.wraps(returning(SECRET))
def decorated(*arguments: Any) -> Any:
    return returning(SECRET)(*arguments)


@pytest.mark.parametrize(
    "function",
    [
        returning(SECRET),
        returning(Connection(SECRET)),
        Connector(),
        Connector().method,
        functools.partial(with_two, other=1),
        decorated,
        Table(),
    ],
)
def test_every_way_to_write_it_works_and_text_is_a_token(function: Any) -> None:
    assert connect(function).token == SECRET


# --- what it returns


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "returned NoneType"),
        (SECRET.encode(), "returned bytes"),
        ({"token": SECRET}, "returned dict"),
        ("", "text that is no token"),
        (f"{SECRET}\n", "text that is no token"),
    ],
)
def test_a_wrong_return_is_named_by_its_type(value: object, told: str) -> None:
    with pytest.raises(ConnectionResponseError, match=told) as caught:
        connect(returning(value))
    assert "return a Connection or its token" in str(caught.value)
    assert SECRET not in str(caught.value)


@given(st.one_of(st.text(), st.binary(), st.integers(), st.none(), st.lists(st.text())))
def test_whatever_is_returned_is_a_connection_or_an_error_that_quotes_nothing(
    value: object,
) -> None:
    is_token = isinstance(value, str) and value.strip() == value and value.isascii()
    if is_token and value and str(value).isprintable():
        assert as_connection(value, "crm").token == value
        return
    with pytest.raises(ConnectionResponseError) as caught:
        as_connection(value, "crm")
    found = "text that is no token" if isinstance(value, str) else type(value).__name__
    assert f"The provider of crm returned {found}" in str(caught.value)


# --- what it raises


def refusing(client: Any, status: int, **headers: str) -> Exception:
    request = client.Request("GET", f"https://vault.test/{SECRET}")
    response = client.Response(status, headers=headers, request=request)
    return client.HTTPStatusError(SECRET, request=request, response=response)  # type: ignore[no-any-return]


CLIENTS = [
    importlib.import_module(name) for name in ("httpx", "httpx2") if importlib.util.find_spec(name)
]

FAULTS: dict[str, tuple[Callable[[Any], Exception], type[ConnectionTokenError]]] = {
    "no connection": (lambda c: c.ConnectError(SECRET), ConnectionUnavailableError),
    "no answer": (lambda c: c.ReadTimeout(SECRET), ConnectionUnavailableError),
    "broken": (lambda c: c.RemoteProtocolError(SECRET), ConnectionUnavailableError),
    "no decoding": (lambda c: c.DecodingError(SECRET), ConnectionUnavailableError),
    "500": (lambda c: refusing(c, 500), ConnectionUnavailableError),
    "408": (lambda c: refusing(c, 408), ConnectionUnavailableError),
    "429": (lambda c: refusing(c, 429, **{"Retry-After": "7"}), ConnectionRateLimitedError),
    "403": (lambda c: refusing(c, 403), ConnectionResponseError),
}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: str(client.__name__))
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_http_mean_try_again_unless_they_are_refusals(
    client: Any, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, kind = FAULTS[fault]

    with pytest.raises(ConnectionTokenError) as caught:
        connect(raising(make(client)))

    assert type(caught.value) is kind
    assert SECRET not in str(caught.value) + caplog.text
    if isinstance(caught.value, ConnectionRateLimitedError):
        assert caught.value.retry_after == 7


def test_an_error_of_its_own_choice_is_passed_on() -> None:
    with pytest.raises(ConnectionDeniedError, match="not you"):
        connect(raising(ConnectionDeniedError("not you", connection="crm")))


def test_another_fault_is_logged_with_its_place_and_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def connect_crm(request: ConnectionRequest) -> str:
        return {}[SECRET]  # type: ignore[index]

    with caplog.at_level(logging.DEBUG), pytest.raises(ConnectionResponseError) as caught:
        connect(connect_crm)

    line = connect_crm.__code__.co_firstlineno + 1
    assert f"connection crm: KeyError in {__file__}:{line}" in caplog.text
    assert SECRET not in caplog.text + str(caught.value)
    assert "failed" in str(caught.value)


def test_a_function_that_exits_ends_one_call(caplog: pytest.LogCaptureFixture) -> None:
    async def connect_crm(request: ConnectionRequest) -> str:
        sys.exit(SECRET)

    with pytest.raises(ConnectionResponseError):
        connect(connect_crm)

    line = connect_crm.__code__.co_firstlineno + 1
    assert f"connection crm: SystemExit in {__file__}:{line}" in caplog.text
    assert SECRET not in caplog.text


def test_a_fault_inside_of_a_library_names_the_function_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def connect_crm(request: ConnectionRequest) -> str:
        return str(httpx.URL(SECRET * 99_999))

    with pytest.raises(ConnectionResponseError):
        connect(connect_crm)

    line = connect_crm.__code__.co_firstlineno + 1
    assert "httpx" in caplog.text
    assert f", from {__file__}:{line}" in caplog.text
    assert SECRET not in caplog.text
