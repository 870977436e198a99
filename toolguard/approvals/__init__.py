"""One call, approved by a person. Public."""

from toolguard.approvals.approvals import Approvals
from toolguard.approvals.pages import approval_routes

__all__ = ["Approvals", "approval_routes"]
