"""Decision records for operators: what a guard tells of each decision, and where it can go.

::

    guard = ToolGuard(..., on_decision=JSONLines(sys.stderr))
    guard = ToolGuard(..., on_decision=Records(to_siem, subjects="hashed"))
"""

from toolguard.calls.recorder import OnDecision, Records, Subjects
from toolguard.calls.records import DecisionRecord, DecisionVerdict
from toolguard.telemetry.json_lines import JSONLines

__all__ = ["DecisionRecord", "DecisionVerdict", "JSONLines", "OnDecision", "Records", "Subjects"]
