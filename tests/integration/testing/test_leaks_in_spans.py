"""Is a token found in the spans that an application exports?

In a process of its own: a provider of spans is set once, and for ever.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from support.forked import Forked
from support.lines import Line

pytest.importorskip("opentelemetry.sdk.trace", reason="spans need opentelemetry-sdk")

PROGRAM = """
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from support.lines import LINES
from toolguard import Connection, ToolGuard, requires_scopes, with_connection
from toolguard.testing import LeakError, LocalIssuer, assert_no_leaks

exporter = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))

async def connect(request):
    raise AssertionError("it is not asked")

def protected(body):
    (line,) = [each for each in LINES if each.name == sys.argv[1]]
    server, issuer = line.server("desk"), LocalIssuer(algorithm="ES256")

    @server.tool()
    @requires_scopes("mail.read")
    @with_connection("mail")
    async def read(folder: str, *, connection_token: str) -> str:
        body(connection_token)
        return "mail"

    guard = ToolGuard(verifier=issuer.verifier(), audience=issuer.audience, connections=connect)
    return guard.protect(server)

def searched(body):
    try:
        return assert_no_leaks(protected(body))
    except LeakError as error:
        return error.report

def attribute(token):
    trace.get_current_span().set_attribute("mail", f"Bearer {token}")

def own_span(token):
    with trace.get_tracer("desk").start_as_current_span("reading") as span:
        span.add_event("fetched", {"token": token})

quiet = searched(lambda token: None)
spans = len(exporter.get_finished_spans())
found = {each.where for each in searched(own_span).leaks} | {"none"}
print(json.dumps([quiet.spans, len(quiet.leaks), spans > 0, sorted(found),
                  sorted({each.channel for each in searched(attribute).leaks})]))
"""


def test_a_token_in_a_span_is_found(line: Line, forked: Forked) -> None:
    done = subprocess.run(
        forked.command("-c", PROGRAM, line.name),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )

    frameworks_own = line.name != "mcp1"  # that one has none
    assert json.loads(done.stdout.splitlines()[-1]) == [
        True,
        0,
        frameworks_own,
        ["none", "reading"],
        ["span"] if frameworks_own else [],
    ]
