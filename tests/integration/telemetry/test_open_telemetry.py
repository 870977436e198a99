"""Do decisions arrive in OpenTelemetry, on the spans that are there?"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

pytest.importorskip("opentelemetry.sdk.metrics", reason="metrics need opentelemetry-sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from support.forked import Forked
from support.lines import Guarding, Line, Mode, Serve
from support.wire import Caller
from toolguard import (
    CachedConnections,
    Connection,
    ConnectionRequest,
    ConnectionUnavailableError,
    KeysUnavailableError,
    Principal,
    ToolGuard,
    requires_auth,
    requires_scopes,
)
from toolguard.telemetry import DecisionRecord, OpenTelemetry, Records
from toolguard.testing import FrozenClock, LocalIssuer, signed_in
from toolguard.tokens.jwks import JWKS

DASHBOARD = (Path(__file__).parents[3] / "examples/deploy/dashboard.json").read_text("utf-8")


class Telemetry:
    """Where spans and metrics of one test go."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.consumer = OpenTelemetry(MeterProvider([self.reader]))

    @property
    def metrics(self) -> Mapping[str, list[Any]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        found = data.resource_metrics[0].scope_metrics[0].metrics
        return {metric.name: list(metric.data.data_points) for metric in found}

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric by the values of its attributes."""
        return {
            tuple(str(each) for each in point.attributes.values()): point.value
            for point in self.metrics.get(name, ())
        }

    def call(self, line: Line, guard: ToolGuard, user: str | None, *scopes: str) -> None:
        """Call a tool."""
        server = line.server("shop")

        @server.tool()
        @requires_scopes("pay")
        async def pay(amount: str) -> str:
            return f"paid {amount}"

        guard.protect(server)

        async def main() -> None:
            with signed_in(user, scopes=scopes):
                async with line.in_memory(server) as call_tool:
                    await call_tool("pay", {"amount": "5"})

        anyio.run(main)
        assert guard.recorder.flush()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.reader.shutdown()


PROGRAM = """
import asyncio, json, sys
import httpx
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.lines import LINES
from toolguard import ToolGuard, requires_scopes
from toolguard.telemetry import OpenTelemetry, Records
from toolguard.testing import LocalIssuer

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
(line,) = [each for each in LINES if each.name == sys.argv[1]]
server, issuer = line.server("shop"), LocalIssuer(algorithm="ES256")

@server.tool()
@requires_scopes("pay")
async def pay(amount: str) -> str:
    return f"paid {amount}"

guard = ToolGuard(
    verifier=issuer.verifier(),
    audience=issuer.audience,
    on_decision=Records(OpenTelemetry(), subjects=sys.argv[2]),
)
app = line.http_app(guard.protect(server), stateless=True, json=True)

async def traced(scope, receive, send):
    # As the instrumentation of a web framework does.
    with trace.get_tracer("web").start_as_current_span("request"):
        await app(scope, receive, send)

async def main():
    params = {"name": "pay", "arguments": {"amount": "a hidden amount"}}
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    headers = {
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {issuer.mint('alice', scopes=[sys.argv[3]])}",
    }
    transport = httpx.ASGITransport(traced)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport) as client:
        await client.post("http://127.0.0.1:8000/mcp", headers=headers, json=message)

