"""Decide with Casbin, in this process. See README.md."""

from __future__ import annotations

from pathlib import Path

from casbin import Enforcer

from toolguard import Answer, OperationCall, Principal, requires

HERE = Path(__file__).parent
ENFORCER = Enforcer(str(HERE / "casbin_model.conf"), str(HERE / "casbin_policy.csv"))


def by_casbin(principal: Principal, call: OperationCall) -> Answer:
    """Return what the policy says of the user, or of one of the roles in the token."""
    # With prefixes, so that a user named "editor" does not get the role of that name.
    subjects = [f"user:{principal.user_id}", *(f"role:{role}" for role in principal.roles)]
    for subject in subjects:
        if ENFORCER.enforce(subject, call.kind, call.name):
            return Answer.permit()
    return Answer.deny("no line of the policy permits it")


casbin = requires(by_casbin)
