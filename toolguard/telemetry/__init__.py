"""Decision records for operators: what they say, and where they go. Public.

::

    guard = ToolGuard(..., on_decision=JSONLines(sys.stderr))
    guard = ToolGuard(..., on_decision=Records(OpenTelemetry(), to_siem, subjects="hashed"))
"""

from typing import TYPE_CHECKING, Any

from toolguard.calls.recorder import OnDecision, Records, Subjects
from toolguard.calls.records import DecisionRecord, DecisionVerdict
from toolguard.parts.extras import explained
from toolguard.telemetry.json_lines import JSONLines

if TYPE_CHECKING:
    from toolguard.telemetry.open_telemetry import OpenTelemetry

__all__ = [
    "DecisionRecord",
    "DecisionVerdict",
    "JSONLines",
    "OnDecision",
    "OpenTelemetry",
    "Records",
    "Subjects",
]


def __getattr__(name: str) -> Any:
    """Import what needs the extra ``otel`` on first use (PEP 562)."""
    if name == "OpenTelemetry":
        with explained():
            from toolguard.telemetry.open_telemetry import (  # noqa: PLC0415 - an extra
                OpenTelemetry,
            )

        return OpenTelemetry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
