"""How long does a call speak for its caller, and who else may speak for them meanwhile?"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from dataclasses import dataclass, field

import anyio.to_thread
import httpx
import pytest

from support.lines import LEGACY_PROTOCOLS, LINES, Guarding, Line, Mode, Serve, Server
from support.wire import Caller, asked_for
from toolguard import (
    InsufficientScopeError,
    Principal,
    ToolGuardError,
    injected,
    requires_auth,
    requires_scopes,
)
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
BOTH = [
    Mode(line, LEGACY_PROTOCOLS[-1], stateless=stateless, json=True)
    for line in LINES
    for stateless in (False, True)
]


@requires_scopes("vault.open")
async def open_vault(*, caller: Principal = injected) -> str:
    """Return whose vault was opened: a guarded helper, no tool."""
    return f"vault of {caller.user_id}"


@requires_auth
def sign(text: str, *, user_id: str = injected) -> str:
    """Return a signed text: a guarded helper that is no coroutine function."""
    return f"{text} signed {user_id}"


@dataclass
class _Bank:
    """A server whose tools call guarded helpers, and what its background tasks came to."""

    line: Line
    now: float = field(default_factory=time.time)
    released: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)
    background: list[str] = field(default_factory=list)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def clock(self) -> float:
        return self.now

    async def _later(self) -> None:
        await anyio.to_thread.run_sync(self.released.wait, 10)
        try:
            self.background.append(await open_vault())
        except ToolGuardError as error:
            self.background.append(str(error))
        self.finished.set()

    async def _until_refused(self) -> None:
        try:
            while True:
                await open_vault()
                await asyncio.sleep(0)
        except ToolGuardError as error:
            self.background.append(str(error))
        self.finished.set()

    def server(self) -> Server:
        server = self.line.server("bank")

        @server.tool()
        @requires_auth
        async def visit(*, user_id: str) -> str:
            return f"{user_id}: {await sign(await open_vault())}"

        @server.tool()
        @requires_auth
        async def visit_for_somebody_else(*, user_id: str) -> str:
            return f"{user_id}: {await sign(text='a check', user_id='mallory')}"

        @server.tool()
        @requires_auth
        async def visit_carefully(*, user_id: str) -> str:
            try:
                return await open_vault()
            except InsufficientScopeError as refusal:
                return f"{user_id} lacks {' '.join(refusal.missing_scopes)}"

        @server.tool()
        async def look_inside() -> str:
            try:
                return await open_vault()
            except ToolGuardError as refusal:
                return refusal.error

        @server.tool()
        @requires_scopes("vault.open")
        async def visit_after_a_while(seconds: int) -> str:
            self.now += seconds
            return await open_vault()

        self._add_tasks(server)
        return server

    def _add_tasks(self, server: Server) -> None:
        @server.tool()
        @requires_auth
        async def visit_while_signing() -> str:
            refused = anyio.Event()

            async def sign_afterwards() -> None:
                await refused.wait()
                await sign("visit")

            signing = asyncio.create_task(sign_afterwards())
            try:
                return await open_vault()
            finally:
                refused.set()
                await signing

        @server.tool()
        @requires_scopes("vault.open")
        async def visit_later() -> str:
            self.tasks.add(asyncio.create_task(self._later()))
            return await open_vault()

        @server.tool()
        @requires_scopes("vault.open")
        async def visit_until_refused() -> str:
            self.tasks.add(asyncio.create_task(self._until_refused()))
            return await open_vault()


@pytest.fixture(params=BOTH, ids=str)
def bank(request: pytest.FixtureRequest) -> _Bank:
    """Keep a bank, on every line."""
    return _Bank(request.param.line)


@pytest.fixture
def clocked(bank: _Bank) -> LocalIssuer:
    """Issue tokens by the bank's clock."""
    return LocalIssuer(algorithm="ES256", clock=bank.clock)


@pytest.fixture
def customer(
    request: pytest.FixtureRequest,
    bank: _Bank,
    clocked: LocalIssuer,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
) -> Caller:
    """Call the bank with a token that opens the vault for five minutes."""
    mode = request.node.callspec.params["bank"]
    guard = guarding(verifier=clocked.verifier(), clock=bank.clock)
    url = serve(mode.app(guard.protect(bank.server()))) + "/mcp"
    caller = Caller(http, url, mode.protocol)
    caller.token = clocked.mint("alice", scopes=["vault.open"], expires_in=300)
    if mode.has_sessions:
        assert caller.open().status == 200
    return caller


def test_a_guarded_helper_speaks_for_the_same_caller(customer: Caller) -> None:
    assert customer.call("visit").value == "alice: vault of alice signed alice"


def test_a_guarded_helper_cannot_be_called_for_somebody_else(customer: Caller) -> None:
    assert customer.call("visit_for_somebody_else").value == "alice: a check signed alice"


def test_a_guarded_helper_that_refuses_refuses_the_call(
    customer: Caller, clocked: LocalIssuer
) -> None:
    customer.token = clocked.mint("alice", scopes=["profile"])
    reply = customer.call("visit")

    assert reply.status == 403
    assert reply.challenge == (
        'Bearer error="insufficient_scope", '
        f'scope="{asked_for(customer.protocol, "vault.open", "profile")}", {METADATA}, '
        'error_description="Token missing required scopes: vault.open"'
    )


def test_a_refusal_that_the_tool_caught_does_not_spoil_its_result(
    customer: Caller, clocked: LocalIssuer
) -> None:
    customer.token = clocked.mint("alice")

    assert customer.call("visit_carefully").value == "alice lacks vault.open"
    assert customer.call("look_inside").value == "insufficient_scope"


def test_a_helper_that_succeeds_after_a_refusal_does_not_hide_it(
    customer: Caller, clocked: LocalIssuer
) -> None:
    customer.token = clocked.mint("alice")
    reply = customer.call("visit_while_signing")

    assert (reply.status, reply.body["missing_scopes"]) == (403, ["vault.open"])


def test_a_token_that_expires_during_the_call_is_not_used_any_more(customer: Caller) -> None:
    assert customer.call("visit_after_a_while", {"seconds": 60}).value == "vault of alice"
    reply = customer.call("visit_after_a_while", {"seconds": 600})

    assert reply.status == 401
    assert reply.body == {
        "error": "invalid_token",
        "error_description": "The access token has expired",
    }


def test_a_task_that_outlives_its_call_has_no_caller(bank: _Bank, customer: Caller) -> None:
    assert customer.call("visit_later").value == "vault of alice"
    bank.released.set()
    assert bank.finished.wait(10)

    assert len(bank.background) == 1
    assert "a task that outlives its call has none either" in bank.background[0]
    assert customer.call("visit").value == "alice: vault of alice signed alice"


def test_a_task_that_is_refused_meanwhile_does_not_spoil_the_answer(
    bank: _Bank, customer: Caller
) -> None:
    assert customer.call("visit_until_refused").value == "vault of alice"
    assert bank.finished.wait(10)
    assert "a task that outlives its call has none either" in bank.background[0]


def test_a_tool_reports_its_own_failure_after_a_caught_refusal(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> None:
    server = line.server("one")

    async def clumsy() -> str:
        with contextlib.suppress(InsufficientScopeError):
            await open_vault()
        raise ValueError("no such file")

    server.tool()(requires_auth(clumsy))
    url = serve(line.http_app(guarding().protect(server), stateless=True)) + "/mcp"
    reply = Caller(http, url, token=issuer.mint("alice")).call("clumsy")

    assert reply.challenge is None
    assert "vault.open" not in reply.tool_error