asyncio.run(main())
found = [json.loads(span.to_json()) for span in exporter.get_finished_spans()]
print(json.dumps([each for each in found if "toolguard.verdict" in each["attributes"]]))
"""


def span_of(forked: Forked, line: Line, subjects: str, scope: str) -> Any:
    """Call a tool in a process of its own, as a provider is set for ever; return its span."""
    done = subprocess.run(
        forked.command("-c", PROGRAM, line.name, subjects, scope),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (span,) = json.loads(done.stdout.splitlines()[-1])
    assert "a hidden amount" not in str(span)
    return span


def test_a_served_call_has_its_decision_on_the_span(line: Line, forked: Forked) -> None:
    attributes = span_of(forked, line, "clear", "pay")["attributes"]

    assert attributes["toolguard.verdict"] == "served"
    assert attributes["gen_ai.tool.name"] == "pay"
    assert attributes["mcp.method.name"] == "tools/call"
    assert attributes["enduser.id"] == "alice"


def test_a_refusal_is_an_event_of_the_span(line: Line, forked: Forked) -> None:
    events = span_of(forked, line, "hashed", "read")["events"]

    (event,) = [event for event in events if event["name"] == "toolguard.refusal"]
    assert event["attributes"]["error.type"] == "insufficient_scope"
    assert event["attributes"]["toolguard.missing_scopes"] == ["pay"]
    assert event["attributes"]["enduser.pseudo.id"] != "alice"
    assert "enduser.id" not in event["attributes"]


def test_what_happens_in_a_vault_is_an_event_of_the_span(telemetry: Telemetry) -> None:
    record = DecisionRecord(
        1.0, "https://mcp.test/mcp", "refreshed", transport=None, connections=("mail",)
    )
    with TracerProvider().get_tracer("web").start_as_current_span("call") as span:
        telemetry.consumer.during_call(record)

    found = json.loads(span.to_json())  # type: ignore[attr-defined]
    (event,) = found["events"]
    assert (event["name"], found["attributes"]) == ("toolguard.connection", {})
    assert event["attributes"] == {
        "toolguard.verdict": "refreshed",
        "toolguard.connections": ["mail"],
    }


def test_decisions_durations_and_losses_are_measured(
    line: Line, guarding: Guarding, telemetry: Telemetry
) -> None:
    def failing(_: object) -> None:
        raise RuntimeError

    guard = guarding(connections=None, on_decision=Records(telemetry.consumer, failing))
    telemetry.call(line, guard, "alice", "pay")

    metrics = telemetry.metrics
    served = [
        point
        for point in metrics["toolguard.decisions"]
        if point.attributes == {"toolguard.verdict": "served", "toolguard.kind": "tool"}
    ]
    assert [point.value for point in served] == [1]
    timed = [
        point
        for point in metrics["mcp.server.operation.duration"]
        if point.attributes == {"mcp.method.name": "tools/call"}
    ]
    assert [point.count for point in timed] == [1]
    assert [point.value for point in metrics["toolguard.records.lost"]] == [guard.recorder.lost]
    assert guard.recorder.lost >= 1


def test_a_consumer_that_fails_in_a_call_changes_nothing(
    line: Line, guarding: Guarding, telemetry: Telemetry
) -> None:
    class Failing:
        def during_call(self, _: object) -> None:
            raise RuntimeError

        def __call__(self, _: object) -> None:
            pass

    guard = guarding(connections=None, on_decision=Records(Failing(), telemetry.consumer))
    telemetry.call(line, guard, "alice", "pay")

    verdicts = {p.attributes["toolguard.verdict"] for p in telemetry.metrics["toolguard.decisions"]}
    assert "served" in verdicts
    assert guard.recorder.lost >= 1


def test_the_time_to_verify_a_token_is_measured_for_each_request(
    line: Line,
    guarding: Guarding,
    telemetry: Telemetry,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> None:
    server = line.server("shop")

    @server.tool()
    @requires_auth
    async def look() -> str:
        return "looked"

    guard = guarding(connections=None, on_decision=Records(telemetry.consumer))
    mode = Mode(line, "2025-11-25", stateless=True, json=True)
    url = serve(mode.app(guard.protect(server))) + "/mcp"
    Caller(http, url, mode.protocol, token=issuer.mint("alice")).call("look")
    assert guard.recorder.flush()

    (point,) = telemetry.metrics["toolguard.verification.duration"]
    assert (point.count, dict(point.attributes)) == (1, {"toolguard.verdict": "served"})
    assert 0 < point.sum < 60


def test_fetches_of_keys_and_their_age_are_measured(
    guarding: Guarding, issuer: LocalIssuer, telemetry: Telemetry
) -> None:
    clock, answers = FrozenClock(), [KeysUnavailableError("down"), issuer.jwks()]

    def fetch(url: str, timeout: float) -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return json.dumps(answer).encode()

    keys = JWKS(url="https://issuer.test/jwks", fetch=fetch, clock=clock, jitter=lambda: 0.0)
    verifier = issuer.verifier(keys=keys)
    guard = guarding(verifier=verifier, connections=None, on_decision=telemetry.consumer)
    assert "toolguard.keys.age" not in telemetry.metrics

    anyio.run(guard.warm_up)
    clock.advance(2)
    anyio.run(guard.warm_up)
    clock.advance(100)

    about = "https://issuer.test/jwks"
    fetches = {(about, "success"): 1, (about, "failure"): 1}
    assert telemetry.values("toolguard.keys.fetches") == fetches
    assert telemetry.values("toolguard.keys.age") == {(about,): 100}


def test_fetches_of_connections_and_cache_hits_are_counted(
    guarding: Guarding, telemetry: Telemetry
) -> None:
    async def connect(request: ConnectionRequest) -> Connection:
        if request.name == "files":
            raise ConnectionUnavailableError("down", connection="files")
        return Connection("a token")

    provider = CachedConnections(connect)
    guarding(connections=provider, on_decision=telemetry.consumer)

    async def fetch(name: str) -> None:
        caller = Principal("alice", "https://issuer.test")
        await provider.fetch(ConnectionRequest(name, (), caller, "a.b.c"))

    async def main() -> None:
        for _ in range(3):
            await fetch("mail")
        with pytest.raises(ConnectionUnavailableError):
            await fetch("files")

    anyio.run(main)
    assert telemetry.values("toolguard.connections.fetches") == {
        ("mail", "success"): 1,
        ("files", "connection_unavailable"): 1,
    }
    assert telemetry.values("toolguard.connections.cache.hits") == {("mail",): 2}


def test_the_dashboard_of_the_example_shows_existing_metrics() -> None:
    units = {"s": "_seconds", "counter": "_total", "histogram": "_bucket"}
    made: set[str] = set()

    class Meter:
        def create(self, kind: str, name: str, unit: str = "", **_: object) -> None:
            made.add(name.replace(".", "_") + units.get(unit, "") + units.get(kind, ""))

        def __getattr__(self, method: str) -> Any:
            return partial(self.create, method.rpartition("_")[2])

    class Meters:
        def get_meter(self, *_: object, **__: object) -> Any:
            return Meter()

    meters: Any = Meters()
    OpenTelemetry(meters)

    shown = set(re.findall(r"\b(?:toolguard|mcp_server)_\w+_(?:total|bucket|seconds)\b", DASHBOARD))
    assert shown == made
