"""Decision records as attributes and events of spans, and as metrics, of OpenTelemetry.

Attributes follow the semantic conventions where they have a name: those for MCP
(https://opentelemetry.io/docs/specs/semconv/gen-ai/mcp), with ``mcp.method.name``,
``gen_ai.tool.name``, ``gen_ai.prompt.name``, ``jsonrpc.request.id`` and ``error.type``, and those
for end users (https://opentelemetry.io/docs/specs/semconv/registry/attributes/enduser), with
``enduser.id`` and, for pseudonyms, ``enduser.pseudo.id``. All are in development. Everything else
is called ``toolguard.*``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.util.types import AttributeValue

from toolguard.calls.recorder import Recorder
from toolguard.calls.records import GRANT_VERDICTS, DecisionRecord
from toolguard.parts.figures import FigureName
from toolguard.policies.operations import METHODS
from toolguard.policies.published import LISTS

__all__ = ["OpenTelemetry"]

_SCOPE = "toolguard"
# Only these are metric attributes: clients can make up any number of others.
_KNOWN_METHODS = frozenset((*METHODS, *LISTS))
_SUCCEEDED = ("served", "filtered")
_COUNTED: Mapping[FigureName, tuple[str, str]] = {
    "keys.fetches": ("{fetch}", "Fetches of an issuer's keys."),
    "connections.fetches": ("{request}", "Requests to the providers of connections."),
    "connections.cache.hits": ("{hit}", "Connections that were in the cache."),
    "connections.refreshes": ("{refresh}", "Requests to services for new access tokens."),
}


class OpenTelemetry:
    """Adds each decision to the current span, and counts it.

    It starts no span of its own: the attributes are set on the span in which the framework (or the
    instrumentation of the web framework) serves the message. A refusal is also an event, and so is
    what happens in a vault.

    Metrics: ``toolguard.decisions`` by verdict, reason and kind of operation;
    ``mcp.server.operation.duration`` and ``toolguard.verification.duration`` in seconds;
    ``toolguard.keys.fetches`` and ``toolguard.keys.age`` by issuer;
    ``toolguard.connections.fetches``, ``.cache.hits`` and ``.refreshes`` by connection;
    ``toolguard.records.lost``.

    Args:
        meter_provider: the provider of meters; by default the global one.
    """

    def __init__(self, meter_provider: MeterProvider | None = None) -> None:
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._recorders: list[Recorder] = []
        self._decisions = meter.create_counter(
            "toolguard.decisions", unit="{decision}", description="Decisions of the guard."
        )
        self._durations = meter.create_histogram(
            "mcp.server.operation.duration",
            unit="s",
            description="The time from the arrival of a message until its answer.",
        )
        self._verifications = meter.create_histogram(
            "toolguard.verification.duration",
            unit="s",
            description="The time in which the token of a request was verified.",
        )
        for name, (unit, description) in _COUNTED.items():
            meter.create_observable_counter(
                f"{_SCOPE}.{name}",
                callbacks=[partial(self._observe, name)],
                unit=unit,
                description=description,
            )
        meter.create_observable_gauge(
            "toolguard.keys.age",
            callbacks=[partial(self._observe, "keys.age")],
            unit="s",
            description="The age of an issuer's keys.",
        )
        meter.create_observable_counter(
            "toolguard.records.lost",
            callbacks=[self._observe_losses],
            unit="{record}",
            description="Decision records that a consumer did not get.",
        )

    def attach(self, recorder: Recorder) -> None:
        """Observe the losses of a guard's records, and what the guard has counted.

        Args:
            recorder: the queue of the records of the guard.
        """
        self._recorders.append(recorder)

    def during_call(self, record: DecisionRecord) -> None:
        """Add a record to the span of the call that is being served.

        Args:
            record: the record of a decision.
        """
        span = trace.get_current_span()
        if not span.is_recording():
            return
        attributes = dict(_attributes(record))
        if record.verdict in GRANT_VERDICTS:  # in a call, which has a record of its own
            span.add_event("toolguard.connection", attributes)
            return
        span.set_attributes(attributes)
        if record.verdict not in _SUCCEEDED and record.verdict != "failed":
            span.add_event("toolguard.refusal", attributes)

    def __call__(self, record: DecisionRecord) -> None:
        """Count a record."""
        counted: dict[str, str] = {
            "toolguard.verdict": record.verdict,
            "toolguard.kind": record.kind or "none",
        }
        if record.reason is not None:
            counted["error.type"] = record.reason
        self._decisions.add(1, counted)
        if record.method in _KNOWN_METHODS and not record.nested:
            timed = {"mcp.method.name": str(record.method)}
            if record.reason is not None:
                timed["error.type"] = record.reason
            self._durations.record(record.duration, timed)

        if record.verification is not None:
            self._verifications.record(record.verification, {"toolguard.verdict": record.verdict})

    def _observe(self, name: str, _: CallbackOptions) -> Iterable[Observation]:
        for recorder in self._recorders:
            for figure in recorder.figures():
                if figure.name == name:
                    about = {f"{_SCOPE}.{what}": of for what, of in figure.attributes.items()}
                    yield Observation(figure.value, about)

    def _observe_losses(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(sum(recorder.lost for recorder in self._recorders))


def _attributes(record: DecisionRecord) -> Iterator[tuple[str, AttributeValue]]:
    user = "enduser.pseudo.id" if record.hashed else "enduser.id"
    names: dict[str, AttributeValue | None] = {
        "toolguard.verdict": record.verdict,
        "error.type": record.reason,
        "mcp.method.name": record.method,
        "jsonrpc.request.id": None if record.request_id is None else str(record.request_id),
        "gen_ai.tool.name": record.operation if record.kind == "tool" else None,
        "gen_ai.prompt.name": record.operation if record.kind == "prompt" else None,
        "toolguard.resource": record.operation if record.kind == "resource" else None,
        user: record.subject,
        "toolguard.issuer": record.issuer,
        "toolguard.client": record.client,
        "toolguard.tenant": record.tenant,
        "toolguard.actor": record.actor,
        "toolguard.rule": record.rule,
        "toolguard.denied_by": record.denied_by,
        "toolguard.missing_scopes": record.missing_scopes or None,
        "toolguard.connections": record.connections or None,
    }
    return ((name, value) for name, value in names.items() if value is not None)
