"""The approval of one call: what it is bound to, and the states it goes through.

All of this is pure. A question begins as PENDING; its answer is APPROVED or REFUSED; a call that
runs leaves USED behind. A question, and each answer, counts until it expires.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

from toolguard.approvals.canonical import digest_of
from toolguard.principal import OwnerKey

__all__ = ["Approval", "ApprovalState", "ApprovalStore", "Asker", "Binding", "PersonAnswer"]

ApprovalState: TypeAlias = Literal["pending", "approved", "refused", "used"]
"""The state of an approval."""

PersonAnswer: TypeAlias = Literal["approved", "refused"]
"""The answer of a person."""


@dataclass(frozen=True)
class Asker:
    """The caller of the call.

    Attributes:
        issuer: the issuer of the caller's token.
        subject: the user; None for a caller without one.
        client: the OAuth client that calls.
    """

    issuer: str
    subject: str | None
    client: str | None


@dataclass(frozen=True)
class Binding:
    """What an approval is for: one call, by one caller, of one server.

    Attributes:
        server: the URL of the server.
        asker: the caller.
        owner: the caller, with their tenant, their key and who acts for them.
        tool: the tool, by the name that the client used.
        function: the function that would run.
        rule: the approval that the function declares.
        arguments: the digest of the validated arguments.
    """

    server: str
    asker: Asker
    owner: OwnerKey
    tool: str
    function: str
    rule: str
    arguments: str

    @property
    def digest(self) -> str:
        """The digest of all of it: equal for the same call, and for no other."""
        return digest_of(self)


@dataclass(frozen=True)
class Approval:
    """One question to a person, and its answer.

    Attributes:
        binding: the digest of what it is for.
        id: what its page is known by. It is no secret: the page asks who opens it.
        asker: the caller.
        facts: what the page shows; not in the representation.
        expires_at: when the question, or its answer, does not count any more; seconds since the
            epoch.
        state: its state.
    """

    binding: str
    id: str
    asker: Asker
    facts: Mapping[str, Any] = field(repr=False)
    expires_at: float
    state: ApprovalState = "pending"

    def is_live(self, now: float) -> bool:
        """Return whether it still counts at ``now``."""
        return self.expires_at > now

    def is_over(self, now: float) -> bool:
        """Return whether the same call needs a new question at ``now``."""
        return self.state == "used" or not self.is_live(now)

    def used(self, now: float) -> Approval | None:
        """Return it as the call leaves it that runs now; None if the call may not run."""
        may_run = self.state == "approved" and self.is_live(now)
        return replace(self, state="used") if may_run else None

    def answered(self, answer: PersonAnswer, now: float, until: float) -> Approval | None:
        """Return it with an answer; None if it has one, or has expired.

        Args:
            answer: the answer.
            now: seconds since the epoch.
            until: when the answer expires.
        """
        if self.state != "pending" or not self.is_live(now):
            return None
        return replace(self, state=answer, expires_at=until)


class ApprovalStore(Protocol):
    """Keeps approvals; each method is one atomic step."""

    async def use(self, binding: str, now: float) -> bool:
        """Use an approval up; return False unless there was one that counts.

        Args:
            binding: the digest of what it is for.
            now: seconds since the epoch.
        """
        ...

    async def ask(self, new: Approval, now: float) -> Approval:
        """Return the approval of the same call that is not over; else keep ``new``, and return it.

        Args:
            new: a new question.
            now: seconds since the epoch.
        """
        ...

    async def find(self, id_: str, now: float) -> Approval | None:
        """Return the approval with this id, unless it has expired.

        Args:
            id_: what its page is known by.
            now: seconds since the epoch.
        """
        ...

    async def answer(self, found: Approval, answer: PersonAnswer, now: float, until: float) -> bool:
        """Answer a question; return False if it has an answer, or has expired.

        Args:
            found: the approval, as :meth:`find` returned it.
            answer: the answer.
            now: seconds since the epoch.
            until: when the answer expires.
        """
        ...
