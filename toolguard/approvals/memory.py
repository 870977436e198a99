"""Keep approvals in memory, for a server that is one process."""

from __future__ import annotations

import threading

from toolguard.approvals.approval import Approval, PersonAnswer

__all__ = ["MAX_OF_ASKER", "MemoryApprovals"]

MAX_OF_ASKER = 50
"""The maximum number of questions of one caller: the ones that end first make room."""


class MemoryApprovals:
    """Approvals in memory, for the event loops and threads of one process."""

    def __init__(self) -> None:
        self._by_binding: dict[str, Approval] = {}
        self._lock = threading.Lock()

    async def use(self, binding: str, now: float) -> bool:
        """Use an approval up; return False unless there was one that counts.

        Args:
            binding: the digest of what it is for.
            now: seconds since the epoch.
        """
        with self._lock:
            found = self._by_binding.get(binding)
            used = found.used(now) if found is not None else None
            if used is None:
                return False
            self._by_binding[binding] = used
            return True

    async def ask(self, new: Approval, now: float) -> Approval:
        """Return the approval of the same call that is not over; else keep ``new``, and return it.

        Args:
            new: a new question.
            now: seconds since the epoch.
        """
        with self._lock:
            found = self._by_binding.get(new.binding)
            if found is not None and not found.is_over(now):
                return found
            self._make_room(new, now)
            self._by_binding[new.binding] = new
            return new

    async def find(self, id_: str, now: float) -> Approval | None:
        """Return the approval with this id, unless it has expired.

        Args:
            id_: what its page is known by.
            now: seconds since the epoch.
        """
        with self._lock:
            live = (each for each in self._by_binding.values() if each.is_live(now))
            return next((each for each in live if each.id == id_), None)

    async def answer(self, found: Approval, answer: PersonAnswer, now: float, until: float) -> bool:
        """Answer a question; return False if it has an answer, or has expired.

        Args:
            found: the approval, as :meth:`find` returned it.
            answer: the answer.
            now: seconds since the epoch.
            until: when the answer expires.
        """
        with self._lock:
            kept = self._by_binding.get(found.binding)
            if kept is None or kept.id != found.id:
                return False
            answered = kept.answered(answer, now, until)
            if answered is None:
                return False
            self._by_binding[found.binding] = answered
            return True

    def _make_room(self, new: Approval, now: float) -> None:
        kept = {key: each for key, each in self._by_binding.items() if each.is_live(now)}
        same = [each for each in kept.values() if _owner(each) == _owner(new)]
        same.sort(key=lambda each: each.expires_at)
        for each in same[: max(0, len(same) - MAX_OF_ASKER + 1)]:
            del kept[each.binding]
        self._by_binding = kept


def _owner(approval: Approval) -> tuple[str, str | None]:
    return approval.asker.issuer, approval.asker.subject or approval.asker.client
