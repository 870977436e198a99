"""Decide with Cedar, in this process. See README.md."""

from __future__ import annotations

import json
from pathlib import Path

from cedarpy import is_authorized

from toolguard import Answer, OperationCall, Principal, requires

POLICIES = Path(__file__).with_name("policies.cedar").read_text("utf-8")


def by_cedar(principal: Principal, call: OperationCall) -> Answer:
    """Return what the policies say; what Cedar cannot decide, they do not permit."""
    request = {
        "principal": f"User::{json.dumps(principal.user_id, ensure_ascii=False)}",
        "action": 'Action::"call"',
        "resource": f"{call.kind.title()}::{json.dumps(call.name, ensure_ascii=False)}",
        "context": {"roles": list(principal.roles), "arguments": dict(call.arguments)},
    }
    result = is_authorized(request, POLICIES, [])
    if result.allowed:
        return Answer.permit()
    # Not the errors themselves: they may quote arguments, and the reason goes on record.
    failed = len(result.diagnostics.errors)
    return Answer.deny(f"{failed} errors" if failed else "no policy permits it")


cedar = requires(by_cedar)
