"""What does a caller get for each fault of each provider, and how often is the provider asked?

The table of kinds of fault: for each provider the error, and the number of requests that the
first, the second and ten calls have made together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from support import token_endpoint, vaults
from support.token_endpoint import CALENDAR, ENDPOINT
from support.virtual_time import run_in_virtual_time
from toolguard.connections import (
    CachedConnections,
    ClientSecretBasic,
    Connection,
    ConnectionRequest,
)
from toolguard.connections.exchange import TokenExchangeConnections
from toolguard.connections.fetching import ConnectionFetcher
from toolguard.connections.http import MAX_ANSWER_BYTES
from toolguard.connections.retries import NO_RETRIES
from toolguard.errors import ConnectionTokenError, ToolGuardError
from toolguard.policies.policy import ConnectionNeed
from toolguard.principal import Principal
from toolguard.testing import FrozenClock

NAME = "google-calendar"
CANARY = "ey.caller"
Row = tuple[str, int, int, int]


class Wire:
    """What a provider finds on the wire: a fault, or its good answer once that is over."""

    def __init__(self, fault: Fault, good: dict[str, Any]) -> None:
        self.fault: Fault | None = fault
        self.good = good
        self.requests = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.fault is None:
            return httpx.Response(200, json=self.good)
        if self.fault.raises is not None:
            raise self.fault.raises(CANARY, request=request)
        if self.fault.hangs:
            await asyncio.Event().wait()
        # A response is read once, and sent as often as it takes.
        body, headers = self.fault.body, self.fault.headers
        return httpx.Response(self.fault.status, content=body, headers=headers)


@dataclass(frozen=True)
class Fault:
    rows: dict[str, Row]
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    raises: type[httpx.RequestError] | None = None
    hangs: bool = False


def alike(error: str, *requests: int) -> dict[str, Row]:
    first, second, ten = requests
    row = error, first, second, ten
    return {"descope": row, "exchange": row}


# Asked again by whoever tries again, and then remembered.
PASSING = alike("ConnectionUnavailableError", 1, 2, 2)
NONSENSE = alike("ConnectionResponseError", 1, 2, 2)
DENIED = ("ConnectionDeniedError", 1, 2, 2)
WRONG = ("ConnectionResponseError", 1, 2, 2)
LIMITED = alike("ConnectionRateLimitedError", 1, 2, 2)
# As many seconds as it says.
NAMED_LIMIT = alike("ConnectionRateLimitedError", 1, 1, 1)

FAULTS = {
    "connection refused": Fault(PASSING, raises=httpx.ConnectError),
    "no way there": Fault(PASSING, raises=httpx.ConnectTimeout),
    "no answer": Fault(PASSING, hangs=True),
    "hung up": Fault(PASSING, raises=httpx.ReadError),
    "hung up while sending": Fault(PASSING, raises=httpx.WriteError),
    "not HTTP": Fault(PASSING, raises=httpx.RemoteProtocolError),
    "500": Fault(PASSING, status=500, body=CANARY.encode()),
    "502": Fault(PASSING, status=502, body=b"<html>"),
    "503": Fault(PASSING, status=503),
    "503 for a while": Fault(PASSING, status=503, headers=(("Retry-After", "5"),)),
    "408": Fault(PASSING, status=408),
    "429": Fault(LIMITED, status=429),
    "429 for a while": Fault(NAMED_LIMIT, status=429, headers=(("Retry-After", "5"),)),
    "redirect": Fault(NONSENSE, status=302, headers=(("Location", "https://evil.example/"),)),
    "unauthorized": Fault({"descope": DENIED, "exchange": WRONG}, status=401, body=b"{}"),
    "forbidden": Fault({"descope": DENIED, "exchange": WRONG}, status=403, body=b"{}"),
    "404 of a proxy": Fault(NONSENSE, status=404, body=b"<html>not found"),
    "404 of another service": Fault(NONSENSE, status=404, body=b'{"errorCode": "E011001"}'),
    "not connected at Descope": Fault(
        # The link to connect is a second request.
        {"descope": ("ConnectionRequiredError", 2, 4, 4), "exchange": WRONG},
        status=404,
        body=b'{"errorCode": "E111504"}',
    ),
    "not connected at an exchange": Fault(
        {"descope": WRONG, "exchange": ("ConnectionRequiredError", 1, 2, 2)},
        status=400,
        body=b'{"error": "invalid_grant"}',
    ),
    "not JSON": Fault(NONSENSE, body=b"ok"),
    "JSON twice": Fault(NONSENSE, body=b'{"token": {}, "token": {}}'),
    "no token": Fault(NONSENSE, body=b"{}"),
    "compressed": Fault(NONSENSE, body=b"{}", headers=(("Content-Encoding", "br"),)),
    "too long": Fault(NONSENSE, body=b" " * (MAX_ANSWER_BYTES + 1)),
}


def descope(wire: Wire) -> Any:
    return vaults.provider(transport=httpx.MockTransport(wire))


def exchange(wire: Wire) -> Any:
    return TokenExchangeConnections(
        ENDPOINT,
        client_auth=ClientSecretBasic("mcp", "secret"),
        connections={NAME: CALENDAR},
        transport=httpx.MockTransport(wire),
        retries=NO_RETRIES,  # which requests are repeated at once is told by test_vault_retries
        clock=lambda: vaults.NOW,
    )


PROVIDERS: dict[str, tuple[Callable[[Wire], Any], dict[str, Any]]] = {
    "descope": (descope, vaults.GOOD),
    "exchange": (exchange, token_endpoint.GOOD),
}
ALICE = Principal("U1", issuer="https://issuer.example", expires_at=vaults.NOW + 3_600)
NEED = ConnectionNeed(NAME, (), "calendar")


def desk(provider: Any, clock: FrozenClock) -> ConnectionFetcher:
    # As a guard has it, but for the clock.
    guarded = CachedConnections(provider, not_connected_after=2, clock=clock, timer=clock)
    return ConnectionFetcher(guarded, ALICE, CANARY, clock, lambda _: None)


async def call(fetcher: ConnectionFetcher) -> Connection | ToolGuardError:
    try:
        connection = (await fetcher.connect([NEED]))["calendar"]
    except ToolGuardError as error:
        return error
    assert connection is not None
    return connection


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_fault_is_named_and_asked_about_so_often(
    name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make, good = PROVIDERS[name]
    fault, clock = FAULTS[kind], FrozenClock(vaults.NOW)
    wire = Wire(fault, good)
    expected, *requests = fault.rows[name]

    async def calls() -> tuple[list[Any], list[int], Any]:
        fetcher = desk(provider := make(wire), clock)
        errors, made = [], []
        for _ in range(10):
            errors.append(await call(fetcher))
            made.append(wire.requests)
        wire.fault = None
        clock.advance(6)
        healed = await call(fetcher)
        await provider.aclose()
        return errors, made, healed

    outcome, _ = run_in_virtual_time(calls())
    assert not isinstance(outcome, Exception)
    errors, made, healed = outcome

    assert [type(error).__name__ for error in errors] == [expected] * 10
    assert [made[0], made[1], made[-1]] == requests
    assert all(isinstance(error, ConnectionTokenError) for error in errors)
    assert {error.connection for error in errors} == {NAME}
    assert CANARY not in f"{[error.to_dict() for error in errors]} {errors} {caplog.text}"
    assert isinstance(healed, Connection)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (RuntimeError, "ConnectionResponseError"),
        (OSError, "ConnectionResponseError"),
        (ConnectionRefusedError, "ConnectionUnavailableError"),
        (TimeoutError, "ConnectionUnavailableError"),
        (httpx.ConnectError, "ConnectionUnavailableError"),
    ],
)
def test_what_a_function_raises_is_remembered_like_other_faults(
    raised: type[Exception], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[ConnectionRequest] = []
    clock = FrozenClock(vaults.NOW)

    async def vault(request: ConnectionRequest) -> Connection:
        asked.append(request)
        if clock() > vaults.NOW:
            return Connection("ya29.healed")
        raise raised(CANARY)

    async def calls() -> tuple[list[Any], int, Any]:
        fetcher = desk(vault, clock)
        errors = [await call(fetcher) for _ in range(10)]
        number = len(asked)
        clock.advance(2)
        return errors, number, await call(fetcher)

    errors, number, healed = asyncio.run(calls())

    assert {type(error).__name__ for error in errors} == {expected}
    assert number == 2
    assert isinstance(healed, Connection)
    assert len(caplog.messages) == 2
    assert CANARY not in f"{errors} {caplog.text}"
    assert all(
        text.startswith(f"connection {NAME}: {raised.__name__} in ") for text in caplog.messages
    )


def test_an_outage_of_a_function_stops_the_calls_of_everybody() -> None:
    asked: list[str | None] = []

    async def vault(request: ConnectionRequest) -> Connection:
        asked.append(request.principal.user_id)
        raise httpx.ConnectError(CANARY)

    async def calls() -> list[Any]:
        clock = FrozenClock(vaults.NOW)
        provider = CachedConnections(vault, not_connected_after=2, clock=clock, timer=clock)
        people = [replace(ALICE, user_id=f"U{number}") for number in range(20)]
        desks = [ConnectionFetcher(provider, one, CANARY, clock, lambda _: None) for one in people]
        return [await call(each) for each in desks]

    errors = asyncio.run(calls())

    assert {type(error).__name__ for error in errors} == {"ConnectionUnavailableError"}
    assert asked == ["U0", "U1", "U2"]
