"""Approvals as the tests make them."""

from __future__ import annotations

from typing import Any

from toolguard.approvals.approval import Approval, Asker, Binding
from toolguard.approvals.canonical import digest_of

NOW = 1_800_000_000.0
WITHIN = 300.0
ALICE = Asker("https://auth.test", "alice", "client")


def binding(asker: Asker = ALICE, tool: str = "pay", **arguments: Any) -> Binding:
    return Binding(
        "https://mcp.test/mcp", asker, (), tool, "tools.pay", "rule", digest_of(arguments)
    )


def question(of: Binding, id_: str = "id", now: float = NOW) -> Approval:
    return Approval(of.digest, id_, of.asker, {"tool": of.tool}, now + WITHIN)
