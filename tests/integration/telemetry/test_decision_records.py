"""Does every decision leave a record, on every line, and none a secret?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from support.lines import Guarding, Line, Mode, Serve, ServeOnce
from support.wire import Caller
from toolguard import (
    Connection,
    ConnectionRequest,
    ConnectionRequiredError,
    ConnectionUnavailableError,
    InsufficientScopeError,
    KeysUnavailableError,
    Principal,
    Refusals,
    public,
    requires_auth,
    requires_roles,
    requires_scopes,
    with_connection,
)
from toolguard.telemetry import DecisionRecord, Records
from toolguard.testing import LocalIssuer, signed_in

URL = "https://mcp.test/mcp"
SECRET = "a value that nobody may read in a log"


async def connect(request: ConnectionRequest) -> Connection:
    if request.name == "mail":
        raise ConnectionRequiredError("Connect mail", connection="mail")
    if request.name == "files":
        raise ConnectionUnavailableError("The vault is down", connection="files")
    return Connection(f"{request.name} token")


def shop(line: Line) -> Any:  # noqa: C901 - a tool for each verdict
    server = line.server("shop")

    @requires_scopes("audit")
    async def helper() -> str:
        return "done"

    @server.tool()
    @requires_scopes("pay")
    async def pay(amount: str) -> str:
        return f"paid {amount}"

    @server.tool()
    @requires_scopes("shop.{shop}.read")
    async def look(shop: str) -> str:
        return f"looked at {shop}"

    @server.tool()
    @requires_roles("admin")
    async def close() -> str:
        return "closed"

    @server.tool()
    @requires_auth
    @with_connection("mail")
    async def send(note: str, *, connection_token: str) -> str:
        return note

    @server.tool()
    @requires_auth
    @with_connection("files")
    async def store(note: str, *, connection_token: str) -> str:
        return note

    @server.tool()
    @public
    async def hours() -> str:
        return "nine to five"

    @server.tool()
    @requires_auth
    async def fail(note: str) -> str:
        raise RuntimeError(note)

    @server.tool()
    @requires_auth
    async def upgrade(note: str) -> str:
        raise InsufficientScopeError(["upstream"])

    @server.tool()
    @requires_auth
    async def both(note: str) -> str:
        return await helper()

    @server.resource("shop://orders/{order}")
    @requires_auth
    async def orders(order: str) -> str:
        return order

    @server.prompt()
    @requires_auth
    async def plan(topic: str) -> str:
        return topic

    return server


@dataclass
class Book:
    """The records of one served application, with a way to wait for them."""

    guard: Any
    url: str
    records: list[DecisionRecord] = field(default_factory=list)

    def take(self) -> list[DecisionRecord]:
        assert self.guard.recorder.flush()
        taken, self.records[:] = list(self.records), []
        return taken


@pytest.fixture
def book(mode: Mode, guarding: Guarding, serve_once: ServeOnce, books: dict[Any, Book]) -> Book:
    key = ("shop", mode.line.name, mode.stateless, mode.json)
    if key not in books:
        records: list[DecisionRecord] = []
        guard = guarding(connections=connect, on_decision=records.append)
        app = mode.app(guard.protect(shop(mode.line)))
        books[key] = Book(guard, serve_once(key, lambda: app) + "/mcp", records)
    books[key].take()
    return books[key]


@pytest.fixture(scope="module")
def books() -> dict[Any, Book]:
    return {}


Calls = Callable[..., DecisionRecord]


@pytest.fixture
def calls(mode: Mode, book: Book, http: httpx.Client, issuer: LocalIssuer) -> Calls:
    """Call a tool as alice; return the record, which holds neither token nor argument."""

    def call(
        tool: str, arguments: Mapping[str, Any] | None = None, *scopes: str, **claims: Any
    ) -> DecisionRecord:
        token = issuer.mint("alice", scopes=list(scopes), **claims)
        caller = Caller(http, book.url, mode.protocol, token=token)
        if mode.has_sessions:
            caller.open()
        book.take()
        caller.call(tool, dict(arguments or {}))
        found = [each for each in book.take() if not each.nested]
        for each in found:
            assert token not in each.to_json() + str(each)
            assert SECRET not in each.to_json() + str(each)
        (record,) = found
        assert record.duration > 0
        assert record.time == pytest.approx(book.guard.clock(), abs=60)
        return record

    return call


def test_a_served_call_is_on_record_with_its_caller(mode: Mode, calls: Calls) -> None:
    record = calls("pay", {"amount": SECRET}, "pay", act={"sub": "robot"}, tenant="acme")

    assert (record.verdict, record.reason) == ("served", None)
    assert (record.kind, record.operation, record.method) == ("tool", "pay", "tools/call")
    assert (record.issuer, record.subject) == ("https://issuer.test", "alice")
    assert (record.tenant, record.actor, record.rule) == ("acme", "robot", "pay")
    assert record.client is not None
    assert record.request_id is not None
    assert (record.server, record.transport, record.nested) == (URL, "http", False)


def test_a_refusal_is_on_record_with_expected_and_found(calls: Calls) -> None:
    record = calls("pay", {"amount": SECRET}, "profile")

    assert (record.verdict, record.reason) == ("refused", "insufficient_scope")
    assert (record.operation, record.subject) == ("pay", "alice")
    assert (record.required_scopes, record.missing_scopes) == (("pay",), ("pay",))
    assert record.token_scopes == ("profile",)
    assert ": insufficient_scope; expected pay, found profile, missing pay," in str(record)


def test_a_scope_of_an_argument_is_on_record_as_its_template(calls: Calls) -> None:
    record = calls("look", {"shop": "hidden-shop"}, "profile")

    assert record.missing_scopes == ("shop.{shop}.read",)
    assert "hidden-shop" not in record.to_json() + str(record)


@pytest.mark.parametrize(
    ("tool", "verdict", "reason", "facts"),
    [
        ("close", "refused", "access_denied", {"denied_by": "role admin"}),
        ("send", "not_connected", "connection_required", {"connections": ("mail",)}),
        ("store", "outage", "connection_unavailable", {"connections": ("files",)}),
        ("upgrade", "refused", "insufficient_scope", {"missing_scopes": ("upstream",)}),
        ("both", "refused", "insufficient_scope", {"missing_scopes": ("audit",)}),
    ],
)
def test_each_way_to_be_refused_has_its_verdict(
    calls: Calls, tool: str, verdict: str, reason: str, facts: dict[str, Any]
) -> None:
    record = calls(tool, {} if tool == "close" else {"note": SECRET})

    assert (record.operation, record.verdict, record.reason) == (tool, verdict, reason)
    assert {name: getattr(record, name) for name in facts} == facts


def test_a_permitted_call_that_fails_is_on_record_as_failed(calls: Calls) -> None:
    record = calls("fail", {"note": SECRET})

    assert (record.operation, record.verdict, record.subject) == ("fail", "failed", "alice")
    assert record.reason is not None


def test_a_caller_without_a_token_is_on_record_as_anonymous(
    mode: Mode, book: Book, http: httpx.Client
) -> None:
    caller = Caller(http, book.url, mode.protocol, token=None)
    if mode.has_sessions:
        caller.open()
    book.take()
    caller.call("hours")
    caller.call("pay", {"amount": SECRET})

    served, refused = book.take()
    assert served.is_anonymous
    assert (served.operation, served.verdict, served.rule) == ("hours", "served", "public")
    assert refused.is_anonymous
    assert (refused.operation, refused.reason) == ("pay", "missing_token")


def test_an_invalid_token_is_on_record_without_its_claims(
    mode: Mode, book: Book, http: httpx.Client, issuer: LocalIssuer
) -> None:
    Caller(http, book.url, mode.protocol, token=issuer.mint_expired("mallory")).call("hours")

    (record,) = book.take()
    assert (record.verdict, record.reason) == ("refused", "invalid_token:expired")
    assert record.is_anonymous
    assert "mallory" not in record.to_json()


def test_a_template_is_on_record_by_its_own_uri(
    mode: Mode, book: Book, http: httpx.Client, issuer: LocalIssuer
) -> None:
    caller = Caller(http, book.url, mode.protocol, token=issuer.mint("alice"))
    if mode.has_sessions:
        caller.open()
    book.take()
    caller.send("resources/read", {"uri": "shop://orders/hidden-order"})
    caller.send("prompts/get", {"name": "plan", "arguments": {"topic": SECRET}})

    read, planned = book.take()
    assert (read.kind, read.operation) == ("resource", "shop://orders/{order}")
    assert (planned.kind, planned.operation, planned.verdict) == ("prompt", "plan", "served")
    assert "hidden-order" not in read.to_json()


def test_a_guarded_function_that_a_tool_calls_has_a_record_of_its_own(
    mode: Mode, book: Book, http: httpx.Client, issuer: LocalIssuer
) -> None:
    token = issuer.mint("alice", scopes=["audit"])
    caller = Caller(http, book.url, mode.protocol, token=token)
    if mode.has_sessions:
        caller.open()
    book.take()
    caller.call("both", {"note": SECRET})

    inner, outer = book.take()
    assert (inner.operation, inner.verdict, inner.nested) == ("helper", "served", True)
    assert (outer.operation, outer.verdict, outer.nested) == ("both", "served", False)
    assert inner.request_id == outer.request_id


def test_a_list_is_on_record_with_what_it_left_out(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(
        connections=connect,
        on_decision=records.append,
        refusals=Refusals(unauthorized_tools="hide-all"),
    )
    mode = Mode(line, "2025-11-25", stateless=True, json=True)
    url = serve(mode.app(guard.protect(shop(line)))) + "/mcp"
    caller = Caller(http, url, mode.protocol, token=issuer.mint("alice", scopes=["pay"]))
    caller.send("tools/list", {})
    caller.token = issuer.mint("root", scopes=["pay", "audit", "x"], roles=["admin"])
    caller.send("prompts/list", {})

    assert guard.recorder.flush()
    filtered, whole = records
    assert (filtered.method, filtered.verdict) == ("tools/list", "filtered")
    assert set(filtered.hidden) == {"close"}
    assert (filtered.kind, filtered.operation, filtered.subject) == (None, None, "alice")
    assert (whole.method, whole.verdict, whole.hidden) == ("prompts/list", "served", ())


@pytest.mark.parametrize(
    ("outage", "reason"),
    [
        (KeysUnavailableError("down", retry_after=1), "temporarily_unavailable"),
        (KeysUnavailableError("jwe", reason="encrypted"), "temporarily_unavailable:encrypted"),
    ],
    ids=["keys", "introspection"],
)
def test_an_outage_of_the_issuer_is_on_record(
    outage: KeysUnavailableError,
    reason: str,
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
) -> None:
    class Down:
        async def verify(self, _: str) -> Principal:
            raise outage

    records: list[DecisionRecord] = []
    guard = guarding(verifier=Down(), connections=connect, on_decision=records.append)
    mode = Mode(line, "2025-11-25", stateless=True, json=True)
    url = serve(mode.app(guard.protect(shop(line)))) + "/mcp"
    assert Caller(http, url, mode.protocol, token="a.b.c").call("hours").status == 503

    assert guard.recorder.flush()
    assert [(each.verdict, each.reason) for each in records] == [("outage", reason)]


def test_a_session_of_another_caller_is_on_record(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(connections=connect, on_decision=records.append)
    mode = Mode(line, "2025-11-25", stateless=False, json=True)
    url = serve(mode.app(guard.protect(shop(line)))) + "/mcp"
    caller = Caller(http, url, mode.protocol, token=issuer.mint("alice"))
    caller.open()
    caller.token = issuer.mint("bob")
    assert caller.call("hours").status == 404

    assert guard.recorder.flush()
    last = records[-1]
    assert (last.verdict, last.reason, last.subject) == ("refused", "access_denied", "bob")
    assert last.denied_by == "session of this caller"


def test_a_server_behind_the_guard_has_records_by_its_messages(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, line: Line
) -> None:
    records: Queue[DecisionRecord] = Queue()
    inner = Mode(line, "2025-11-25", stateless=True, json=True).app(line.server("bare"))
    guard = guarding(on_decision=Records(records.put, subjects="hashed"), secret="s" * 32)
    url = serve(guard.asgi(inner, rules={"pay": requires_scopes("pay")})) + "/mcp"
    caller = Caller(http, url, "2025-11-25", token=issuer.mint("alice", scopes=["pay"]))
    caller.call("pay", {"amount": SECRET})
    caller.token = issuer.mint("alice")
    caller.call("pay", {"amount": SECRET})
    caller.send("resources/read", {"uri": "shop://hidden-order"})

    # The server may still be at it when its answer has arrived.
    served, refused, read = (records.get(timeout=60) for _ in range(3))
    assert (served.operation, served.verdict, served.rule) == ("pay", "served", "pay")
    assert (refused.operation, refused.verdict) == ("pay", "refused")
    assert (read.kind, read.operation) == ("resource", "shop:")
    assert served.subject == refused.subject != "alice"
    assert "hidden-order" not in read.to_json()
    assert "alice" not in served.to_json()


def test_a_plain_application_has_records_of_its_requests(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    app = Starlette(routes=[Route("/hidden-path", lambda _: Response(status_code=204))])

    records: Queue[DecisionRecord] = Queue()
    guard = guarding(on_decision=records.put)
    url = serve(guard.asgi(app)) + "/hidden-path"
    http.get(url, headers={"authorization": f"Bearer {issuer.mint('alice')}"})
    http.get(url)

    served, refused = (records.get(timeout=60) for _ in range(2))
    assert (served.verdict, served.method, served.subject) == ("served", "GET", "alice")
    assert (refused.verdict, refused.reason) == ("refused", "missing_token")
    assert "hidden-path" not in served.to_json()


def test_an_application_that_fails_is_on_record_as_failed(
    guarding: Guarding, issuer: LocalIssuer
) -> None:
    def fail(_: object) -> Response:
        raise LookupError(SECRET)

    records: list[DecisionRecord] = []
    guard = guarding(on_decision=records.append)
    app = guard.asgi(Starlette(routes=[Route("/", fail)]))

    async def ask() -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="https://mcp.test") as client:
            await client.get("/", headers={"authorization": f"Bearer {issuer.mint('alice')}"})

    anyio.run(ask)
    assert guard.recorder.flush()
    (record,) = records
    assert (record.verdict, record.reason) == ("failed", "an error")


def test_a_cancelled_function_is_on_record_as_failed(line: Line, guarding: Guarding) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(on_decision=records.append)
    server = line.server("shop")

    @requires_auth
    async def helper(within: anyio.CancelScope) -> None:
        within.cancel()
        await anyio.sleep_forever()

    @server.tool()
    @requires_auth
    async def outer() -> str:
        with anyio.CancelScope() as within:
            await helper(within)
        return "gave up"

    guard.protect(server)

    async def call() -> None:
        with signed_in("alice"):
            async with line.in_memory(server) as call_tool:
                await call_tool("outer", {})

    anyio.run(call)
    assert guard.recorder.flush()
    inner, _ = [each for each in records if each.kind or each.nested]
    assert (inner.nested, inner.verdict) == (True, "failed")


def test_a_client_in_memory_leaves_records(line: Line, guarding: Guarding) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(connections=connect, on_decision=records.append)
    server = guard.protect(shop(line))

    async def call() -> None:
        with signed_in("alice", scopes=["pay"]):
            async with line.in_memory(server) as call_tool:
                await call_tool("pay", {"amount": SECRET})

    anyio.run(call)
    assert guard.recorder.flush()
    (record,) = [each for each in records if each.kind]
    assert (record.operation, record.subject, record.transport) == ("pay", "alice", "memory")


def test_the_log_has_one_line_for_each_decision(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "toolguard.decisions")
    guard = guarding(connections=connect)
    mode = Mode(line, "2025-11-25", stateless=True, json=True)
    url = serve(mode.app(guard.protect(shop(line)))) + "/mcp"
    caller = Caller(http, url, mode.protocol, token=issuer.mint("alice", client_id="desk"))
    caller.call("pay", {"amount": SECRET})

    assert guard.recorder.flush()
    (line_,) = [each.getMessage() for each in caplog.records if each.name == "toolguard.decisions"]
    assert line_.startswith(
        "refused tool pay for alice of https://issuer.test via desk: insufficient_scope; "
        "expected pay, found no scope, missing pay, over http, request "
    )
