"""What does a caller get for each fault of a service or of the vault's database, and how soon?

The rows of the fault table (``tests/unit/connections/test_fault_table.py``) that a vault has: the
error of the first call and of the next ones, and the requests of ten calls together. None of the
calls waits, and a service is asked again after a moment.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.vault_database import new_database
from toolguard.connections import CachedConnections, Connection
from toolguard.connections.fetching import ConnectionFetcher
from toolguard.connections.http import MAX_ANSWER_BYTES
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionTokenError,
    ConnectionUnavailableError,
    ToolGuardError,
)
from toolguard.policies.policy import ConnectionNeed
from toolguard.principal import Principal
from toolguard.testing import FrozenClock
from toolguard.vault import Endpoints, OAuthProvider, Vault
from toolguard.vault.database import Database
from toolguard.vault.grants import Grant, GrantKey, Owner

NOW = 1_800_000_000.0
ISSUER = "https://auth.test"
NAME = "google-calendar"
CANARY = "1//refresh-token"
OWNER = Owner(ISSUER, "alice")
KEY = GrantKey(OWNER, NAME)
NEED = ConnectionNeed(NAME, (), "calendar")
GOOD = {"access_token": "ya29.fresh", "token_type": "Bearer", "expires_in": 3_600}


@dataclass(frozen=True)
class Fault:
    error: str
    then: str = "ConnectionUnavailableError"
    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    raises: type[httpx.RequestError] | None = None
    hangs: bool = False


def passing(**fault: Any) -> Fault:
    return Fault("ConnectionUnavailableError", **fault)


def nonsense(**fault: Any) -> Fault:
    return Fault("ConnectionResponseError", **fault)


LIMITED = "ConnectionRateLimitedError"
GONE = "ConnectionRequiredError"
FAULTS = {
    "connection refused": passing(raises=httpx.ConnectError),
    "no way there": passing(raises=httpx.ConnectTimeout),
    "no answer": passing(hangs=True),
    "hung up": passing(raises=httpx.ReadError),
    "hung up while sending": passing(raises=httpx.WriteError),
    "not HTTP": passing(raises=httpx.RemoteProtocolError),
    "500": passing(status=500, body=CANARY.encode()),
    "502": passing(status=502, body=b"<html>"),
    "503": passing(status=503),
    "503 for a while": passing(status=503, headers=(("Retry-After", "5"),)),
    "408": passing(status=408),
    "429": Fault(LIMITED, status=429),
    "429 for a while": Fault(LIMITED, LIMITED, status=429, headers=(("Retry-After", "5"),)),
    "redirect": nonsense(status=302, headers=(("Location", "https://evil.example/"),)),
    "unauthorized": nonsense(status=401, body=b"{}"),
    "forbidden": nonsense(status=403, body=b"{}"),
    "404 of a proxy": nonsense(status=404, body=b"<html>not found"),
    "no longer connected": Fault(GONE, GONE, 400, b'{"error": "invalid_grant"}'),
    "not JSON": nonsense(body=b"ok"),
    "JSON twice": nonsense(body=b'{"access_token": "a", "access_token": "b"}'),
    "no token": nonsense(body=b"{}"),
    "compressed": nonsense(body=b"{}", headers=(("Content-Encoding", "br"),)),
    "too long": nonsense(body=b" " * (MAX_ANSWER_BYTES + 1)),
}


class Wire:
    """The token endpoint of the service: a fault, or its good answer once that is over."""

    def __init__(self, fault: Fault) -> None:
        self.fault: Fault | None = fault
        self.requests = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        if self.fault is None:
            return httpx.Response(200, json=GOOD)
        if self.fault.raises is not None:
            raise self.fault.raises(CANARY, request=request)
        if self.fault.hangs:
            await asyncio.Event().wait()
        body, headers = self.fault.body, self.fault.headers
        return httpx.Response(self.fault.status, content=body, headers=headers)


class Desk:
    """A vault behind the cache of a guard, with one grant whose access token has expired."""

    def __init__(self, database: str, wire: Wire, *, timeout: float = 10.0) -> None:
        self.clock = FrozenClock(NOW)
        self.vault = Vault(
            database,
            keys=[b"k" * 32],
            connections={
                NAME: OAuthProvider(
                    title="Google",
                    client_id="vault",
                    client_secret="secret",
                    endpoints=Endpoints("https://g.test/authorize", "https://g.test/token"),
                )
            },
            timeout=timeout,
            transport=httpx.MockTransport(wire),
            clock=self.clock,
        )
        self.vault._refresher._sleep = self.sleep
        provider = CachedConnections(
            self.vault, not_connected_after=2, clock=self.clock, timer=self.clock
        )
        alice = Principal("alice", issuer=ISSUER, expires_at=NOW + 3_600)
        self.fetcher = ConnectionFetcher(provider, alice, None, self.clock, lambda _: None)

    async def sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def call(self) -> Connection | ToolGuardError:
        try:
            connection = (await self.fetcher.connect([NEED]))["calendar"]
        except ToolGuardError as error:
            return error
        assert connection is not None
        return connection


def grant() -> Grant:
    return Grant("ya29.old", CANARY, expires_at=NOW - 1, obtained_at=NOW - 3_601)


def in_desk(desk: Callable[[], Desk], test: Callable[[Desk], Any]) -> None:
    async def main() -> None:
        made = desk()
        await made.vault.keep(KEY, grant(), OWNER)
        try:
            await test(made)
        finally:
            await made.vault.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_of_a_service_is_named_and_asked_about_so_often(
    tmp_path_url: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    fault = FAULTS[kind]
    wire = Wire(fault)

    async def test(desk: Desk) -> None:
        errors: list[Any] = [await desk.call() for _ in range(10)]
        assert [type(error).__name__ for error in errors] == [fault.error, *[fault.then] * 9]
        assert (wire.requests, desk.clock()) == (1, NOW)
        assert all(isinstance(error, ConnectionTokenError) for error in errors)
        assert {error.connection for error in errors} == {NAME}
        assert CANARY not in f"{[error.to_dict() for error in errors]} {errors} {caplog.text}"
        told = [f"{NAME} was not refreshed"] if fault.error != GONE else []
        assert [text.partition(":")[0] for text in caplog.messages] == told
        (figure, *_) = desk.vault.figures()
        assert figure.attributes["connection"] == NAME

        wire.fault = None
        desk.clock.advance(6)
        healed = await desk.call()
        if fault.error == GONE:
            assert isinstance(healed, ConnectionTokenError)
        else:
            assert isinstance(healed, Connection)
            assert healed.token == "ya29.fresh"

    timeout = 0.2 if fault.hangs else 10.0
    in_desk(lambda: Desk(tmp_path_url, wire, timeout=timeout), test)


DAMAGES = {
    "no table": ("ALTER TABLE vault_grant RENAME TO away", "ConnectionUnavailableError"),
    "lost key": ("UPDATE vault_grant SET key_id = 'lost'", "ConnectionUnavailableError"),
    "changed row": ("UPDATE vault_grant SET sealed = x'00'", GONE),
    "moved row": ("UPDATE vault_grant SET owner = 'bob'", GONE),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_fault_of_the_database_reaches_no_service(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    damage, expected = DAMAGES[kind]
    wire = Wire(FAULTS["500"])

    async def test(desk: Desk) -> None:
        with closing(sqlite3.connect(tmp_path / "vault.db")) as db, db:
            db.execute(damage)
        errors: list[Any] = [await desk.call() for _ in range(10)]
        assert [type(error).__name__ for error in errors] == [expected] * 10
        assert {getattr(error, "connection", None) for error in errors} == {NAME}
        assert (wire.requests, desk.clock()) == (0, NOW)
        # Two attempts; the others are answered from memory.
        assert len(caplog.messages) == (0 if kind == "moved row" else 2)
        assert all(NAME in text for text in caplog.messages)
        assert CANARY not in f"{errors} {caplog.text}"

    in_desk(lambda: Desk(f"sqlite:///{tmp_path}/vault.db", wire), test)


def _message(kind: bytes, content: bytes) -> bytes:
    """Return a message of Postgres (its manual, chapter "Frontend/Backend Protocol")."""
    return kind + (len(content) + 4).to_bytes(4, "big") + content


STARTING_UP = _message(b"E", b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0")
# Welcome, and gone: as of a server that is killed while it accepts connections.
KILLED = (
    _message(b"R", bytes(4))
    + _message(b"S", b"server_version\x0015.0\0")
    + _message(b"K", bytes(8))
    + _message(b"Z", b"I")
)


@pytest.mark.parametrize("answer", [STARTING_UP, KILLED], ids=["starts up", "killed"])
def test_a_database_that_starts_up_or_is_killed_is_an_outage(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("asyncpg")
    wire = Wire(FAULTS["500"])

    async def postgres(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length == 8:  # the request for TLS
            await reader.readexactly(4)
            writer.write(b"N")
            length = int.from_bytes(await reader.readexactly(4), "big")
        await reader.readexactly(length - 4)
        writer.write(answer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(postgres, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        desk = Desk(f"postgresql://vault:hunter2@127.0.0.1:{port}/vault", wire)
        with pytest.raises(ConnectionUnavailableError) as failed:
            await desk.vault.grant(KEY, fresh=False)
        assert "hunter2" not in f"{failed.value!r} {caplog.text}"
        await desk.vault.aclose()
        server.close()

    asyncio.run(main())
    assert wire.requests == 0


@pytest.mark.parametrize("name", ["PostgresError", "InterfaceError"])
def test_what_only_the_driver_raises_is_an_outage_of_the_database(name: str, postgres: str) -> None:
    driver = pytest.importorskip("asyncpg")

    database = Database(new_database(postgres))

    async def main() -> None:
        with pytest.raises(OSError, match=name):
            async with database.connect():
                raise getattr(driver, name)("connection is closed")
        await database.aclose()

    asyncio.run(main())


def test_a_pause_that_a_service_asks_for_holds_in_every_process(tmp_path_url: str) -> None:
    wire = Wire(Fault(LIMITED, status=429, headers=(("Retry-After", "300"),)))

    async def test(desk: Desk) -> None:
        await desk.call()
        other = Desk(tmp_path_url, wire)
        errors = [await other.call() for _ in range(3)]
        await other.vault.aclose()
        assert [type(error).__name__ for error in errors] == [LIMITED] * 3
        assert isinstance(errors[0], ConnectionRateLimitedError)
        assert errors[0].retry_after == 300
        assert (wire.requests, other.clock()) == (1, NOW)

    in_desk(lambda: Desk(tmp_path_url, wire), test)
