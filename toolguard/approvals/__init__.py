"""One call, approved by a person. Public."""

from toolguard.approvals.approvals import Approvals

__all__ = ["Approvals"]
